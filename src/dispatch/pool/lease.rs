//! What a request holds of a pool: a [`Lease`] of a place at a member, or a [`Choice`] of a member for later. Dropping
//! either gives it back.

use std::sync::Arc;
use std::time::Instant;

use super::{Capacity, Pool, waiters};
use crate::dispatch::quarantine::ConcurrencyLimit;
use crate::wait::WaitError;

/// A place for one request at a member; dropping the lease gives the place back.
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
    /// The number of the member.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The leased place.
    pub fn place(&self) -> &C::Place {
        &self.place
    }

    /// Waits until the member has stopped taking requests since the lease began, at most until `limit`. Returns whether
    /// it has.
    ///
    /// # Errors
    /// [`WaitError::Cancelled`] when the client has hung up.
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

    /// Ends the quarantine of an abandoned request. It keeps its place, but others may now be sent to the same member.
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

    /// Ends the lease of a place that cannot be used again.
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

/// The member chosen for a request that will be sent soon. Until then the choice counts when requests are spread over
/// the members, but no request waits because of it.
#[derive(Debug)]
pub struct Choice<C: Capacity> {
    pub(super) pool: Arc<Pool<C>>,
    pub(super) index: usize,
    pub(super) generation: u64,
}

impl<C: Capacity> Choice<C> {
    /// The number of the member.
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
