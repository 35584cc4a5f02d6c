//! The Python workers as requests see them: who is ready, and which of their channels are free.
//!
//! The watchdog says how each worker is. A request borrows a channel of the worker with the least to do and keeps it
//! until its last call is answered: so both calls of a request run in the same process, and in the modes with threads
//! on the same thread, for each channel has its own. A request that was lost with workers may have to wait until few
//! others or none are in one, see `dispatch/quarantine.rs`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::dispatch::quarantine::{Company, Load, Queue, Ticket};
use crate::error::RequestError;
use crate::handlers::channels::{Late, Outcome, Process};
use crate::http::budget::Buffer;
use crate::worker_protocol::frame::Call;

/// How a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Takes calls.
    Ready,
    /// Will soon: requests wait for it.
    Coming,
    /// Keeps failing: requests that have no other worker are turned away.
    Failing,
}

/// While late answers are owed, how often to look for them. Nothing tells when they come.
const LATE_ANSWER_PAUSE: Duration = Duration::from_millis(20);
/// A process that has lost one of so many channels is worn out.
const WORN_OUT_PART: usize = 4;
/// A process that hung up is reaped by then, and the reason for its end known.
const END_WAIT: Duration = Duration::from_secs(2);

/// All workers that run one script.
#[derive(Debug)]
pub struct Pool {
    state: Mutex<State>,
    /// A channel is free, or a worker has changed.
    changed: Condvar,
    /// A process has ended.
    ended: Condvar,
    /// The deadline of a whole request, for messages.
    limit: Duration,
}

#[derive(Debug)]
struct State {
    seats: Vec<Seat>,
    queue: Queue,
    /// Since when none is ready.
    none_ready_since: Option<Instant>,
}

#[derive(Debug)]
struct Seat {
    health: Health,
    /// What it is doing, for people; continued by "for N s".
    what: String,
    since: Instant,
    /// The process that takes calls, while it is ready.
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    process: Arc<Process>,
    /// The first channel is on the process's main thread, so it is taken first.
    free: BinaryHeap<Reverse<usize>>,
    /// Channels on which an answer is still to come that nobody waits for.
    owing: Vec<usize>,
    /// Its requests, with those whose answers are owed.
    load: Load,
}

/// A channel to a worker; given back when dropped.
#[derive(Debug)]
pub struct Lease<'a> {
    pool: &'a Pool,
    index: usize,
    /// The process at the other end.
    pub process: Arc<Process>,
    channel: usize,
    company: Company,
    state: Channel,
}

/// How a channel is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    Free,
    Owing,
    Unusable,
}

impl Lease<'_> {
    /// Sends a call and waits for its answer; see [`Process::call`].
    pub fn call<'c>(
        &mut self,
        head: impl FnOnce(u64, u64) -> Call<'c>,
        body: &Buffer,
        deadline: Instant,
    ) -> (u64, Outcome) {
        let (number, outcome) = self.process.call(self.channel, head, body, deadline);
        self.state = match outcome {
            Outcome::Answered(_) | Outcome::NoRoom(_) => Channel::Free,
            Outcome::Deadline { usable: true } => {
                self.process.read_late_answer(self.channel);
                Channel::Owing
            }
            Outcome::Deadline { usable: false }
            | Outcome::Broken(_)
            | Outcome::Garbled(_)
            | Outcome::Lost => Channel::Unusable,
        };
        (number, outcome)
    }

    /// Number of the channel.
    pub fn channel(&self) -> usize {
        self.channel
    }

    /// After the process hung up: how it ended. The answer is not delayed for that beyond `deadline`.
    pub fn wait_for_end(&self, deadline: Instant) -> String {
        let until = deadline.min(Instant::now() + END_WAIT);
        let mut state = self.pool.lock();
        while self.process.ended.get().is_none() && Instant::now() < until {
            let timeout = until.saturating_duration_since(Instant::now());
            let waited = self.pool.ended.wait_timeout(state, timeout);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let ended = self.process.ended.get();
        ended.map_or_else(|| "it closed its connection".into(), Clone::clone)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        let mut wake_all = state.queue.has_suspects();
        if let Some(running) = &mut state.seats[self.index].running
            && Arc::ptr_eq(&running.process, &self.process)
        {
            wake_all |= running.load.has_suspects();
            running.load.remove(self.company);
            match self.state {
                Channel::Free => running.free.push(Reverse(self.channel)),
                Channel::Owing => {
                    // Its code still runs.
                    running.load.add(Company::ANY);
                    running.owing.push(self.channel);
                }
                Channel::Unusable => {}
            }
        }
        let is_awaited = !state.queue.is_empty();
        drop(state);
        if wake_all {
            self.pool.changed.notify_all();
        } else if is_awaited {
            self.pool.changed.notify_one();
        }
    }
}

impl Pool {
    /// So many workers that have yet to start. `limit` is the deadline of a whole request.
    pub fn new(workers: usize, limit: Duration) -> Self {
        let now = Instant::now();
        let seat = || Seat {
            health: Health::Coming,
            what: "starting".into(),
            since: now,
            running: None,
        };
        Self {
            state: Mutex::new(State {
                seats: std::iter::repeat_with(seat).take(workers).collect(),
                queue: Queue::default(),
                none_ready_since: Some(now),
            }),
            changed: Condvar::new(),
            ended: Condvar::new(),
            limit,
        }
    }

    /// Says how a worker is, since when, and in words what it is doing. `process` takes calls when it is ready.
    pub fn set(
        &self,
        index: usize,
        health: Health,
        what: String,
        since: Instant,
        process: Option<&Arc<Process>>,
    ) {
        let mut state = self.lock();
        let seat = &mut state.seats[index];
        (seat.health, seat.what, seat.since) = (health, what, since);
        let process = process.filter(|_| health == Health::Ready);
        seat.running = process.and_then(|process| {
            let channels = process.loaded.get()?.channels;
            Some(Running {
                process: Arc::clone(process),
                free: (0..channels).map(Reverse).collect(),
                owing: Vec::new(),
                load: Load::default(),
            })
        });
        state.note_readiness(since);
        drop(state);
        self.changed.notify_all();
    }

    /// A worker's process has ended: it is lent no more, and who waits for its end is woken. What comes next for the
    /// worker is said by [`Pool::set`].
    pub fn process_ended(&self, index: usize) {
        let mut state = self.lock();
        let seat = &mut state.seats[index];
        if seat.running.take().is_some() {
            (seat.health, seat.what) = (Health::Coming, "down".into());
            seat.since = Instant::now();
            let since = seat.since;
            state.note_readiness(since);
        }
        drop(state);
        self.changed.notify_all();
        self.ended.notify_all();
    }

    /// Borrows a channel of the worker with the least to do for a request that may be there in this company, waiting
    /// for one until `deadline`.
    ///
    /// # Errors
    /// 503 when all workers keep failing, 504 when none is free by then: what they are doing instead.
    pub fn acquire(&self, company: Company, deadline: Instant) -> Result<Lease<'_>, RequestError> {
        let mut state = self.lock();
        let mut ticket = None;
        let found = loop {
            let mut owed = false;
            for running in state.seats.iter_mut().filter_map(|s| s.running.as_mut()) {
                running.take_late_answers();
                owed |= !running.owing.is_empty();
            }
            if let Some(found) = state.lend(ticket, company) {
                break Ok(found);
            }
            let now = Instant::now();
            if state.seats.iter().all(|s| s.health == Health::Failing) {
                break Err(RequestError::busy(state.describe(now)));
            }
            if now >= deadline {
                let why = state.why_not(now);
                break Err(RequestError::deadline(self.limit, &why));
            }
            ticket.get_or_insert_with(|| state.queue.enter(company));
            let pause = if owed {
                now + LATE_ANSWER_PAUSE
            } else {
                deadline
            };
            state = self.wait(state, deadline.min(pause));
        };
        let wake_all = ticket.is_some_and(|ticket| state.queue.leave(ticket));
        // One wake-up may stand for several channels that came free.
        let wake_one = found.is_ok() && !state.queue.is_empty() && state.has_free_channel();
        drop(state);
        if wake_all {
            self.changed.notify_all();
        } else if wake_one {
            self.changed.notify_one();
        }
        let (index, process, channel) = found?;
        Ok(Lease {
            pool: self,
            index,
            process,
            channel,
            company,
            state: Channel::Free,
        })
    }

    /// Whether some worker is ready.
    ///
    /// # Errors
    /// When none is: for how long, and what they are doing instead.
    pub fn check(&self) -> Result<(), String> {
        let state = self.lock();
        match state.none_ready_since {
            None => Ok(()),
            Some(_) => Err(state.describe(Instant::now())),
        }
    }

    /// Whether many channels of this worker's process are lost and nothing uses the others: time for a new process.
    pub fn is_worn_out(&self, index: usize) -> bool {
        let mut state = self.lock();
        let Some(running) = state.seats[index].running.as_mut() else {
            return false;
        };
        running.take_late_answers();
        let all = running
            .process
            .loaded
            .get()
            .map_or(0, |loaded| loaded.channels);
        let lost = all - running.free.len() - running.load.requests;
        running.load.requests == 0 && lost * WORN_OUT_PART >= all.max(1)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>, until: Instant) -> MutexGuard<'s, State> {
        let timeout = until.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout(state, timeout);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A free channel, now lent: number of its worker, process, number of the channel.
    fn lend(
        &mut self,
        ticket: Option<Ticket>,
        company: Company,
    ) -> Option<(usize, Arc<Process>, usize)> {
        let running = |(index, seat)| {
            let seat: &Seat = seat;
            Some((index, &seat.running.as_ref()?.load))
        };
        let loads = self.seats.iter().enumerate().filter_map(running);
        let has_free = |index| {
            let seat: &Seat = &self.seats[index];
            seat.running.as_ref().is_some_and(|r| !r.free.is_empty())
        };
        let index = self.queue.choose(ticket, company, loads, has_free)?;
        let running = self.seats[index].running.as_mut()?;
        let Reverse(channel) = running.free.pop()?;
        running.load.add(company);
        Some((index, Arc::clone(&running.process), channel))
    }

    fn has_free_channel(&self) -> bool {
        let mut running = self.seats.iter().filter_map(|seat| seat.running.as_ref());
        running.any(|running| !running.free.is_empty())
    }

    fn note_readiness(&mut self, changed: Instant) {
        if self.seats.iter().any(|seat| seat.health == Health::Ready) {
            self.none_ready_since = None;
        } else {
            self.none_ready_since.get_or_insert(changed);
        }
    }

    /// Why there is no channel for a request.
    fn why_not(&self, now: Instant) -> String {
        match self.has_free_channel() {
            true => "Python workers ended several times with requests in them, which are now run a few at a time".into(),
            false => self.describe(now),
        }
    }

    fn describe(&self, now: Instant) -> String {
        let seconds = |since| now.saturating_duration_since(since).as_secs();
        let workers: Vec<_> = self
            .seats
            .iter()
            .enumerate()
            .map(|(index, seat)| match &seat.running {
                Some(running) => {
                    let busy = running.load.requests - running.owing.len();
                    format!("worker {index}: busy with {busy} requests")
                }
                None => {
                    let seconds = seconds(seat.since);
                    format!("worker {index}: {} for {seconds} s", seat.what)
                }
            })
            .collect();
        let workers = workers.join("; ");
        match self.none_ready_since {
            Some(since) => {
                format!(
                    "no Python worker has been available for {} s ({workers})",
                    seconds(since)
                )
            }
            None => format!("no Python worker is available ({workers})"),
        }
    }
}

impl Running {
    /// Channels whose late answer is there can be used again.
    fn take_late_answers(&mut self) {
        let Self {
            process,
            free,
            owing,
            load,
        } = self;
        owing.retain(|&channel| {
            let late = process.late_answer(channel);
            if late == Late::Read {
                free.push(Reverse(channel));
            }
            if late != Late::Owed {
                load.remove(Company::ANY);
            }
            late == Late::Owed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::quarantine::Losses;
    use crate::handlers::channels::Loaded;
    use crate::worker_protocol::frame::Shape;
    use crate::worker_protocol::record::Record;
    use std::os::unix::net::UnixStream;

    fn process(channels: usize) -> (Arc<Process>, Vec<UnixStream>) {
        let (ours, theirs) = (0..channels).map(|_| UnixStream::pair().unwrap()).unzip();
        let process = Process::new(ours, Record::new(channels).unwrap());
        let loaded = Loaded {
            channels,
            shape: Shape::Single,
            has_gevent: true,
        };
        process.loaded.set(loaded).unwrap();
        (Arc::new(process), theirs)
    }

    fn ready(pool: &Pool, index: usize, process: &Arc<Process>) {
        let now = Instant::now();
        pool.set(index, Health::Ready, "ready".into(), now, Some(process));
    }

    #[test]
    fn the_worker_with_the_least_to_do_and_its_first_channel() {
        let pool = Pool::new(2, Duration::ZERO);
        let (first, second) = (process(2), process(2));
        ready(&pool, 0, &first.0);
        ready(&pool, 1, &second.0);
        let now = Instant::now();
        let places = |lease: &Lease| (lease.index, lease.channel);
        let a = pool.acquire(Company::ANY, now).unwrap();
        let b = pool.acquire(Company::ANY, now).unwrap();
        let c = pool.acquire(Company::ANY, now).unwrap();
        assert_eq!(
            [places(&a), places(&b), places(&c)],
            [(0, 0), (1, 0), (0, 1)]
        );
        drop(a);
        assert_eq!(places(&pool.acquire(Company::ANY, now).unwrap()), (0, 0));
    }

    #[test]
    fn busy_workers_are_waited_for_and_failing_ones_are_not() {
        let pool = Pool::new(1, Duration::ZERO);
        let now = Instant::now();
        let error = pool.acquire(Company::ANY, now).unwrap_err();
        assert_eq!(error.status, 504);
        assert!(error.text.contains("worker 0: starting for 0 s"), "{error}");
        let (process, _theirs) = process(1);
        ready(&pool, 0, &process);
        let lease = pool.acquire(Company::ANY, now).unwrap();
        let error = pool.acquire(Company::ANY, now).unwrap_err();
        assert!(error.text.contains("busy with 1 requests"), "{error}");
        drop(lease);
        pool.set(0, Health::Failing, "down (code 1)".into(), now, None);
        let error = pool
            .acquire(Company::ANY, now + Duration::from_secs(60))
            .unwrap_err();
        assert_eq!(
            (error.status, error.header),
            (503, Some(("Retry-After", "1")))
        );
        assert!(error.text.contains("down (code 1)"), "{error}");
        assert!(pool.check().is_err());
    }

    #[test]
    fn a_channel_that_owes_an_answer_is_lent_when_it_has_come() {
        use crate::worker_protocol::frame::{self, Answer, Response};
        let pool = Pool::new(1, Duration::ZERO);
        let (process, theirs) = process(1);
        ready(&pool, 0, &process);
        let now = Instant::now();
        let mut lease = pool.acquire(Company::ANY, now).unwrap();
        let call = |number, deadline| Call::Response {
            number,
            deadline,
            response: Response {
                status: 200,
                reason: "OK".into(),
                headers: Vec::new(),
            },
        };
        let (number, outcome) = lease.call(call, &Buffer::default(), now);
        assert_eq!(outcome, Outcome::Deadline { usable: true });
        drop(lease);
        assert!(pool.acquire(Company::ANY, now).is_err());
        assert!(!pool.is_worn_out(0));
        frame::write(&theirs[0], &Answer::Raised { number }, b"late").unwrap();
        assert!(
            pool.acquire(Company::ANY, now + Duration::from_secs(60))
                .is_ok()
        );
    }

    #[test]
    fn an_ended_process_is_not_lent_before_its_worker_is_known_to_be_down() {
        let pool = Pool::new(1, Duration::ZERO);
        let (process, _theirs) = process(1);
        ready(&pool, 0, &process);
        pool.process_ended(0);
        assert!(pool.acquire(Company::ANY, Instant::now()).is_err());
        assert!(pool.check().is_err());
    }

    #[test]
    fn a_channel_of_a_gone_process_is_not_given_to_the_next() {
        let pool = Pool::new(1, Duration::ZERO);
        let (old, new) = (process(1), process(1));
        ready(&pool, 0, &old.0);
        let now = Instant::now();
        let lease = pool.acquire(Company::ANY, now).unwrap();
        ready(&pool, 0, &new.0);
        drop(lease);
        let _lease = pool.acquire(Company::ANY, now).unwrap();
        assert!(pool.acquire(Company::ANY, now).is_err());
    }

    #[test]
    fn a_suspect_is_alone_in_its_worker() {
        let mut losses = Losses::default();
        (0..3).for_each(|_| losses.add());
        let alone = losses.company();
        let pool = Pool::new(2, Duration::ZERO);
        let (first, second) = (process(2), process(2));
        ready(&pool, 0, &first.0);
        ready(&pool, 1, &second.0);
        let now = Instant::now();
        let _other = pool.acquire(Company::ANY, now).unwrap();
        let suspect = pool.acquire(alone, now).unwrap();
        assert_eq!(suspect.index, 1);
        let third = pool.acquire(Company::ANY, now).unwrap();
        assert_eq!(third.index, 0, "nobody joins it");
        let error = pool.acquire(Company::ANY, now).unwrap_err();
        assert!(error.text.contains("a few at a time"), "{error}");
        drop(suspect);
        assert_eq!(pool.acquire(Company::ANY, now).unwrap().index, 1);
    }

    #[test]
    fn how_long_none_has_been_ready_is_told_through_all_restarts() {
        let pool = Pool::new(1, Duration::ZERO);
        let ago = |seconds| Instant::now() - Duration::from_secs(seconds);
        let (process, _theirs) = process(1);
        ready(&pool, 0, &process);
        assert_eq!(pool.check(), Ok(()));
        pool.set(0, Health::Coming, "down (code 1)".into(), ago(60), None);
        pool.set(0, Health::Coming, "starting".into(), ago(5), None);
        assert_eq!(
            pool.check().unwrap_err(),
            "no Python worker has been available for 60 s (worker 0: starting for 5 s)"
        );
    }
}
