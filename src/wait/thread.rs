//! Waiting on a plain thread, which blocks.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::{Cancelling, Interest, WaitError, WaitFor};

thread_local! {
    /// The parker of this thread.
    static PARKER: RefCell<Arc<Parker>> = RefCell::default();
}

/// What a thread waits on, shared with the threads that wake it or cancel its job.
#[derive(Debug, Default)]
struct Parker {
    state: Mutex<State>,
    changed: Condvar,
    /// An eventfd, readable once the job is cancelled, which ends waits for sockets. `None` for threads whose jobs are
    /// never cancelled.
    cancelled: Option<OwnedFd>,
}

#[derive(Debug, Default)]
struct State {
    /// Id of the current or next wait.
    wait_id: u64,
    /// Whether a waker has ended that wait.
    is_woken: bool,
    /// Number of the current job; 0 if there is none.
    job: u64,
    last_job: u64,
    /// Whether the current job is cancelled.
    is_cancelled: bool,
}

impl Parker {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends one wait of a thread.
#[derive(Debug, Clone)]
pub(super) struct ThreadWaker {
    parker: Arc<Parker>,
    wait_id: u64,
}

impl ThreadWaker {
    pub(super) fn wake(&self) {
        let mut state = self.parker.lock();
        if state.wait_id == self.wait_id {
            state.is_woken = true;
            self.parker.changed.notify_all();
        }
    }
}

/// A waker for this thread's next wait.
pub(super) fn waker() -> ThreadWaker {
    let parker = PARKER.with_borrow(Arc::clone);
    let mut state = parker.lock();
    state.wait_id += 1;
    state.is_woken = false;
    let wait_id = state.wait_id;
    drop(state);
    ThreadWaker { parker, wait_id }
}

/// Blocks the calling thread until its wait ends.
pub(super) fn wait(
    what: WaitFor,
    deadline: Option<Instant>,
    cancelling: Cancelling,
) -> io::Result<Result<(), WaitError>> {
    let parker = PARKER.with_borrow(Arc::clone);
    match what {
        WaitFor::Socket(socket, interest) => {
            let flags = match interest {
                Interest::Read => PollFlags::IN,
                Interest::Write => PollFlags::OUT,
            };
            let cancelled = parker.cancelled.as_ref();
            let cancelled = cancelled.filter(|_| cancelling == Cancelling::Ends);
            let mut polled = vec![PollFd::from_borrowed_fd(socket, flags)];
            polled.extend(cancelled.map(|event| PollFd::new(event, PollFlags::IN)));
            wait_for_files(&mut polled, deadline)
        }
        WaitFor::Wakeup => Ok(parker.wait(deadline, cancelling, |state| state.is_woken)),
        WaitFor::Time => Ok(parker.wait(deadline, cancelling, |_| false)),
        WaitFor::Others => Ok(Ok(())),
    }
}

impl Parker {
    /// Waits until `is_over`, the deadline or a cancellation.
    fn wait(
        &self,
        deadline: Option<Instant>,
        cancelling: Cancelling,
        is_over: impl Fn(&State) -> bool,
    ) -> Result<(), WaitError> {
        let mut state = self.lock();
        loop {
            if is_over(&state) {
                return Ok(());
            }
            if state.is_cancelled && cancelling == Cancelling::Ends {
                return Err(WaitError::Cancelled);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => return Err(WaitError::TimedOut),
                Some(left) => {
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.changed.wait(state);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

/// Waits for the first file. The second one, if any, is readable once the job is cancelled.
fn wait_for_files(
    polled: &mut [PollFd],
    deadline: Option<Instant>,
) -> io::Result<Result<(), WaitError>> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(polled, timeout.as_ref()) {
            Ok(0) => return Ok(Err(WaitError::TimedOut)),
            Ok(_) if polled[1..].iter().any(|file| !file.revents().is_empty()) => {
                return Ok(Err(WaitError::Cancelled));
            }
            Ok(_) => return Ok(Ok(())),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Cancels one job of a thread.
#[derive(Debug)]
pub struct Canceller {
    parker: Arc<Parker>,
    job: u64,
}

impl Canceller {
    /// Ends the current wait of the job and all later ones. Does nothing if the job has finished.
    pub fn cancel(&self) {
        let mut state = self.parker.lock();
        if state.job != self.job || state.is_cancelled {
            return;
        }
        state.is_cancelled = true;
        self.parker.changed.notify_all();
        if let Some(event) = &self.parker.cancelled {
            // The counter cannot overflow: the end of the job resets it.
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        }
    }
}

/// Lets a thread run jobs that can be cancelled. It is made before the thread, because it needs a descriptor and making
/// it may fail.
#[derive(Debug)]
pub struct CancellableParker(Arc<Parker>);

impl CancellableParker {
    /// A parker for one thread.
    ///
    /// # Errors
    /// When no descriptors are left.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Parker {
            cancelled: Some(event),
            ..Parker::default()
        })))
    }

    /// Runs a job on this thread. Calls `announce` with its canceller first.
    pub fn run<T>(&self, announce: impl FnOnce(Canceller), job: impl FnOnce() -> T) -> T {
        PARKER.set(Arc::clone(&self.0));
        let mut state = self.0.lock();
        state.last_job += 1;
        state.job = state.last_job;
        let number = state.job;
        drop(state);
        announce(Canceller {
            parker: Arc::clone(&self.0),
            job: number,
        });
        let _end = EndOfJob(&self.0);
        job()
    }
}

/// Resets the cancellation when a job ends, even by a panic, so that the next job is not cancelled.
struct EndOfJob<'a>(&'a Parker);

impl Drop for EndOfJob<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.job = 0;
        if std::mem::take(&mut state.is_cancelled)
            && let Some(event) = &self.0.cancelled
        {
            let _ = rustix::io::read(event, &mut [0; 8]);
        }
    }
}
