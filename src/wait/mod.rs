//! How code waits: for a socket, for a condition, for a time. Everything that a request waits for goes through here.
//!
//! A request runs as a *coroutine*: a function with a stack of its own. Where the function waits, it is suspended and its
//! worker thread serves others; it reads like code that blocks. On a thread that is no worker (probes, the supervisor, tests,
//! and requests with `SAGEMAKER_TFS_WORKERS=threads`) the same functions block the thread.
//!
//! No lock is held across a wait: the other requests on the thread may need it. [`Mutex`] counts its guards, and
//! debug builds assert in the one function below that there are none. The only way to wait under a lock is
//! [`Condition::wait`], which releases it.

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
pub use thread::{CancellablePlace, Canceller};

/// What a socket is to become ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Reading: bytes have arrived, or their end.
    Read,
    /// Writing.
    Write,
}

/// Why a wait ended without what it was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// Its deadline passed.
    #[error("the deadline passed")]
    TimedOut,
    /// Nobody needs the result any more: the client has hung up.
    #[error("the client has hung up")]
    Cancelled,
}

/// Waits until `socket` is ready. It may turn out not to be: callers try, and wait again on `WouldBlock`.
///
/// # Errors
/// [`WaitError`], as an [`io::Error`] that [`is_cancelled`] knows; the system's when the socket cannot be waited for.
pub fn for_socket(
    socket: impl AsFd,
    interest: Interest,
    deadline: Option<Instant>,
) -> io::Result<()> {
    let event = What::Socket(socket.as_fd(), interest);
    wait(event, deadline, Cancelling::Ends)?.map_err(stream::error)
}

/// Waits until this time.
///
/// # Errors
/// [`WaitError::Cancelled`].
pub fn until(time: Instant) -> Result<(), WaitError> {
    match wait(What::Time, Some(time), Cancelling::Ends) {
        Ok(Err(WaitError::Cancelled)) => Err(WaitError::Cancelled),
        _ => Ok(()),
    }
}

/// Lets the other requests on this thread go on first.
pub fn give_way() {
    if task::is_task() {
        let _ = wait(What::Turn, None, Cancelling::IsIgnored);
    }
}

/// Gives way when this many bytes and those before, since the last wait, have taken a while to move. A peer that is as quick
/// as we are would otherwise keep a request from ever waiting.
fn moved(bytes: usize) {
    if task::bytes_moved(bytes) >= TURN_BYTES {
        give_way();
    }
}

/// Bytes that a request moves in one go; it takes a fraction of a millisecond.
const TURN_BYTES: usize = 1 << 20;

/// What is waited for.
#[derive(Debug, Clone, Copy)]
enum What<'a> {
    Socket(BorrowedFd<'a>, Interest),
    /// A [`Waker`] of this place.
    Wakeup,
    /// The deadline alone.
    Time,
    /// Nothing, after whatever else is ready.
    Turn,
}

/// Whether a wait ends when nobody needs the result any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cancelling {
    Ends,
    /// The wait is for something that would otherwise be lost or left half done.
    IsIgnored,
}

/// The one function in which everything waits. The outer error is the system's, about a socket.
fn wait(
    what: What,
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

/// Ends the next [`What::Wakeup`] of the place that made it, once.
#[derive(Debug, Clone)]
enum Waker {
    Task(task::TaskWaker),
    Thread(thread::ThreadWaker),
}

impl Waker {
    /// A waker for this place's next wait.
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
