//! The pool of the Python workers that run one script. Its places are the workers' channels.
//!
//! Waiting, fairness and quarantine are left to `dispatch/pool.rs`, and using a channel to `lease.rs`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Instant;

use crate::dispatch::pool::{self, Capacity, Health, Words};
use crate::handlers::channels::WorkerChannels;

/// A worker is worn out once it has lost one in this many of its channels.
pub(super) const WORN_OUT_PART: usize = 4;

/// All workers that run one script.
pub type Pool = pool::Pool<Channels>;

/// Notes what the `workers` of a pool, none of which has been started, wait for.
pub fn announce(pool: &Pool, workers: usize, what: &str) {
    for index in 0..workers {
        pool.set(index, Health::Coming, what.to_owned(), Instant::now(), None);
    }
}

/// The free channels of one process.
#[derive(Debug)]
pub struct Channels {
    worker: Arc<WorkerChannels>,
    /// Ordered, because the first channel is served by the process's main thread and should be leased first.
    free: BinaryHeap<Reverse<usize>>,
    /// The number of channels that can no longer be used.
    lost: usize,
}

impl Channels {
    /// All channels of a process, free; `None` before its script is loaded.
    pub fn of(worker: &Arc<WorkerChannels>) -> Option<Self> {
        let channels = worker.loaded.get()?.channels;
        Some(Self {
            worker: Arc::clone(worker),
            free: (0..channels).map(Reverse).collect(),
            lost: 0,
        })
    }

    /// Whether so many channels are lost that the process should be replaced once it is idle.
    pub fn is_worn_out(&self) -> bool {
        let all = self.worker.loaded.get().map_or(0, |loaded| loaded.channels);
        self.lost * WORN_OUT_PART >= all.max(1)
    }
}

impl Capacity for Channels {
    const WORDS: Words = Words {
        member: "worker",
        none_ready: "no Python worker has been available",
        none_free: "no Python worker is available",
        quarantine: "Python workers ended several times with requests in them, which now run a few at a time",
    };
    type Place = (Arc<WorkerChannels>, usize);

    /// A worn-out process gets no more calls; otherwise, under load, it would never become idle and be replaced.
    fn has_free(&self) -> bool {
        !self.free.is_empty() && !self.is_worn_out()
    }

    fn take(&mut self) -> Option<Self::Place> {
        if !self.has_free() {
            return None;
        }
        let Reverse(channel) = self.free.pop()?;
        Some((Arc::clone(&self.worker), channel))
    }

    fn give_back(&mut self, (_, channel): Self::Place) {
        self.free.push(Reverse(channel));
    }

    fn lose(&mut self, _: Self::Place) {
        self.lost += 1;
    }
}
