//! A request's lease of a channel: acquires the channel, sends calls on it, and returns it, passes it on, or discards
//! it, depending on the outcome.
//!
//! A request keeps its channel until its last call is answered, so both calls of a request run in the same process. In
//! the class `gthread`, where each channel has a thread, they run on the same thread, too.

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

/// A channel to a worker, leased for one request.
#[derive(Debug)]
pub struct Lease {
    worker: Arc<WorkerChannels>,
    channel: usize,
    /// `None` once `abandoned_calls.rs` has the channel.
    lease: Option<pool::Lease<Channels>>,
    is_broken: bool,
}

impl Lease {
    /// Leases a channel for a request with this concurrency limit. Waits until `deadline`.
    ///
    /// # Errors
    /// Those of [`pool::Pool::acquire`].
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

    /// The functions that the worker's script has.
    pub fn shape(&self) -> Shape {
        (self.worker.loaded.get()).map_or(Shape::Pair, |loaded| loaded.shape)
    }

    /// Whether the worker's script uses the server's own conversions.
    pub fn converts(&self) -> bool {
        (self.worker.loaded.get()).is_some_and(|loaded| loaded.converts)
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

    /// How far a call had come when its process ended or its channel was closed.
    pub fn fate(&self, number: u64) -> Fate {
        self.worker.fate(self.channel, number)
    }

    /// Returns how the process ended; see [`WorkerChannels::wait_for_end`].
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
            converts: false,
        };
        worker.loaded.set(loaded).unwrap();
        (Arc::new(worker), theirs)
    }

    /// A pool with one worker, which is ready.
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
    fn worker_has_no_channels_before_its_script_is_loaded() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let worker = WorkerChannels::new(vec![ours], Record::new(1).unwrap()).unwrap();
        assert!(Channels::of(&Arc::new(worker)).is_none());
    }

    #[test]
    fn leases_the_first_free_channel() {
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
    fn abandoned_channel_is_leased_again_after_its_late_answer() {
        abandoned_calls::start().unwrap();
        let (worker, theirs) = worker(1);
        let pool = pool(&worker);
        let now = Instant::now();
        let mut lease = acquire(&pool, now).unwrap();
        let (number, outcome) = lease.call(call, b"", &Buffer::default(), now);
        assert_eq!(outcome, Outcome::Abandoned(WaitError::TimedOut));
        drop(lease);
        assert!(acquire(&pool, now).is_err());
        assert_eq!(is_worn_out(&pool), None, "the call still runs");
        // The answer is larger than the socket's buffer, so writing it needs a reader although no request waits.
        frame::write(
            &theirs[0],
            &Answer::Raised {
                number,
                status: None,
            },
            &vec![b'l'; 1 << 20],
        )
        .unwrap();
        assert!(acquire(&pool, later()).is_ok());
        assert_eq!(is_worn_out(&pool), Some(false));
    }

    #[test]
    fn channel_is_lost_when_its_late_answer_never_arrives() {
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
        assert!(refused.is_err(), "the worker waits to be replaced");
    }

    #[test]
    fn garbled_channel_is_not_leased_again() {
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
