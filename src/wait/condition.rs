//! Waiting for a change of shared state, from coroutines and threads.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use super::{Cancelling, Mutex, MutexGuard, WaitError, WaitFor, Waker, wait};

/// A condition variable for coroutines and threads. As with any condition variable, callers check the state again after
/// each wait.
#[derive(Debug, Default)]
pub struct Condition {
    waiting: Mutex<VecDeque<(u64, Waker)>>,
    /// Length of `waiting`, so that notifying takes no lock when nothing waits.
    count: AtomicUsize,
    last_id: AtomicU64,
}

impl Condition {
    /// A condition without waiters.
    pub const fn new() -> Self {
        Self {
            waiting: Mutex::new(VecDeque::new()),
            count: AtomicUsize::new(0),
            last_id: AtomicU64::new(0),
        }
    }

    /// Releases the lock, waits for a notification, and locks again.
    ///
    /// # Errors
    /// [`WaitError`]. If a notification comes at the same time, the wait succeeds, so the notification is not lost.
    pub fn wait<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Option<Instant>,
    ) -> (MutexGuard<'a, T>, Result<(), WaitError>) {
        self.wait_cancelling(guard, deadline, Cancelling::Ends)
    }

    /// Like [`Condition::wait`], but cancelling the job does not end the wait.
    ///
    /// # Errors
    /// [`WaitError::TimedOut`].
    pub fn wait_always<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Option<Instant>,
    ) -> (MutexGuard<'a, T>, Result<(), WaitError>) {
        self.wait_cancelling(guard, deadline, Cancelling::IsIgnored)
    }

    fn wait_cancelling<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Option<Instant>,
        cancelling: Cancelling,
    ) -> (MutexGuard<'a, T>, Result<(), WaitError>) {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed);
        let mut waiting = self.waiting.lock();
        waiting.push_back((id, Waker::new()));
        self.count.store(waiting.len(), Ordering::SeqCst);
        drop(waiting);
        let mutex = MutexGuard::mutex(&guard);
        drop(guard);
        let result = wait(WaitFor::Wakeup, deadline, cancelling).unwrap_or(Ok(()));
        let was_notified = !self.remove(id);
        (mutex.lock(), if was_notified { Ok(()) } else { result })
    }

    /// Removes a waiter. Returns false if a notification has removed it already.
    fn remove(&self, id: u64) -> bool {
        let mut waiting = self.waiting.lock();
        let Some(position) = waiting.iter().position(|(other, _)| *other == id) else {
            return false;
        };
        waiting.remove(position);
        self.count.store(waiting.len(), Ordering::SeqCst);
        true
    }

    /// Ends the wait that has lasted longest.
    pub fn notify_one(&self) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut waiting = self.waiting.lock();
        let first = waiting.pop_front();
        self.count.store(waiting.len(), Ordering::SeqCst);
        drop(waiting);
        if let Some((_, waker)) = first {
            waker.wake();
        }
    }

    /// Ends all waits.
    pub fn notify_all(&self) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut waiting = self.waiting.lock();
        let all = std::mem::take(&mut *waiting);
        self.count.store(0, Ordering::SeqCst);
        drop(waiting);
        all.iter().for_each(|(_, waker)| waker.wake());
    }
}
