//! Waiting in a coroutine: which coroutine is running on this thread, and how it suspends itself until an event.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use super::coroutine::{self, Resumed};
use super::remote::{Remote, TASK};
use super::{Cancelling, Interest, WaitError, WaitFor};

/// The state of a coroutine, shared with its reactor on the same thread.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) remote: Arc<Remote>,
    /// Index of its slot in the reactor.
    pub(super) index: u32,
    /// Id of the current or next wait. Wakeups for earlier waits are ignored.
    pub(super) wait_id: Cell<u32>,
    /// Deadline of the current wait.
    pub(super) deadline: Cell<Option<Instant>>,
    /// Whether cancelling leaves the current wait alone.
    pub(super) ignores_cancelling: Cell<bool>,
    /// Whether the coroutine has been cancelled.
    pub(super) is_cancelled: Cell<bool>,
    /// Bytes read and written since the last wait.
    pub(super) bytes_moved: Cell<usize>,
}

thread_local! {
    /// The coroutine that is running on this thread.
    pub(super) static CURRENT: RefCell<Option<Rc<Task>>> = const { RefCell::new(None) };
    /// See [`worker_number`].
    pub(super) static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// The number of this thread's reactor; 0 on threads without one. For resources that each worker has of its own, so
/// that workers do not compete for them.
pub fn worker_number() -> usize {
    WORKER.get()
}

fn current() -> Option<Rc<Task>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Whether the caller is a coroutine.
pub(super) fn is_task() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

/// Adds to the bytes that the calling coroutine has moved since its last wait, and returns the sum. 0 on plain threads.
pub(super) fn bytes_moved(more: usize) -> usize {
    CURRENT.with_borrow(|task| match task {
        Some(task) => {
            task.bytes_moved.set(task.bytes_moved.get() + more);
            task.bytes_moved.get()
        }
        None => 0,
    })
}

/// Ends one wait of a coroutine.
#[derive(Debug, Clone)]
pub(super) struct TaskWaker {
    remote: Arc<Remote>,
    index: u32,
    wait_id: u32,
}

impl TaskWaker {
    fn of(task: &Task) -> Self {
        Self {
            remote: Arc::clone(&task.remote),
            index: task.index,
            wait_id: task.wait_id.get(),
        }
    }

    pub(super) fn wake(&self) {
        self.remote.woken.lock().push((self.index, self.wait_id));
        self.remote.nudge();
    }
}

/// A waker for the next wait of the calling coroutine. `None` on plain threads.
pub(super) fn waker() -> Option<TaskWaker> {
    current().as_deref().map(TaskWaker::of)
}

/// Suspends the calling coroutine until its wait ends.
pub(super) fn wait(
    what: WaitFor,
    deadline: Option<Instant>,
    cancelling: Cancelling,
) -> io::Result<Resumed> {
    let Some(task) = current() else {
        return Ok(Ok(()));
    };
    let ignores_cancelling = cancelling == Cancelling::IsIgnored;
    if task.is_cancelled.get() && !ignores_cancelling {
        // The wait ends before it starts, and its waker must not end the next one.
        task.end_wait();
        return Ok(Err(WaitError::Cancelled));
    }
    match what {
        WaitFor::Socket(socket, interest) => task.watch_once(socket, interest)?,
        WaitFor::Others => TaskWaker::of(&task).wake(),
        WaitFor::Wakeup | WaitFor::Time => {}
    }
    task.bytes_moved.set(0);
    task.deadline.set(deadline);
    task.ignores_cancelling.set(ignores_cancelling);
    let how = coroutine::suspend();
    task.end_wait();
    Ok(how)
}

impl Task {
    /// Moves on to the id of the next wait.
    fn end_wait(&self) {
        self.wait_id.set(self.wait_id.get().wrapping_add(1));
    }

    /// Makes the next event on this socket end the current wait.
    fn watch_once(&self, socket: BorrowedFd, interest: Interest) -> io::Result<()> {
        let flags = match interest {
            Interest::Read => EventFlags::IN | EventFlags::RDHUP,
            Interest::Write => EventFlags::OUT,
        } | EventFlags::ONESHOT;
        let token =
            TASK | u64::from(self.wait_id.get() & WAIT_ID_MASK) << 32 | u64::from(self.index);
        let epoll = &self.remote.epoll;
        // Try `modify` first: this worker has watched most sockets before.
        match epoll::modify(epoll, socket, EventData::new_u64(token), flags) {
            Err(Errno::NOENT) => epoll::add(epoll, socket, EventData::new_u64(token), flags)?,
            other => other?,
        }
        Ok(())
    }
}

/// The part of a wait id that fits into a token.
pub(super) const WAIT_ID_MASK: u32 = u32::MAX >> 1;
