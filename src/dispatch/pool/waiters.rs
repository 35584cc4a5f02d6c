//! The requests that wait for a place. Places are given to them under the lock, in order of arrival, so that neither a
//! newcomer nor one that happens to wake up first can take a place that was freed for another.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Capacity, Member, State};
use crate::dispatch::quarantine::{ConcurrencyLimit, Ticket};
use crate::wait::{Condition, MutexGuard};

/// By their places in the queue.
pub(super) type Waiters<C> = HashMap<Ticket, Waiter<C>>;

/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiter<C: Capacity> {
    limit: ConcurrencyLimit,
    preferred: Option<usize>,
    /// Its own, so that nobody else is woken.
    woken: Arc<Condition>,
    /// What it will find when it wakes up. Then it is no longer in the queue.
    given: Option<Lent<C>>,
}

/// A place that was taken.
#[derive(Debug)]
pub(super) struct Lent<C: Capacity> {
    /// Number of its member.
    pub(super) index: usize,
    pub(super) generation: u64,
    pub(super) place: C::Place,
}

/// Gives free places to those who wait, and wakes them.
pub(super) fn serve<C: Capacity>(mut state: MutexGuard<State<C>>) {
    let served = state.hand_over();
    drop(state);
    wake(&served);
}

/// Wakes waiters; without the lock, for which they would have to wait.
pub(super) fn wake(woken: &[Arc<Condition>]) {
    woken.iter().for_each(|woken| woken.notify_one());
}

impl<C: Capacity> State<C> {
    /// A free place, now taken.
    pub(super) fn lend(
        &mut self,
        ticket: Option<Ticket>,
        limit: ConcurrencyLimit,
        preferred: Option<usize>,
    ) -> Option<Lent<C>> {
        if self.is_closed {
            return None;
        }
        let index = self.choose_member(ticket, limit, preferred)?;
        let member = &mut self.members[index];
        let place = member.capacity.as_mut()?.take()?;
        member.load.add(limit);
        Some(Lent {
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

    /// The members that get requests now: the healthiest.
    fn best(&self) -> impl Iterator<Item = (usize, &Member<C>)> + Clone {
        let members = self.members.iter().enumerate();
        let serving = members.filter(|(_, member)| member.capacity.is_some());
        let best = serving.clone().map(|(_, member)| member.health).min();
        serving.filter(move |(_, member)| Some(member.health) == best)
    }

    /// A request begins to wait: its place in the queue, and what wakes it.
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
            given: None,
        };
        self.waiters.insert(ticket, waiter);
        (ticket, woken)
    }

    /// Gives free places to those who wait, in order of arrival, as far as they may use them. To be called after each
    /// change by which somebody may get one. Returns who is to be woken.
    #[must_use]
    pub(super) fn hand_over(&mut self) -> Vec<Arc<Condition>> {
        let mut served = Vec::new();
        let mut next = self.queue.next(None);
        while let Some((ticket, limit)) = next {
            let preferred = self.waiters.get(&ticket).and_then(|w| w.preferred);
            if let Some(lent) = self.lend(Some(ticket), limit, preferred) {
                self.queue.leave(ticket);
                if let Some(waiter) = self.waiters.get_mut(&ticket) {
                    waiter.given = Some(lent);
                    served.push(Arc::clone(&waiter.woken));
                }
            } else if !limit.is_quarantined() {
                // What this one cannot use, none behind it can.
                break;
            }
            next = self.queue.next(Some(ticket));
        }
        served
    }

    /// What to wake when nobody is to wait any longer.
    pub(super) fn all_waiting(&self) -> Vec<Arc<Condition>> {
        let waiters = self.waiters.values();
        waiters.map(|waiter| Arc::clone(&waiter.woken)).collect()
    }

    /// The place that a request was given, if it was; then it waits no more.
    pub(super) fn pick_up(&mut self, ticket: Ticket) -> Option<Lent<C>> {
        let lent = self.waiters.get_mut(&ticket)?.given.take()?;
        self.waiters.remove(&ticket);
        Some(lent)
    }

    /// A request waits no more, whatever it was given.
    pub(super) fn give_up(&mut self, ticket: Ticket) -> Option<Lent<C>> {
        self.queue.leave(ticket);
        self.waiters.remove(&ticket)?.given
    }

    /// A member takes no more requests. Whether it took them before. Those who were given a place at it and have yet to
    /// wake up wait on, where they were in the queue.
    pub(super) fn take_no_more(&mut self, index: usize) -> bool {
        let did = self.members[index].take_no_more();
        for (&ticket, waiter) in &mut self.waiters {
            if waiter.given.take_if(|lent| lent.index == index).is_some() {
                self.queue.reenter(ticket, waiter.limit);
            }
        }
        did
    }

    /// Whether a request without a place is kept from a free one, by the rules of quarantine.
    pub(super) fn is_held_back(&self, ticket: Option<Ticket>) -> bool {
        let waiter = ticket.and_then(|ticket| self.waiters.get(&ticket));
        let was_given = waiter.is_some_and(|waiter| waiter.given.is_some());
        !was_given && self.best().any(|(_, member)| member.has_free_place())
    }
}
