//! The requests that wait for a place.
//!
//! Free places are granted under the pool's lock, in order of arrival. So a place that was freed for one request cannot
//! be taken by a newcomer, nor by another request that wakes up first.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Capacity, Member, State};
use crate::dispatch::quarantine::{ConcurrencyLimit, Ticket};
use crate::wait::{Condition, MutexGuard};

/// The waiting requests, by their tickets.
pub(super) type Waiters<C> = HashMap<Ticket, Waiter<C>>;

/// A waiting request.
#[derive(Debug)]
pub(super) struct Waiter<C: Capacity> {
    limit: ConcurrencyLimit,
    preferred: Option<usize>,
    /// Wakes this request and no other.
    woken: Arc<Condition>,
    /// The place that it has been granted and will find when it wakes up. It has left the queue then.
    granted: Option<Grant<C>>,
}

/// A place that has been taken for a request.
#[derive(Debug)]
pub(super) struct Grant<C: Capacity> {
    /// The number of the member.
    pub(super) index: usize,
    /// The generation of the member.
    pub(super) generation: u64,
    /// The place.
    pub(super) place: C::Place,
}

/// Grants free places to waiting requests and wakes these requests.
pub(super) fn serve<C: Capacity>(mut state: MutexGuard<State<C>>) {
    let served = state.grant_free_places();
    drop(state);
    wake(&served);
}

/// Wakes waiting requests. Call this without the pool's lock, which they need next.
pub(super) fn wake(woken: &[Arc<Condition>]) {
    woken.iter().for_each(|woken| woken.notify_one());
}

impl<C: Capacity> State<C> {
    /// Takes a free place for a request, if there is one that the request may use.
    pub(super) fn grant(
        &mut self,
        ticket: Option<Ticket>,
        limit: ConcurrencyLimit,
        preferred: Option<usize>,
    ) -> Option<Grant<C>> {
        if self.is_closed {
            return None;
        }
        let index = self.choose_member(ticket, limit, preferred)?;
        let member = &mut self.members[index];
        let place = member.capacity.as_mut()?.take()?;
        member.load.add(limit);
        Some(Grant {
            index,
            generation: member.generation,
            place,
        })
    }

    fn choose_member(
        &self,
        ticket: Option<Ticket>,
        limit: ConcurrencyLimit,
        preferred: Option<usize>,
    ) -> Option<usize> {
        let loads = self.best().map(|(index, member)| (index, &member.load));
        let has_free = |index: usize| self.members[index].has_free_place();
        let choose = |is_usable: &dyn Fn(usize) -> bool| {
            self.queue.choose(ticket, limit, loads.clone(), is_usable)
        };
        preferred
            .and_then(|preferred| choose(&|index| index == preferred && has_free(index)))
            .or_else(|| choose(&has_free))
    }

    /// The members that get requests now: the healthiest that take requests.
    fn best(&self) -> impl Iterator<Item = (usize, &Member<C>)> + Clone {
        let members = self.members.iter().enumerate();
        let serving = members.filter(|(_, member)| member.capacity.is_some());
        let best = serving.clone().map(|(_, member)| member.health).min();
        serving.filter(move |(_, member)| Some(member.health) == best)
    }

    /// Enters a request into the queue. Returns its ticket and the condition that wakes it.
    pub(super) fn begin_wait(
        &mut self,
        limit: ConcurrencyLimit,
        preferred: Option<usize>,
    ) -> (Ticket, Arc<Condition>) {
        let ticket = self.queue.enter(limit);
        let woken = Arc::new(Condition::new());
        let waiter = Waiter {
            limit,
            preferred,
            woken: Arc::clone(&woken),
            granted: None,
        };
        self.waiters.insert(ticket, waiter);
        (ticket, woken)
    }

    /// Grants free places to waiting requests that may use them, in order of arrival. Must be called after each change
    /// that may let a request go. Returns the conditions to notify with [`wake`].
    #[must_use]
    pub(super) fn grant_free_places(&mut self) -> Vec<Arc<Condition>> {
        let mut served = Vec::new();
        let mut next = self.queue.next(None);
        while let Some((ticket, limit)) = next {
            let preferred = self.waiters.get(&ticket).and_then(|w| w.preferred);
            if let Some(grant) = self.grant(Some(ticket), limit, preferred) {
                self.queue.leave(ticket);
                if let Some(waiter) = self.waiters.get_mut(&ticket) {
                    waiter.granted = Some(grant);
                    served.push(Arc::clone(&waiter.woken));
                }
            } else if !limit.is_quarantined() {
                // No request behind this one can use a place that this one cannot.
                break;
            }
            next = self.queue.next(Some(ticket));
        }
        served
    }

    /// The conditions of all waiting requests, to be notified when waiting has become pointless.
    pub(super) fn all_waiting(&self) -> Vec<Arc<Condition>> {
        let waiters = self.waiters.values();
        waiters.map(|waiter| Arc::clone(&waiter.woken)).collect()
    }

    /// The place that a request has been granted, if any; the request stops waiting then.
    pub(super) fn pick_up(&mut self, ticket: Ticket) -> Option<Grant<C>> {
        let grant = self.waiters.get_mut(&ticket)?.granted.take()?;
        self.waiters.remove(&ticket);
        Some(grant)
    }

    /// Removes a request that stops waiting. Returns the place that it has been granted, if any.
    pub(super) fn give_up(&mut self, ticket: Ticket) -> Option<Grant<C>> {
        self.queue.leave(ticket);
        self.waiters.remove(&ticket)?.granted
    }

    /// Retires a member; see [`Member::retire`]. Requests that have been granted a place at it and have not woken up
    /// yet return to their old places in the queue.
    pub(super) fn retire(&mut self, index: usize) -> bool {
        let took_requests = self.members[index].retire();
        for (&ticket, waiter) in &mut self.waiters {
            let is_lost = |grant: &mut Grant<C>| grant.index == index;
            if waiter.granted.take_if(is_lost).is_some() {
                self.queue.reenter(ticket, waiter.limit);
            }
        }
        took_requests
    }

    /// Whether a place is free that the rules of quarantine keep from this request, which has none.
    pub(super) fn is_held_back(&self, ticket: Option<Ticket>) -> bool {
        let waiter = ticket.and_then(|ticket| self.waiters.get(&ticket));
        let has_grant = waiter.is_some_and(|waiter| waiter.granted.is_some());
        !has_grant && self.best().any(|(_, member)| member.has_free_place())
    }
}
