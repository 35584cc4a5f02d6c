//! A coroutine's own side of waiting: which one runs on this thread, and how it suspends itself until something happens.

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
use super::{Cancelling, Interest, WaitError, What};

/// A coroutine as it sees itself. Shared with the reactor, which runs on the same thread.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) remote: Arc<Remote>,
    pub(super) index: u32,
    /// Number of the current or next wait; what wakes an earlier one comes too late.
    pub(super) turn: Cell<u32>,
    pub(super) deadline: Cell<Option<Instant>>,
    pub(super) ignores_cancelling: Cell<bool>,
    pub(super) is_cancelled: Cell<bool>,
    /// Bytes read and written since the last wait.
    pub(super) bytes_moved: Cell<usize>,
}

thread_local! {
    /// The coroutine that runs on this thread now.
    pub(super) static CURRENT: RefCell<Option<Rc<Task>>> = const { RefCell::new(None) };
    pub(super) static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// The number of this thread's reactor; 0 on threads without one. For things of which each worker is to have its own, so
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

/// Counts bytes that the coroutine which calls this has moved since its last wait. 0 on plain threads.
pub(super) fn bytes_moved(more: usize) -> usize {
    CURRENT.with_borrow(|task| match task {
        Some(task) => {
            task.bytes_moved.set(task.bytes_moved.get() + more);
            task.bytes_moved.get()
        }
        None => 0,
    })
}

#[derive(Debug, Clone)]
pub(super) struct TaskWaker {
    remote: Arc<Remote>,
    index: u32,
    turn: u32,
}

impl TaskWaker {
    fn of(task: &Task) -> Self {
        Self {
            remote: Arc::clone(&task.remote),
            index: task.index,
            turn: task.turn.get(),
        }
    }

    pub(super) fn wake(&self) {
        self.remote.woken.lock().push((self.index, self.turn));
        self.remote.nudge();
    }
}

/// A waker for the next wait of the coroutine that calls this.
pub(super) fn waker() -> Option<TaskWaker> {
    current().as_deref().map(TaskWaker::of)
}

/// Suspends the coroutine that calls this.
pub(super) fn wait(
    what: What,
    deadline: Option<Instant>,
    cancelling: Cancelling,
) -> io::Result<Resumed> {
    let Some(task) = current() else {
        return Ok(Ok(()));
    };
    let ignores_cancelling = cancelling == Cancelling::IsIgnored;
    if task.is_cancelled.get() && !ignores_cancelling {
        // It is over before it began, and its waker must not end the next wait.
        task.end_turn();
        return Ok(Err(WaitError::Cancelled));
    }
    match what {
        What::Socket(socket, interest) => task.watch_once(socket, interest)?,
        What::Turn => TaskWaker::of(&task).wake(),
        What::Wakeup | What::Time => {}
    }
    task.bytes_moved.set(0);
    task.deadline.set(deadline);
    task.ignores_cancelling.set(ignores_cancelling);
    let how = coroutine::suspend();
    task.end_turn();
    Ok(how)
}

impl Task {
    fn end_turn(&self) {
        self.turn.set(self.turn.get().wrapping_add(1));
    }

    /// Has the next event on this socket end the current wait.
    fn watch_once(&self, socket: BorrowedFd, interest: Interest) -> io::Result<()> {
        let flags = match interest {
            Interest::Read => EventFlags::IN | EventFlags::RDHUP,
            Interest::Write => EventFlags::OUT,
        } | EventFlags::ONESHOT;
        let token = TASK | u64::from(self.turn.get() & TURN_MASK) << 32 | u64::from(self.index);
        let epoll = &self.remote.epoll;
        // Most sockets have been waited for on this worker before.
        match epoll::modify(epoll, socket, EventData::new_u64(token), flags) {
            Err(Errno::NOENT) => epoll::add(epoll, socket, EventData::new_u64(token), flags)?,
            other => other?,
        }
        Ok(())
    }
}

/// The part of a turn's number that is in a token.
pub(super) const TURN_MASK: u32 = u32::MAX >> 1;
