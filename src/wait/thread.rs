//! Waiting on a plain thread: it blocks.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::{Cancelling, Interest, WaitError, What};

thread_local! {
    static PLACE: RefCell<Arc<Place>> = RefCell::default();
}

/// A thread as those see it who wake it or cancel its work.
#[derive(Debug, Default)]
struct Place {
    state: Mutex<State>,
    changed: Condvar,
    /// Readable from a cancellation on, for waits on sockets. Threads whose work is never cancelled have none.
    cancelled: Option<OwnedFd>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the next wait.
    turn: u64,
    is_woken: bool,
    /// Number of the job that can be cancelled; 0: none.
    job: u64,
    last_job: u64,
    is_cancelled: bool,
}

impl Place {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone)]
pub(super) struct ThreadWaker {
    place: Arc<Place>,
    turn: u64,
}

impl ThreadWaker {
    pub(super) fn wake(&self) {
        let mut state = self.place.lock();
        if state.turn == self.turn {
            state.is_woken = true;
            self.place.changed.notify_all();
        }
    }
}

/// A waker for this thread's next wait.
pub(super) fn waker() -> ThreadWaker {
    let place = PLACE.with_borrow(Arc::clone);
    let mut state = place.lock();
    state.turn += 1;
    state.is_woken = false;
    let turn = state.turn;
    drop(state);
    ThreadWaker { place, turn }
}

pub(super) fn wait(
    what: What,
    deadline: Option<Instant>,
    cancelling: Cancelling,
) -> io::Result<Result<(), WaitError>> {
    let place = PLACE.with_borrow(Arc::clone);
    match what {
        What::Socket(socket, interest) => {
            let flags = match interest {
                Interest::Read => PollFlags::IN,
                Interest::Write => PollFlags::OUT,
            };
            let cancelled = place.cancelled.as_ref();
            let cancelled = cancelled.filter(|_| cancelling == Cancelling::Ends);
            let mut polled = vec![PollFd::from_borrowed_fd(socket, flags)];
            polled.extend(cancelled.map(|event| PollFd::new(event, PollFlags::IN)));
            wait_for_files(&mut polled, deadline)
        }
        What::Wakeup => Ok(place.wait(deadline, cancelling, |state| state.is_woken)),
        What::Time => Ok(place.wait(deadline, cancelling, |_| false)),
        What::Turn => Ok(Ok(())),
    }
}

impl Place {
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

/// Waits for the first file; the second one stands for a cancellation.
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

/// Cancels the job that a thread is doing.
#[derive(Debug)]
pub struct Canceller {
    place: Arc<Place>,
    job: u64,
}

impl Canceller {
    /// Ends the waits of the job. Does nothing when it is done.
    pub fn cancel(&self) {
        let mut state = self.place.lock();
        if state.job != self.job || state.is_cancelled {
            return;
        }
        state.is_cancelled = true;
        self.place.changed.notify_all();
        if let Some(event) = &self.place.cancelled {
            // It cannot be full: the job's end empties it.
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        }
    }
}

/// Where a thread waits whose work can be cancelled; made beforehand, because it takes a descriptor.
#[derive(Debug)]
pub struct CancellablePlace(Arc<Place>);

impl CancellablePlace {
    /// For one thread.
    ///
    /// # Errors
    /// When there is no descriptor for it.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Place {
            cancelled: Some(event),
            ..Place::default()
        })))
    }

    /// Runs a job on this thread. `announce` gets what cancels its waits.
    pub fn run<T>(&self, announce: impl FnOnce(Canceller), job: impl FnOnce() -> T) -> T {
        PLACE.set(Arc::clone(&self.0));
        let mut state = self.0.lock();
        state.last_job += 1;
        state.job = state.last_job;
        let number = state.job;
        drop(state);
        announce(Canceller {
            place: Arc::clone(&self.0),
            job: number,
        });
        let _end = EndOfJob(&self.0);
        job()
    }
}

/// Also after a panic the next job is not cancelled.
struct EndOfJob<'a>(&'a Place);

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
