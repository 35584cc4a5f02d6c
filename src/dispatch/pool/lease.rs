//! What a request has of a pool: a place at a member, or the prospect of one. Each is given back when it is dropped.

use std::sync::Arc;
use std::time::Instant;

use super::{Capacity, Pool, waiters};
use crate::dispatch::quarantine::ConcurrencyLimit;
use crate::wait::WaitError;

/// A place for one request at a member; given back when dropped.
#[derive(Debug)]
pub struct Lease<C: Capacity> {
    pub(super) pool: Arc<Pool<C>>,
    pub(super) index: usize,
    pub(super) generation: u64,
    pub(super) limit: ConcurrencyLimit,
    pub(super) place: C::Place,
    pub(super) is_discarded: bool,
}

impl<C: Capacity> Lease<C> {
    /// Number of the member.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The place.
    pub fn place(&self) -> &C::Place {
        &self.place
    }

    /// Whether the member has ceased to take requests since the lease began. Waits for that until `limit`.
    ///
    /// # Errors
    /// [`WaitError::Cancelled`].
    pub fn wait_until_gone(&self, limit: Instant) -> Result<bool, WaitError> {
        let mut state = self.pool.state.lock();
        loop {
            if state.members[self.index].generation != self.generation {
                return Ok(true);
            }
            if Instant::now() >= limit {
                return Ok(false);
            }
            let waited;
            (state, waited) = self.pool.wait(state, limit);
            if waited == Err(WaitError::Cancelled) {
                return Err(WaitError::Cancelled);
            }
        }
    }

    /// Nobody waits for the request's answer any more: its place is still taken, but not in quarantine.
    pub fn leave_quarantine(&mut self) {
        if self.limit == ConcurrencyLimit::ANY {
            return;
        }
        let mut state = self.pool.state.lock();
        let member = &mut state.members[self.index];
        if member.generation == self.generation {
            member.load.remove(self.limit);
            member.load.add(ConcurrencyLimit::ANY);
        }
        self.limit = ConcurrencyLimit::ANY;
        waiters::serve(state);
    }

    /// Ends the lease of a place that is of no more use.
    pub fn discard(mut self) {
        self.is_discarded = true;
    }
}

impl<C: Capacity> Drop for Lease<C> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        let member = &mut state.members[self.index];
        if member.generation == self.generation {
            member.load.remove(self.limit);
            if let Some(capacity) = &mut member.capacity {
                let place = self.place.clone();
                match self.is_discarded {
                    true => capacity.lose(place),
                    false => capacity.give_back(place),
                }
            }
        }
        waiters::serve(state);
    }
}

/// A member at which a request is expected soon. It counts when others choose theirs; nobody waits for it.
#[derive(Debug)]
pub struct Choice<C: Capacity> {
    pub(super) pool: Arc<Pool<C>>,
    pub(super) index: usize,
    pub(super) generation: u64,
}

impl<C: Capacity> Choice<C> {
    /// Number of the member.
    pub fn index(&self) -> usize {
        self.index
    }
}

impl<C: Capacity> Drop for Choice<C> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        let member = &mut state.members[self.index];
        if member.generation == self.generation {
            member.load.expected -= 1;
        }
    }
}
