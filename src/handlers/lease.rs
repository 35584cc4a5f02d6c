//! A request's hold on a channel: leases it, sends calls on it, and sees to what becomes of it.
//!
//! A request keeps its channel until its last call is answered: so both calls of a request run in the same process, and
//! in the modes with threads on the same thread, for each channel has its own.

use std::sync::Arc;
use std::time::Instant;

use crate::budget::Buffer;
use crate::dispatch::pool::{self, Unavailable};
use crate::dispatch::quarantine::ConcurrencyLimit;
use crate::handlers::abandoned_calls;
use crate::handlers::channels::{Fate, Outcome, WorkerChannels};
use crate::handlers::pool::{Channels, Pool};
use crate::wait::WaitError;
use crate::worker_protocol::frame::{Call, Shape};

/// A channel to a worker, for one request.
#[derive(Debug)]
pub struct Lease {
    worker: Arc<WorkerChannels>,
    channel: usize,
    /// Until the channel is left to `abandoned_calls.rs`.
    lease: Option<pool::Lease<Channels>>,
    is_broken: bool,
}

impl Lease {
    /// Leases a channel for a request with this limit, waiting for one until `deadline`.
    ///
    /// # Errors
    /// As [`pool::Pool::acquire`].
    pub fn acquire(
        pool: &Arc<Pool>,
        limit: ConcurrencyLimit,
        deadline: Instant,
    ) -> Result<Self, Unavailable> {
        let lease = pool.acquire(limit, None, deadline)?;
        let (worker, channel) = lease.place().clone();
        Ok(Self {
            worker,
            channel,
            lease: Some(lease),
            is_broken: false,
        })
    }

    /// The functions of the worker's script.
    pub fn shape(&self) -> Shape {
        (self.worker.loaded.get()).map_or(Shape::Pair, |loaded| loaded.shape)
    }

    /// Sends a call and waits for its answer; see [`WorkerChannels::call`].
    pub fn call<'c>(
        &mut self,
        head: impl FnOnce(u64) -> Call<'c>,
        body: &[u8],
        memory: &Buffer,
        deadline: Instant,
    ) -> (u64, Outcome) {
        if self.lease.is_none() {
            return (0, Outcome::Lost);
        }
        let (number, outcome) = (self.worker).call(self.channel, head, body, memory, deadline);
        match outcome {
            Outcome::Answered(_) | Outcome::NoRoom(_) | Outcome::Broken(_) => {}
            Outcome::Abandoned(_) => self
                .lease
                .take()
                .into_iter()
                .for_each(abandoned_calls::finish),
            Outcome::Garbled(_) | Outcome::Lost => self.is_broken = true,
        }
        (number, outcome)
    }

    /// What had become of a call when its process ended, or its channel was given up.
    pub fn fate(&self, number: u64) -> Fate {
        self.worker.fate(self.channel, number)
    }

    /// How the process ended; see [`WorkerChannels::wait_for_end`].
    ///
    /// # Errors
    /// [`WaitError::Cancelled`].
    pub fn wait_for_end(&self, deadline: Instant) -> Result<String, WaitError> {
        self.worker.wait_for_end(deadline)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let lease = self.lease.take().filter(|_| self.is_broken);
        lease.into_iter().for_each(pool::Lease::discard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::pool::Health;
    use crate::handlers::channels::Loaded;
    use crate::handlers::pool::WORN_OUT_PART;
    use crate::worker_protocol::frame::{self, Answer, Response};
    use crate::worker_protocol::record::Record;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    fn worker(channels: usize) -> (Arc<WorkerChannels>, Vec<UnixStream>) {
        let (ours, theirs) = (0..channels).map(|_| UnixStream::pair().unwrap()).unzip();
        let worker = WorkerChannels::new(ours, Record::new(channels).unwrap()).unwrap();
        let loaded = Loaded {
            channels,
            shape: Shape::Single,
            has_gevent: true,
        };
        worker.loaded.set(loaded).unwrap();
        (Arc::new(worker), theirs)
    }

    /// A pool of one worker that is ready.
    fn pool(worker: &Arc<WorkerChannels>) -> Arc<Pool> {
        let pool = Pool::new(1);
        let channels = Channels::of(worker);
        pool.set(0, Health::Ready, "ready".into(), Instant::now(), channels);
        pool
    }

    fn acquire(pool: &Arc<Pool>, deadline: Instant) -> Result<Lease, Unavailable> {
        Lease::acquire(pool, ConcurrencyLimit::ANY, deadline)
    }

    fn is_worn_out(pool: &Pool) -> Option<bool> {
        pool.look_at_idle(0, Channels::is_worn_out)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn call<'a>(number: u64) -> Call<'a> {
        Call::Response {
            number,
            response: Response {
                status: 200,
                reason: "OK".into(),
                headers: Vec::new(),
            },
        }
    }

    #[test]
    fn a_worker_that_has_not_loaded_its_script_has_no_channels() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let worker = WorkerChannels::new(vec![ours], Record::new(1).unwrap()).unwrap();
        assert!(Channels::of(&Arc::new(worker)).is_none());
    }

    #[test]
    fn the_first_channel_is_taken_first() {
        let (worker, _theirs) = worker(3);
        let pool = pool(&worker);
        let now = Instant::now();
        let first = acquire(&pool, now).unwrap();
        let second = acquire(&pool, now).unwrap();
        assert_eq!([first.channel, second.channel], [0, 1]);
        drop(first);
        assert_eq!(acquire(&pool, now).unwrap().channel, 0);
    }

    #[test]
    fn a_channel_that_owes_an_answer_is_leased_when_it_has_come() {
        abandoned_calls::start().unwrap();
        let (worker, theirs) = worker(1);
        let pool = pool(&worker);
        let now = Instant::now();
        let mut lease = acquire(&pool, now).unwrap();
        let (number, outcome) = lease.call(call, b"", &Buffer::default(), now);
        assert_eq!(outcome, Outcome::Abandoned(WaitError::TimedOut));
        drop(lease);
        assert!(acquire(&pool, now).is_err());
        assert_eq!(is_worn_out(&pool), None, "its code still runs");
        // More than a socket holds: somebody takes it, though nobody waits for a channel.
        frame::write(&theirs[0], &Answer::Raised { number }, &vec![b'l'; 1 << 20]).unwrap();
        assert!(acquire(&pool, later()).is_ok());
        assert_eq!(is_worn_out(&pool), Some(false));
    }

    #[test]
    fn a_channel_whose_late_answer_never_comes_is_lost() {
        abandoned_calls::start().unwrap();
        let (worker, mut theirs) = worker(2);
        let pool = pool(&worker);
        let now = Instant::now();
        let mut lease = acquire(&pool, now).unwrap();
        lease.call(call, b"", &Buffer::default(), now);
        drop(lease);
        theirs.remove(0);
        while is_worn_out(&pool).is_none() {
            assert!(Instant::now() < now + Duration::from_secs(60));
            std::thread::yield_now();
        }
        assert_eq!(is_worn_out(&pool), Some(true), "one of two channels");
        let refused = acquire(&pool, now);
        assert!(refused.is_err(), "it is left to be replaced");
    }

    #[test]
    fn a_channel_with_something_else_on_it_is_not_leased_again() {
        let (worker, theirs) = worker(8);
        let pool = pool(&worker);
        for (channel, lost) in [(0, 1), (1, 2)] {
            let mut lease = acquire(&pool, Instant::now()).unwrap();
            assert_eq!(lease.channel, channel);
            frame::write(&theirs[channel], &Answer::Failed, b"").unwrap();
            let (_, outcome) = lease.call(call, b"", &Buffer::default(), later());
            assert!(matches!(outcome, Outcome::Garbled(_)), "{outcome:?}");
            drop(lease);
            assert_eq!(is_worn_out(&pool), Some(lost * WORN_OUT_PART >= 8));
        }
    }
}
