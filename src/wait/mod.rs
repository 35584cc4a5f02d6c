//! Waiting: for a socket, for a condition or until a time. All code that runs in a request waits through this module.
//!
//! A request runs as a *coroutine*: a function with its own stack. The code reads like blocking code, but where it
//! waits, the coroutine is suspended and its worker thread runs others. On a plain thread (probes, the supervisor,
//! tests, and requests with `SAGEMAKER_TFS_WORKERS=threads`) the same functions block the thread.
//!
//! No lock may be held across a wait, because another request on the same thread may need it. [`Mutex`] counts its
//! guards, and every wait of a debug build asserts that there are none. [`Condition::wait`] releases the lock that it
//! gets.

mod compute;
mod condition;
mod coroutine;
mod lock;
mod reactor;
mod remote;
mod stream;
mod task;
mod thread;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

pub use compute::{compute, compute_large, start_computing};
pub use condition::Condition;
pub use coroutine::STACK_BYTES;
pub use lock::{Mutex, MutexGuard};
pub use reactor::{Event, Reactor, Spawned, TaskId};
pub use remote::{Remote, Token};
pub use stream::{Stream, is_cancelled};
pub use task::worker_number;
pub use thread::{CancellableParker, Canceller};

/// What to wait for on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Bytes, or their end, have arrived.
    Read,
    /// The socket takes bytes.
    Write,
}

/// Why a wait ended before its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// The deadline passed.
    #[error("the deadline passed")]
    TimedOut,
    /// The job was cancelled, because the client has hung up.
    #[error("the client has hung up")]
    Cancelled,
}

/// Waits until `socket` is ready. It may wake too early, so callers try and wait again on `WouldBlock`.
///
/// # Errors
/// [`WaitError`], wrapped in an [`io::Error`] that [`is_cancelled`] recognizes, or the system's error when it cannot
/// watch the socket.
pub fn for_socket(
    socket: impl AsFd,
    interest: Interest,
    deadline: Option<Instant>,
) -> io::Result<()> {
    let event = WaitFor::Socket(socket.as_fd(), interest);
    wait(event, deadline, Cancelling::Ends)?.map_err(stream::error)
}

/// Waits until `time`.
///
/// # Errors
/// [`WaitError::Cancelled`] when the job is cancelled.
pub fn until(time: Instant) -> Result<(), WaitError> {
    match wait(WaitFor::Time, Some(time), Cancelling::Ends) {
        Ok(Err(WaitError::Cancelled)) => Err(WaitError::Cancelled),
        _ => Ok(()),
    }
}

/// Lets the other coroutines on this thread run first. Does nothing on a plain thread.
pub fn yield_now() {
    if task::is_task() {
        let _ = wait(WaitFor::Others, None, Cancelling::IsIgnored);
    }
}

/// Counts bytes that the coroutine has read or written, and yields after [`TURN_BYTES`] without a wait. With a peer
/// that never makes it wait, a coroutine could otherwise keep its thread.
fn count_moved(bytes: usize) {
    if task::bytes_moved(bytes) >= TURN_BYTES {
        yield_now();
    }
}

/// Bytes that a coroutine may move before it yields. Moving them takes a fraction of a millisecond.
const TURN_BYTES: usize = 1 << 20;

/// What ends a wait.
#[derive(Debug, Clone, Copy)]
enum WaitFor<'a> {
    /// The socket is ready.
    Socket(BorrowedFd<'a>, Interest),
    /// A [`Waker`] that this coroutine or thread made for the wait.
    Wakeup,
    /// Only the deadline.
    Time,
    /// The other coroutines that are ready have run.
    Others,
}

/// Whether cancelling the job ends a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cancelling {
    /// It does.
    Ends,
    /// It does not: something would be lost or left half done.
    IsIgnored,
}

/// All waits end up here. The outer error is the system's, when it cannot watch the socket.
fn wait(
    what: WaitFor,
    deadline: Option<Instant>,
    cancelling: Cancelling,
) -> io::Result<Result<(), WaitError>> {
    debug_assert_eq!(lock::held(), 0, "a lock is held across a wait");
    debug_assert!(!std::thread::panicking(), "a wait while unwinding");
    if task::is_task() {
        task::wait(what, deadline, cancelling)
    } else {
        thread::wait(what, deadline, cancelling)
    }
}

/// Ends one [`WaitFor::Wakeup`]: the next wait of the coroutine or thread that made the waker.
#[derive(Debug, Clone)]
enum Waker {
    Task(task::TaskWaker),
    Thread(thread::ThreadWaker),
}

impl Waker {
    /// A waker for the next wait of this coroutine or thread.
    fn new() -> Self {
        match task::waker() {
            Some(waker) => Self::Task(waker),
            None => Self::Thread(thread::waker()),
        }
    }

    fn wake(&self) {
        match self {
            Self::Task(waker) => waker.wake(),
            Self::Thread(waker) => waker.wake(),
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
