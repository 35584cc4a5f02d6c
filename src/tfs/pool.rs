//! The instances as those who send requests see them: who serves, who has how much to do.
//!
//! The watchdog says how each instance is; workers borrow the one with the fewest outstanding requests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

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
    outstanding: usize,
}

/// All instances of the model server.
#[derive(Debug)]
pub struct Pool {
    seats: Mutex<Vec<Seat>>,
    closed: AtomicBool,
    changed: Condvar,
}

/// The right to send one request to an instance; given back when dropped.
#[derive(Debug)]
pub struct Lease<'a> {
    pool: &'a Pool,
    /// Number of the instance.
    pub index: usize,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.pool.lock()[self.index].outstanding -= 1;
    }
}

impl Pool {
    /// A pool of instances that have yet to start.
    pub fn new(instances: usize) -> Self {
        let seat = || Seat {
            health: Health::Unavailable,
            what: "starting".into(),
            since: Instant::now(),
            outstanding: 0,
        };
        Self {
            seats: Mutex::new(std::iter::repeat_with(seat).take(instances).collect()),
            closed: AtomicBool::new(false),
            changed: Condvar::new(),
        }
    }

    /// Nobody gets an instance any more: the model is unloaded.
    pub fn close(&self) {
        let seats = self.lock();
        self.closed.store(true, Ordering::Relaxed);
        drop(seats);
        self.changed.notify_all();
    }

    /// Says how an instance is, since when, and in words what it is doing.
    pub fn set(&self, index: usize, health: Health, what: String, since: Instant) {
        let mut seats = self.lock();
        let seat = &mut seats[index];
        (seat.health, seat.what, seat.since) = (health, what, since);
        drop(seats);
        self.changed.notify_all();
    }

    /// Borrows the best instance, waiting for one until `deadline`.
    ///
    /// # Errors
    /// When there is none by then: what the instances are doing instead.
    pub fn acquire(&self, deadline: Instant) -> Result<Lease<'_>, String> {
        let mut seats = self.lock();
        loop {
            if self.closed.load(Ordering::Relaxed) {
                return Err("the model was unloaded".into());
            }
            let best = seats
                .iter()
                .enumerate()
                .filter(|(_, seat)| seat.health != Health::Unavailable)
                .min_by_key(|(_, seat)| (seat.health, seat.outstanding))
                .map(|(index, _)| index);
            if let Some(index) = best {
                seats[index].outstanding += 1;
                return Ok(Lease { pool: self, index });
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(describe(&seats, now));
            }
            seats = self
                .changed
                .wait_timeout(seats, deadline - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The instance that would be borrowed now; one that comes back if none serves.
    pub fn best(&self) -> usize {
        let seats = self.lock();
        let key = |&index: &usize| (seats[index].health, seats[index].outstanding);
        (0..seats.len()).min_by_key(key).unwrap_or(0)
    }

    /// Waits until the health of some instance changes, but not longer than until `limit`.
    pub fn wait_for_change(&self, limit: Instant) {
        let seats = self.lock();
        let timeout = limit.saturating_duration_since(Instant::now());
        drop(self.changed.wait_timeout(seats, timeout));
    }

    /// Whether some instance is ready.
    ///
    /// # Errors
    /// When none is: what they are doing instead, and for how long.
    pub fn check(&self) -> Result<(), String> {
        let seats = self.lock();
        if seats.iter().any(|seat| seat.health == Health::Ready) {
            Ok(())
        } else {
            Err(describe(&seats, Instant::now()))
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn describe(seats: &[Seat], now: Instant) -> String {
    let instances: Vec<_> = seats
        .iter()
        .enumerate()
        .map(|(index, seat)| {
            let seconds = now.saturating_duration_since(seat.since).as_secs();
            format!("instance {index}: {} for {seconds} s", seat.what)
        })
        .collect();
    format!(
        "TensorFlow Serving is not available ({})",
        instances.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let first = pool.acquire(now).unwrap();
        let second = pool.acquire(now).unwrap();
        assert_eq!((first.index, second.index), (0, 1));
        let third = pool.acquire(now).unwrap();
        assert_eq!(third.index, 0);
        drop(second);
        assert_eq!(pool.acquire(now).unwrap().index, 1);
    }

    #[test]
    fn a_ready_one_goes_before_an_unresponsive_one() {
        let pool = pool(&[Health::Unresponsive, Health::Ready, Health::Unavailable]);
        let now = Instant::now();
        let _first = pool.acquire(now).unwrap();
        assert_eq!(pool.acquire(now).unwrap().index, 1);
        pool.set(1, Health::Unavailable, "down".into(), now);
        assert_eq!(pool.acquire(now).unwrap().index, 0);
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
        let text = pool.acquire(Instant::now()).unwrap_err();
        assert_eq!(
            text,
            "TensorFlow Serving is not available (instance 0: down (killed) for 0 s)"
        );
        assert_eq!(pool.check().unwrap_err(), text);
    }

    #[test]
    fn a_waiting_request_gets_the_instance_that_comes_up() {
        let pool = pool(&[Health::Unavailable]);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let deadline = Instant::now() + Duration::from_secs(60);
                pool.acquire(deadline).map(|lease| lease.index)
            });
            pool.set(0, Health::Ready, "ready".into(), Instant::now());
            assert_eq!(waiting.join().unwrap(), Ok(0));
        });
    }
}
