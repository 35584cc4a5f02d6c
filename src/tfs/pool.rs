//! The instances as those who send requests see them: who serves, who has how much to do.
//!
//! The watchdog says how each instance is; workers borrow the one with the fewest outstanding requests. A request that
//! was lost with instances may have to wait until few others or none are there, see `dispatch/quarantine.rs`.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::dispatch::quarantine::{Company, Load, Queue, Ticket};

/// How an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Said AVAILABLE when last asked.
    Ready,
    /// Runs but does not say so now. It gets requests only when no other is ready: it may be busy, not gone.
    Unresponsive,
    /// Has no process, or one that is starting: gets nothing.
    Unavailable,
}

#[derive(Debug)]
struct Seat {
    health: Health,
    /// What it is doing, for people; continued by "for N s".
    what: String,
    since: Instant,
    /// How often it has become unavailable.
    falls: u64,
    load: Load,
}

#[derive(Debug)]
struct State {
    seats: Vec<Seat>,
    queue: Queue,
    /// Since when none is ready.
    none_ready_since: Option<Instant>,
    is_closed: bool,
}

/// All instances of the model server.
#[derive(Debug)]
pub struct Pool {
    state: Mutex<State>,
    changed: Condvar,
}

/// The right to send one request to an instance; given back when dropped.
#[derive(Debug)]
pub struct Lease<'a> {
    pool: &'a Pool,
    /// Number of the instance.
    pub index: usize,
    company: Company,
    falls: u64,
}

impl Lease<'_> {
    /// Whether the instance has become unavailable since it was borrowed. Waits for that, but not longer than until
    /// `limit`.
    pub fn wait_for_fall(&self, limit: Instant) -> bool {
        let mut state = self.pool.lock();
        loop {
            let now = Instant::now();
            if state.seats[self.index].falls != self.falls {
                return true;
            }
            if now >= limit {
                return false;
            }
            state = self.pool.wait(state, limit);
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        let load = &mut state.seats[self.index].load;
        // Else nobody waits for that.
        let wake = load.has_suspects();
        load.remove(self.company);
        let wake = wake || state.queue.has_suspects();
        drop(state);
        if wake {
            self.pool.changed.notify_all();
        }
    }
}

impl Pool {
    /// A pool of instances that have yet to start.
    pub fn new(instances: usize) -> Self {
        let now = Instant::now();
        let seat = || Seat {
            health: Health::Unavailable,
            what: "starting".into(),
            since: now,
            falls: 0,
            load: Load::default(),
        };
        Self {
            state: Mutex::new(State {
                seats: std::iter::repeat_with(seat).take(instances).collect(),
                queue: Queue::default(),
                none_ready_since: Some(now),
                is_closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Nobody gets an instance any more: the model is unloaded.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Says how an instance is, since when, and in words what it is doing.
    pub fn set(&self, index: usize, health: Health, what: String, since: Instant) {
        let mut state = self.lock();
        let seat = &mut state.seats[index];
        if health == Health::Unavailable && seat.health != health {
            seat.falls += 1;
        }
        (seat.health, seat.what, seat.since) = (health, what, since);
        if state.seats.iter().any(|seat| seat.health == Health::Ready) {
            state.none_ready_since = None;
        } else {
            state.none_ready_since.get_or_insert(since);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Borrows the best instance for a request that may be there in this company, waiting for one until `deadline`.
    ///
    /// # Errors
    /// When there is none by then: what the instances are doing instead.
    pub fn acquire(&self, company: Company, deadline: Instant) -> Result<Lease<'_>, String> {
        let mut state = self.lock();
        let mut ticket = None;
        let found = loop {
            if state.is_closed {
                break Err("the model was unloaded".into());
            }
            if let Some(index) = state.choose(ticket, company) {
                let seat = &mut state.seats[index];
                seat.load.add(company);
                break Ok((index, seat.falls));
            }
            let now = Instant::now();
            if now >= deadline {
                break Err(state.why_not(now));
            }
            ticket.get_or_insert_with(|| state.queue.enter(company));
            state = self.wait(state, deadline);
        };
        let wake = ticket.is_some_and(|ticket| state.queue.leave(ticket));
        drop(state);
        if wake {
            self.changed.notify_all();
        }
        let (index, falls) = found?;
        Ok(Lease {
            pool: self,
            index,
            company,
            falls,
        })
    }

    /// The instance that would be borrowed now; one that comes back if none serves.
    pub fn best(&self) -> usize {
        let seats = &self.lock().seats;
        let key = |&index: &usize| (seats[index].health, seats[index].load.requests);
        (0..seats.len()).min_by_key(key).unwrap_or(0)
    }

    /// Waits until the health of some instance changes, but not longer than until `limit`.
    pub fn wait_for_change(&self, limit: Instant) {
        drop(self.wait(self.lock(), limit));
    }

    /// Whether some instance is ready.
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

    fn wait<'s>(&self, state: MutexGuard<'s, State>, limit: Instant) -> MutexGuard<'s, State> {
        let timeout = limit.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout(state, timeout);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn choose(&self, ticket: Option<Ticket>, company: Company) -> Option<usize> {
        let serving = self.seats.iter().map(|seat| seat.health);
        let best = serving
            .filter(|&health| health != Health::Unavailable)
            .min()?;
        let seats = self.seats.iter().enumerate();
        let loads = seats
            .filter(|(_, seat)| seat.health == best)
            .map(|(index, seat)| (index, &seat.load));
        self.queue.choose(ticket, company, loads, |_| true)
    }

    /// Why there is no instance for a request.
    fn why_not(&self, now: Instant) -> String {
        let serves = |seat: &Seat| seat.health != Health::Unavailable;
        if self.seats.iter().any(serves) {
            "TensorFlow Serving ended several times with requests in it, which are now sent a few at a time".into()
        } else {
            self.describe(now)
        }
    }

    fn describe(&self, now: Instant) -> String {
        let seconds = |since| now.saturating_duration_since(since).as_secs();
        let instances: Vec<_> = self
            .seats
            .iter()
            .enumerate()
            .map(|(index, seat)| {
                format!(
                    "instance {index}: {} for {} s",
                    seat.what,
                    seconds(seat.since)
                )
            })
            .collect();
        format!(
            "TensorFlow Serving has not been available for {} s ({})",
            self.none_ready_since.map_or(0, seconds),
            instances.join("; ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::quarantine::Losses;
    use std::time::Duration;

    fn pool(healths: &[Health]) -> Pool {
        let pool = Pool::new(healths.len());
        for (index, &health) in healths.iter().enumerate() {
            pool.set(index, health, format!("{health:?}"), Instant::now());
        }
        pool
    }

    #[test]
    fn the_fewest_outstanding_is_taken_and_given_back() {
        let pool = pool(&[Health::Ready, Health::Ready]);
        let now = Instant::now();
        let first = pool.acquire(Company::ANY, now).unwrap();
        let second = pool.acquire(Company::ANY, now).unwrap();
        assert_eq!((first.index, second.index), (0, 1));
        let third = pool.acquire(Company::ANY, now).unwrap();
        assert_eq!(third.index, 0);
        drop(second);
        assert_eq!(pool.acquire(Company::ANY, now).unwrap().index, 1);
    }

    #[test]
    fn a_ready_one_goes_before_an_unresponsive_one() {
        let pool = pool(&[Health::Unresponsive, Health::Ready, Health::Unavailable]);
        let now = Instant::now();
        let _first = pool.acquire(Company::ANY, now).unwrap();
        assert_eq!(pool.acquire(Company::ANY, now).unwrap().index, 1);
        pool.set(1, Health::Unavailable, "down".into(), now);
        assert_eq!(pool.acquire(Company::ANY, now).unwrap().index, 0);
        assert!(pool.check().is_err());
    }

    #[test]
    fn none_available_says_what_they_do() {
        let pool = pool(&[Health::Unavailable]);
        pool.set(
            0,
            Health::Unavailable,
            "down (killed)".into(),
            Instant::now(),
        );
        let text = pool.acquire(Company::ANY, Instant::now()).unwrap_err();
        assert_eq!(
            text,
            "TensorFlow Serving has not been available for 0 s (instance 0: down (killed) for 0 s)"
        );
        assert_eq!(pool.check().unwrap_err(), text);
    }

    #[test]
    fn a_waiting_request_gets_the_instance_that_comes_up() {
        let pool = pool(&[Health::Unavailable]);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let deadline = Instant::now() + Duration::from_secs(60);
                pool.acquire(Company::ANY, deadline)
                    .map(|lease| lease.index)
            });
            pool.set(0, Health::Ready, "ready".into(), Instant::now());
            assert_eq!(waiting.join().unwrap(), Ok(0));
        });
    }

    #[test]
    fn how_long_none_has_served_is_told_through_all_restarts() {
        let pool = pool(&[Health::Ready, Health::Ready]);
        let ago = |seconds| Instant::now() - Duration::from_secs(seconds);
        pool.set(0, Health::Unavailable, "down (killed)".into(), ago(90));
        assert_eq!(pool.check(), Ok(()), "one is enough");
        pool.set(
            1,
            Health::Unresponsive,
            "unresponsive (no answer)".into(),
            ago(60),
        );
        pool.set(0, Health::Unavailable, "starting".into(), ago(30));
        pool.set(
            0,
            Health::Unavailable,
            "down (exited with code 1)".into(),
            ago(5),
        );
        assert_eq!(
            pool.check().unwrap_err(),
            "TensorFlow Serving has not been available for 60 s (instance 0: down (exited with code 1) for 5 s; \
             instance 1: unresponsive (no answer) for 60 s)"
        );
        pool.set(1, Health::Ready, "ready".into(), ago(0));
        assert_eq!(pool.check(), Ok(()));
    }

    #[test]
    fn a_suspect_waits_until_others_have_left() {
        let mut losses = Losses::default();
        (0..3).for_each(|_| losses.add());
        let alone = losses.company();
        let pool = pool(&[Health::Ready]);
        let now = Instant::now();
        let other = pool.acquire(Company::ANY, now).unwrap();
        let text = pool.acquire(alone, now).unwrap_err();
        assert!(text.contains("a few at a time"), "{text}");
        let deadline = now + Duration::from_secs(60);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pool.acquire(alone, deadline).map(drop));
            while !pool.lock().queue.has_suspects() {
                std::thread::yield_now();
            }
            assert!(
                pool.acquire(Company::ANY, now).is_err(),
                "the place is kept"
            );
            drop(other);
            assert_eq!(waiting.join().unwrap(), Ok(()));
        });
        assert!(pool.acquire(Company::ANY, now).is_ok());
    }

    #[test]
    fn who_waits_behind_a_suspect_goes_on_when_it_gives_up() {
        let mut losses = Losses::default();
        (0..3).for_each(|_| losses.add());
        let pool = pool(&[Health::Ready]);
        let now = Instant::now();
        let (soon, late) = (Duration::from_millis(500), Duration::from_secs(20));
        let _slow = pool.acquire(Company::ANY, now).unwrap();
        let wait_for = |count| {
            while pool.lock().queue.len() < count {
                std::thread::yield_now();
            }
        };
        std::thread::scope(|scope| {
            let suspect = scope.spawn(|| pool.acquire(losses.company(), now + soon).map(drop));
            wait_for(1);
            let other = scope.spawn(|| {
                let lease = pool.acquire(Company::ANY, now + late);
                lease.map(|_| now.elapsed())
            });
            wait_for(2);
            assert!(suspect.join().unwrap().is_err());
            let took = other.join().unwrap().unwrap();
            assert!(took < late, "nobody woke it: {took:?}");
        });
    }

    #[test]
    fn who_had_an_instance_that_fell_is_told() {
        let pool = pool(&[Health::Ready]);
        let now = Instant::now();
        let lease = pool.acquire(Company::ANY, now).unwrap();
        assert!(!lease.wait_for_fall(now));
        pool.set(0, Health::Unavailable, "down".into(), now);
        pool.set(0, Health::Unavailable, "starting".into(), now);
        pool.set(0, Health::Ready, "ready".into(), now);
        assert!(lease.wait_for_fall(now));
        assert!(!pool.acquire(Company::ANY, now).unwrap().wait_for_fall(now));
    }
}
