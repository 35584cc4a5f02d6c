//! The Python workers that run one script: a pool whose places are channels.
//!
//! The general part is `dispatch/pool.rs`; what a request does with a channel is in `lease.rs`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::dispatch::pool::{self, Capacity, Words};
use crate::handlers::channels::WorkerChannels;

/// A process that has lost one of so many channels is worn out.
pub(super) const WORN_OUT_PART: usize = 4;

/// All workers that run one script.
pub type Pool = pool::Pool<Channels>;

/// The free channels of one process.
#[derive(Debug)]
pub struct Channels {
    worker: Arc<WorkerChannels>,
    /// The first channel is on the process's main thread, so it is taken first.
    free: BinaryHeap<Reverse<usize>>,
    /// How many are of no more use.
    lost: usize,
}

impl Channels {
    /// All channels of a process; `None` before its script is loaded.
    pub fn of(worker: &Arc<WorkerChannels>) -> Option<Self> {
        let channels = worker.loaded.get()?.channels;
        Some(Self {
            worker: Arc::clone(worker),
            free: (0..channels).map(Reverse).collect(),
            lost: 0,
        })
    }

    /// Whether many channels are lost: time for a new process, once this one is idle.
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
        quarantine: "Python workers ended several times with requests in them, which are now run a few at a time",
    };
    type Place = (Arc<WorkerChannels>, usize);

    /// A process that is worn out gets no more calls: under load it would never become idle and be replaced.
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
