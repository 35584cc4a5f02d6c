//! A pool of processes of one kind, TFS instances or Python workers, which take requests.
//!
//! The units of the supervisor report the health of each member. A request leases a place at the healthiest member with
//! the fewest requests; while no place is free, requests wait in order of arrival, up to their deadlines
//! (`waiters.rs`). Requests that were lost with members are quarantined (`quarantine.rs`). What a place is, and how a
//! request reaches the process, is left to the modules that use a pool; see [`Capacity`].

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dispatch::quarantine::{ConcurrencyLimit, Load, Queue, Ticket};
use crate::error::RequestError;
use crate::wait::{Condition, Mutex, MutexGuard, WaitError};

mod lease;
mod waiters;

pub use lease::{Choice, Lease};
use waiters::{Grant, Waiters};

/// The health of a member, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// The member takes requests.
    Ready,
    /// The process runs but does not answer; it may only be busy. It gets requests only when no member is ready.
    Unresponsive,
    /// There is no process yet, or it is starting. The member gets no requests, but they wait for it.
    Coming,
    /// The process keeps failing. When all members fail, requests do not wait.
    Failing,
}

impl Health {
    fn takes_requests(self) -> bool {
        self <= Self::Unresponsive
    }
}

/// How many requests one process can take at once, as a set of places.
pub trait Capacity: Debug {
    /// The words for members in error messages.
    const WORDS: Words;
    /// What a request gets, for example the channel to a worker.
    type Place: Clone + Debug;

    /// Whether a place is free.
    fn has_free(&self) -> bool;
    /// Takes a free place.
    fn take(&mut self) -> Option<Self::Place>;
    /// Makes a place free again.
    fn give_back(&mut self, place: Self::Place);
    /// Notes that a place, which was taken, will never be free again.
    fn lose(&mut self, _place: Self::Place) {}
}

/// The parts of error messages that name the members of a pool.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// One member; its number follows.
    pub member: &'static str,
    /// No member is ready; "for N s" follows.
    pub none_ready: &'static str,
    /// All places are taken.
    pub none_free: &'static str,
    /// Why a request does not get a place although one is free.
    pub quarantine: &'static str,
}

/// Why a request got no place.
#[derive(Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// No place became free by the deadline; the text says what the members are doing.
    TimedOut(String),
    /// All members keep failing; the text says how.
    Failing(String),
    /// The client has hung up.
    Cancelled,
}

impl Unavailable {
    /// The error for the client: 504, 503, or none if the client has hung up. `limit` is the time limit of the request.
    pub fn into_error(self, limit: Duration) -> RequestError {
        match self {
            Self::TimedOut(why) => RequestError::deadline(limit, &why),
            Self::Failing(why) => RequestError::busy(why),
            Self::Cancelled => RequestError::hung_up(),
        }
    }
}

/// A pool of processes; see the module.
#[derive(Debug)]
pub struct Pool<C: Capacity> {
    state: Mutex<State<C>>,
    /// Notified when a member changes or the pool closes.
    changed: Condition,
}

#[derive(Debug)]
struct State<C: Capacity> {
    members: Vec<Member<C>>,
    /// The requests that wait for a place, in order of arrival.
    queue: Queue,
    /// The same requests, and those that have been granted a place and have not woken up yet.
    waiters: Waiters<C>,
    /// Since when no member is ready; `None` while one is.
    none_ready_since: Option<Instant>,
    is_closed: bool,
}

#[derive(Debug)]
struct Member<C> {
    health: Health,
    /// What it is doing, for messages; "for N s" follows.
    what: String,
    /// Since when it has been doing that.
    since: Instant,
    /// The places of its process; `None` while it takes no requests.
    capacity: Option<C>,
    /// How often it has stopped taking requests. Places of earlier generations no longer count.
    generation: u64,
    /// The requests at this generation.
    load: Load,
}

impl<C: Capacity> Pool<C> {
    /// A pool of this many members, which have not started yet.
    pub fn new(members: usize) -> Arc<Self> {
        let now = Instant::now();
        let member = || Member {
            health: Health::Coming,
            what: "starting".into(),
            since: now,
            capacity: None,
            generation: 0,
            load: Load::default(),
        };
        Arc::new(Self {
            state: Mutex::new(State {
                members: std::iter::repeat_with(member).take(members).collect(),
                queue: Queue::default(),
                waiters: Waiters::new(),
                none_ready_since: Some(now),
                is_closed: false,
            }),
            changed: Condition::new(),
        })
    }

    /// Closes the pool because the model is unloaded: no request gets a place any more.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        self.announce_change(state);
    }

    /// Sets the health of a member, which began at `since`; `what` says in words what the member is doing. If the
    /// member begins to take requests, `capacity` has the places of its process.
    pub fn set(
        &self,
        index: usize,
        health: Health,
        what: String,
        since: Instant,
        capacity: Option<C>,
    ) {
        let mut state = self.state.lock();
        let member = &mut state.members[index];
        (member.health, member.what, member.since) = (health, what, since);
        if !health.takes_requests() {
            state.retire(index);
        } else if member.capacity.is_none() {
            member.capacity = capacity;
        }
        state.note_readiness(since);
        self.announce_change(state);
    }

    /// Notes that the process of a member has ended. A call of [`Pool::set`] follows with the new health.
    pub fn process_ended(&self, index: usize) {
        let mut state = self.state.lock();
        if state.retire(index) {
            let now = Instant::now();
            let member = &mut state.members[index];
            (member.health, member.what, member.since) = (Health::Coming, "down".into(), now);
            state.note_readiness(now);
        }
        self.announce_change(state);
    }

    /// Leases a place for a request with this limit, and waits for one until `deadline`. The member `preferred` is
    /// taken if it has a place now.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub fn acquire(
        self: &Arc<Self>,
        limit: ConcurrencyLimit,
        preferred: Option<usize>,
        deadline: Instant,
    ) -> Result<Lease<C>, Unavailable> {
        let mut state = self.state.lock();
        if let Some(grant) = state.grant(None, limit, preferred) {
            return Ok(self.lease(grant, limit));
        }
        if let Some(reason) = state.refusal(None, deadline) {
            return Err(reason);
        }
        let (ticket, woken) = state.begin_wait(limit, preferred);
        let reason = loop {
            let waited;
            (state, waited) = woken.wait(state, Some(deadline));
            if waited == Err(WaitError::Cancelled) {
                break Unavailable::Cancelled;
            }
            if let Some(reason) = state.refusal(Some(ticket), deadline) {
                break reason;
            }
            if let Some(grant) = state.pick_up(ticket) {
                return Ok(self.lease(grant, limit));
            }
        };
        let too_late = state.give_up(ticket).map(|grant| self.lease(grant, limit));
        // Requests behind this one may have waited only because of it.
        waiters::serve(state);
        // Dropping the lease gives its place to the next request.
        drop(too_late);
        Err(reason)
    }

    fn lease(self: &Arc<Self>, grant: Grant<C>, limit: ConcurrencyLimit) -> Lease<C> {
        Lease {
            pool: Arc::clone(self),
            index: grant.index,
            generation: grant.generation,
            limit,
            place: grant.place,
            is_discarded: false,
        }
    }

    /// Chooses a member for a request that will be sent later, without waiting: the healthiest with the fewest
    /// requests, even if no member takes requests now.
    pub fn choose(self: &Arc<Self>) -> Choice<C> {
        let mut state = self.state.lock();
        let members = &mut state.members;
        let key = |&index: &usize| {
            let Member { health, load, .. } = &members[index];
            (*health, load.requests + load.expected)
        };
        let index = (0..members.len()).min_by_key(key).unwrap_or(0);
        members[index].load.expected += 1;
        Choice {
            pool: Arc::clone(self),
            index,
            generation: members[index].generation,
        }
    }

    /// Waits until a member takes requests.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub fn wait_until_serving(&self, deadline: Instant) -> Result<(), Unavailable> {
        let mut state = self.state.lock();
        let mut waited = Ok(());
        loop {
            if state.is_closed {
                return Err(Unavailable::TimedOut("the model was unloaded".into()));
            }
            if state.members.iter().any(|m| m.capacity.is_some()) {
                return Ok(());
            }
            if waited == Err(WaitError::Cancelled) {
                return Err(Unavailable::Cancelled);
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(Unavailable::TimedOut(state.describe(now)));
            }
            (state, waited) = self.changed.wait(state, Some(deadline));
        }
    }

    /// Waits until a member changes, at most until `limit`.
    ///
    /// # Errors
    /// [`WaitError::Cancelled`] when the client has hung up.
    pub fn wait_for_change(&self, limit: Instant) -> Result<(), WaitError> {
        match self.wait(self.state.lock(), limit) {
            (_, Err(WaitError::Cancelled)) => Err(WaitError::Cancelled),
            _ => Ok(()),
        }
    }

    /// Checks that a member is ready.
    ///
    /// # Errors
    /// When none is: for how long, and what the members are doing.
    pub fn check(&self) -> Result<(), String> {
        let state = self.state.lock();
        match state.none_ready_since {
            None => Ok(()),
            Some(_) => Err(state.describe(Instant::now())),
        }
    }

    /// Calls `look` with the capacity of a member that takes requests but has none at the moment; otherwise `None`.
    pub fn look_at_idle<T>(&self, index: usize, look: impl FnOnce(&C) -> T) -> Option<T> {
        let state = self.state.lock();
        let member = &state.members[index];
        let idle = member.capacity.as_ref();
        idle.filter(|_| member.load.requests == 0).map(look)
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State<C>>,
        limit: Instant,
    ) -> (MutexGuard<'a, State<C>>, Result<(), WaitError>) {
        self.changed.wait(state, Some(limit))
    }

    /// Wakes the waiting requests that a change of a member or of the pool concerns: those that get a place, or all of
    /// them when waiting has become pointless.
    fn announce_change(&self, mut state: MutexGuard<State<C>>) {
        let woken = match state.is_hopeless() {
            true => state.all_waiting(),
            false => state.grant_free_places(),
        };
        drop(state);
        waiters::wake(&woken);
        self.changed.notify_all();
    }

    /// The number of requests that wait for a place.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.state.lock().queue.waiting()
    }
}

impl<C: Capacity> Member<C> {
    /// Ends the current generation: the member takes no more requests. Returns whether it took requests before.
    fn retire(&mut self) -> bool {
        let took_requests = self.capacity.take().is_some();
        if took_requests {
            self.generation += 1;
            self.load = Load::default();
        }
        took_requests
    }

    fn has_free_place(&self) -> bool {
        self.capacity.as_ref().is_some_and(C::has_free)
    }
}

impl<C: Capacity> State<C> {
    fn note_readiness(&mut self, changed: Instant) {
        if self.members.iter().any(|m| m.health == Health::Ready) {
            self.none_ready_since = None;
        } else {
            self.none_ready_since.get_or_insert(changed);
        }
    }

    /// Whether no request can get a place, however long it waits.
    fn is_hopeless(&self) -> bool {
        self.is_closed || self.members.iter().all(|m| m.health == Health::Failing)
    }

    /// Why a request must not wait any longer; `ticket` is its place in the queue, if it waits already.
    fn refusal(&self, ticket: Option<Ticket>, deadline: Instant) -> Option<Unavailable> {
        let now = Instant::now();
        if self.is_closed {
            Some(Unavailable::TimedOut("the model was unloaded".into()))
        } else if self.is_hopeless() {
            Some(Unavailable::Failing(self.describe(now)))
        } else if now < deadline {
            None
        } else if self.is_held_back(ticket) {
            Some(Unavailable::TimedOut(C::WORDS.quarantine.into()))
        } else {
            Some(Unavailable::TimedOut(self.describe(now)))
        }
    }

    fn describe(&self, now: Instant) -> String {
        let seconds = |since| now.saturating_duration_since(since).as_secs();
        let Words {
            member: name,
            none_ready,
            none_free,
            ..
        } = C::WORDS;
        let members: Vec<_> = (0..)
            .zip(&self.members)
            .map(|(index, member)| {
                if member.health == Health::Ready && member.capacity.is_some() {
                    return match member.load.requests {
                        1 => format!("{name} {index}: busy with 1 request"),
                        count => format!("{name} {index}: busy with {count} requests"),
                    };
                }
                let (what, since) = (&member.what, seconds(member.since));
                format!("{name} {index}: {what} for {since} s")
            })
            .collect();
        let members = members.join("; ");
        match self.none_ready_since {
            Some(since) => format!("{none_ready} for {} s ({members})", seconds(since)),
            None => format!("{none_free} ({members})"),
        }
    }
}

#[cfg(test)]
mod tests;
