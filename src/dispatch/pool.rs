//! Processes of one kind, model servers or Python workers, as the requests that need one see them.
//!
//! The supervisor says how each member is. A request leases a place at the healthiest member with the least to do and
//! waits, within its deadline, while there is none, in order of arrival (`waiters.rs`). Requests that were lost with members
//! are subject to quarantine, see `quarantine.rs`. What a place is, and how a process is talked to, is for the modules that
//! use a pool: see [`Capacity`].

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dispatch::quarantine::{ConcurrencyLimit, Load, Queue, Ticket};
use crate::error::RequestError;
use crate::wait::{Condition, Mutex, MutexGuard, WaitError};

mod lease;
mod waiters;

pub use lease::{Choice, Lease};
use waiters::{Lent, Waiters};

/// How a member is, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Takes requests.
    Ready,
    /// Runs but does not answer. It gets requests only when no other is ready: it may be busy, not gone.
    Unresponsive,
    /// Has no process, or one that is starting: gets nothing, but is worth waiting for.
    Coming,
    /// Keeps failing. When all members do, requests do not wait.
    Failing,
}

impl Health {
    fn takes_requests(self) -> bool {
        self <= Self::Unresponsive
    }
}

/// What one process can take at once.
pub trait Capacity: Debug {
    /// What errors call the members.
    const WORDS: Words;
    /// What a request gets.
    type Place: Clone + Debug;

    /// Whether a place is free.
    fn has_free(&self) -> bool;
    /// Takes a free place.
    fn take(&mut self) -> Option<Self::Place>;
    /// A place is free again.
    fn give_back(&mut self, place: Self::Place);
    /// A place that was taken will never be free again.
    fn lose(&mut self, _place: Self::Place) {}
}

/// The parts of errors that name the members of a pool.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// One member; continued by its number.
    pub member: &'static str,
    /// No member is ready; continued by "for N s".
    pub none_ready: &'static str,
    /// All places are taken.
    pub none_free: &'static str,
    /// Why a place is free and a request cannot have it.
    pub quarantine: &'static str,
}

/// Why a request gets no place.
#[derive(Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// None became free by the deadline; what the members are doing instead.
    TimedOut(String),
    /// All members keep failing, in this way.
    Failing(String),
    /// The client has hung up.
    Cancelled,
}

impl Unavailable {
    /// The client's answer: 504, 503 or none. `limit` is the time that the request had.
    pub fn into_error(self, limit: Duration) -> RequestError {
        match self {
            Self::TimedOut(why) => RequestError::deadline(limit, &why),
            Self::Failing(why) => RequestError::busy(why),
            Self::Cancelled => RequestError::hung_up(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Pool<C: Capacity> {
    state: Mutex<State<C>>,
    /// A member has changed.
    changed: Condition,
}

#[derive(Debug)]
struct State<C: Capacity> {
    members: Vec<Member<C>>,
    /// Requests without a place, by the rules of quarantine.
    queue: Queue,
    /// Those, and requests that were given a place and have yet to wake up.
    waiters: Waiters<C>,
    /// Since when none is ready.
    none_ready_since: Option<Instant>,
    is_closed: bool,
}

#[derive(Debug)]
struct Member<C> {
    health: Health,
    /// What it is doing, for people; continued by "for N s".
    what: String,
    since: Instant,
    /// What its process can take, while it takes requests.
    capacity: Option<C>,
    /// How often it has ceased to take requests.
    generation: u64,
    /// The requests that this generation has.
    load: Load,
}

impl<C: Capacity> Pool<C> {
    /// A pool of so many members that have yet to start.
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

    /// Nobody gets a place any more: the model is unloaded.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        self.announce_change(state);
    }

    /// Says how a member is, since when, and in words what it is doing. When it begins to take requests, `capacity` is
    /// what its process can take.
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
            state.take_no_more(index);
        } else if member.capacity.is_none() {
            member.capacity = capacity;
        }
        state.note_readiness(since);
        self.announce_change(state);
    }

    /// The process of a member has ended. What comes next for the member is said by [`Pool::set`].
    pub fn process_ended(&self, index: usize) {
        let mut state = self.state.lock();
        if state.take_no_more(index) {
            let now = Instant::now();
            let member = &mut state.members[index];
            (member.health, member.what, member.since) = (Health::Coming, "down".into(), now);
            state.note_readiness(now);
        }
        self.announce_change(state);
    }

    /// Leases a place for a request with this limit, waiting for one until `deadline`. At the member number `preferred`,
    /// if that can take it now.
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
        if let Some(lent) = state.lend(None, limit, preferred) {
            return Ok(self.lease(lent, limit));
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
            if let Some(lent) = state.pick_up(ticket) {
                return Ok(self.lease(lent, limit));
            }
        };
        let too_late = state.give_up(ticket).map(|lent| self.lease(lent, limit));
        // Those behind it may have waited for it alone.
        waiters::serve(state);
        // Gives the place to the next.
        drop(too_late);
        Err(reason)
    }

    fn lease(self: &Arc<Self>, lent: Lent<C>, limit: ConcurrencyLimit) -> Lease<C> {
        Lease {
            pool: Arc::clone(self),
            index: lent.index,
            generation: lent.generation,
            limit,
            place: lent.place,
            is_discarded: false,
        }
    }

    /// Chooses the member for a request that will be sent later, without waiting: the one that would be leased now; one
    /// that comes back if none takes requests.
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

    /// Waits until some member takes requests.
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

    /// Waits until a member changes, but not longer than until `limit`.
    ///
    /// # Errors
    /// [`WaitError::Cancelled`].
    pub fn wait_for_change(&self, limit: Instant) -> Result<(), WaitError> {
        match self.wait(self.state.lock(), limit) {
            (_, Err(WaitError::Cancelled)) => Err(WaitError::Cancelled),
            _ => Ok(()),
        }
    }

    /// Whether some member is ready.
    ///
    /// # Errors
    /// When none is: for how long, and what they are doing instead.
    pub fn check(&self) -> Result<(), String> {
        let state = self.state.lock();
        match state.none_ready_since {
            None => Ok(()),
            Some(_) => Err(state.describe(Instant::now())),
        }
    }

    /// Looks at what a member can take, if it takes requests and has none.
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

    /// A member has changed, or the pool: places may be free, or those who wait be without hope.
    fn announce_change(&self, mut state: MutexGuard<State<C>>) {
        let woken = match state.is_hopeless() {
            true => state.all_waiting(),
            false => state.hand_over(),
        };
        drop(state);
        waiters::wake(&woken);
        self.changed.notify_all();
    }

    /// How many wait for a place.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.state.lock().queue.waiting()
    }
}

impl<C: Capacity> Member<C> {
    /// Whether it took requests before.
    fn take_no_more(&mut self) -> bool {
        let did = self.capacity.take().is_some();
        if did {
            self.generation += 1;
            self.load = Load::default();
        }
        did
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

    /// Whether nobody gets a place, however long it waits.
    fn is_hopeless(&self) -> bool {
        self.is_closed || self.members.iter().all(|m| m.health == Health::Failing)
    }

    /// Why a request must wait no longer; `ticket` is its place in the queue.
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
                    let requests = member.load.requests;
                    return format!("{name} {index}: busy with {requests} requests");
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
