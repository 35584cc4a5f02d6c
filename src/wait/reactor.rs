//! The event loop of one worker thread: its epoll instance, its coroutines, and their deadlines.
//!
//! The worker can also register files of its own and gets their events. Coroutines stay on their worker, so only the
//! list of coroutines that other threads have woken needs a lock (`remote.rs`).

use std::cell::Cell;
use std::io;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;

use super::WaitError;
use super::coroutine::{Coroutine, Progress, Resumed, Stack};
use super::remote::{NUDGE, Remote, TASK, Token};
use super::task::{CURRENT, Task, WAIT_ID_MASK, WORKER};

/// Most events taken from the system at once.
const MAX_EVENTS: usize = 64;
/// Most unused stacks kept for reuse. Each keeps the pages that it has touched.
const MAX_STACKS: usize = 64;

/// An event on one of the worker's own files.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// The token that the file was registered with.
    pub token: Token,
    /// The events that epoll reported.
    pub flags: EventFlags,
}

/// Identifies a coroutine of a [`Reactor`], even after it has finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskId {
    index: u32,
    generation: u32,
}

/// The state of a coroutine after [`Reactor::spawn`].
#[derive(Debug)]
pub enum Spawned<R> {
    /// It has finished: its result, or an error if it panicked.
    Done(thread::Result<R>),
    /// It waits.
    Waiting(TaskId),
}

/// A place for one coroutine, reused when it has finished.
struct Slot<R> {
    generation: u32,
    /// The wait id of the last coroutine. The next one continues counting, so no late wakeup can end one of its waits.
    last_wait_id: u32,
    entry: Option<(Rc<Task>, Coroutine<R>)>,
}

/// The event loop of one worker thread. `R` is the result type of its coroutines.
pub struct Reactor<R> {
    remote: Arc<Remote>,
    slots: Vec<Slot<R>>,
    /// Indices of empty slots.
    free: Vec<u32>,
    /// Unused stacks.
    stacks: Vec<Stack>,
    /// A lower bound of all deadlines of coroutines.
    earliest: Option<Instant>,
    /// Reused buffer for events.
    happened: Vec<epoll::Event>,
}

impl<R: 'static> Reactor<R> {
    /// A reactor without coroutines for the calling thread, which becomes worker `number`.
    pub fn new(remote: &Arc<Remote>, number: usize) -> Self {
        WORKER.set(number);
        Self {
            remote: Arc::clone(remote),
            slots: Vec::new(),
            free: Vec::new(),
            stacks: Vec::new(),
            earliest: None,
            happened: Vec::with_capacity(MAX_EVENTS),
        }
    }

    /// Makes sure that a stack is available for the next [`Reactor::spawn`].
    ///
    /// # Errors
    /// When no memory is left for a stack.
    pub fn prepare(&mut self) -> io::Result<()> {
        if self.stacks.is_empty() {
            self.stacks.push(Stack::new()?);
        }
        Ok(())
    }

    /// Starts a coroutine and runs it until its first wait.
    ///
    /// # Panics
    /// When no stack is available; call [`Reactor::prepare`] before.
    pub fn spawn(&mut self, body: impl FnOnce() -> R + 'static) -> Spawned<R> {
        let stack = self.stacks.pop().expect("a stack was prepared");
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                last_wait_id: 0,
                entry: None,
            });
            self.slots.len() as u32 - 1
        });
        let task = Rc::new(Task {
            remote: Arc::clone(&self.remote),
            index,
            wait_id: Cell::new(self.slots[index as usize].last_wait_id),
            deadline: Cell::new(None),
            ignores_cancelling: Cell::new(false),
            is_cancelled: Cell::new(false),
            bytes_moved: Cell::new(0),
        });
        let slot = &mut self.slots[index as usize];
        slot.entry = Some((task, Coroutine::new(stack, body)));
        let id = TaskId {
            index,
            generation: slot.generation,
        };
        match self.resume(index, Ok(())) {
            Some(result) => Spawned::Done(result),
            None => Spawned::Waiting(id),
        }
    }

    /// Cancels a coroutine: ends its current wait and all later ones. Does nothing if the coroutine has finished. Adds
    /// its result to `done` if it finishes now.
    pub fn cancel(&mut self, id: TaskId, done: &mut Vec<thread::Result<R>>) {
        let Some(slot) = self.slots.get(id.index as usize) else {
            return;
        };
        if slot.generation != id.generation {
            return;
        }
        let Some((task, _)) = &slot.entry else {
            return;
        };
        task.is_cancelled.set(true);
        if !task.ignores_cancelling.get() {
            done.extend(self.resume(id.index, Err(WaitError::Cancelled)));
        }
    }

    /// Runs one turn of the event loop: waits for events, for at most `limit`, and resumes the coroutines that they
    /// concern. Adds the events of the worker's own files to `events`, and the results of finished coroutines to
    /// `done`.
    ///
    /// # Errors
    /// When the system cannot wait for events, which is not expected.
    pub fn turn(
        &mut self,
        limit: Option<Duration>,
        events: &mut Vec<Event>,
        done: &mut Vec<thread::Result<R>>,
    ) -> io::Result<()> {
        let mut happened = mem::take(&mut self.happened);
        happened.clear();
        self.remote.sleeps.store(true, Ordering::SeqCst);
        let timeout = match self.remote.is_nudged.swap(false, Ordering::SeqCst) {
            true => Some(Timespec::default()),
            false => self.timeout(limit),
        };
        let waited = epoll::wait(
            &self.remote.epoll,
            spare_capacity(&mut happened),
            timeout.as_ref(),
        );
        self.remote.sleeps.store(false, Ordering::SeqCst);
        match waited {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        for event in &happened {
            let token = event.data.u64();
            if token == NUDGE {
                let _ = rustix::io::read(&self.remote.event, &mut [0; 8]);
            } else if token & TASK == 0 {
                events.push(Event {
                    token,
                    flags: event.flags,
                });
            } else {
                let wait_id = (token >> 32) as u32 & WAIT_ID_MASK;
                let is_this = |current| current & WAIT_ID_MASK == wait_id;
                done.extend(self.end_wait(token as u32, is_this));
            }
        }
        self.happened = happened;
        let woken = mem::take(&mut *self.remote.woken.lock());
        for (index, wait_id) in woken {
            done.extend(self.end_wait(index, |current| current == wait_id));
        }
        self.end_late_waits(done);
        Ok(())
    }

    /// Resumes a coroutine if `is_this` accepts the id of its current wait.
    fn end_wait(&mut self, index: u32, is_this: impl Fn(u32) -> bool) -> Option<thread::Result<R>> {
        let (task, _) = self.slots.get(index as usize)?.entry.as_ref()?;
        if is_this(task.wait_id.get()) {
            return self.resume(index, Ok(()));
        }
        None
    }

    /// Time until the next deadline, rounded up to milliseconds, but at most `limit`.
    fn timeout(&self, limit: Option<Duration>) -> Option<Timespec> {
        let left = self.earliest.map(|earliest| {
            let left = earliest.saturating_duration_since(Instant::now());
            Duration::from_millis(left.as_micros().div_ceil(1000) as u64)
        });
        let shorter = match (left, limit) {
            (Some(left), Some(limit)) => Some(left.min(limit)),
            (left, limit) => left.or(limit),
        };
        Timespec::try_from(shorter?).ok()
    }

    /// Ends the waits whose deadlines have passed.
    fn end_late_waits(&mut self, done: &mut Vec<thread::Result<R>>) {
        let Some(earliest) = self.earliest else {
            return;
        };
        let now = Instant::now();
        if now < earliest {
            return;
        }
        self.earliest = None;
        for index in 0..self.slots.len() {
            let deadline = match &self.slots[index].entry {
                Some((task, _)) => task.deadline.get(),
                None => None,
            };
            match deadline {
                Some(deadline) if deadline <= now => {
                    done.extend(self.resume(index as u32, Err(WaitError::TimedOut)));
                }
                Some(deadline) => self.note_deadline(deadline),
                None => {}
            }
        }
    }

    /// Lowers the bound of all deadlines to `deadline` if needed.
    fn note_deadline(&mut self, deadline: Instant) {
        let earliest = self.earliest.get_or_insert(deadline);
        *earliest = deadline.min(*earliest);
    }

    /// Runs a coroutine until its next wait or its end. Returns its result if it has finished.
    fn resume(&mut self, index: u32, how: Resumed) -> Option<thread::Result<R>> {
        let slot = &mut self.slots[index as usize];
        let (task, coroutine) = slot.entry.as_mut()?;
        let task = Rc::clone(task);
        CURRENT.set(Some(Rc::clone(&task)));
        let progress = coroutine.resume(how);
        CURRENT.set(None);
        match progress {
            Progress::Suspended => {
                if let Some(deadline) = task.deadline.get() {
                    self.note_deadline(deadline);
                }
                None
            }
            Progress::Done(result) => {
                let slot = &mut self.slots[index as usize];
                slot.generation = slot.generation.wrapping_add(1);
                slot.last_wait_id = task.wait_id.get();
                let (_, coroutine) = slot.entry.take()?;
                let stack = coroutine.into_stack();
                if self.stacks.len() < MAX_STACKS {
                    self.stacks.push(stack);
                }
                self.free.push(index);
                Some(result)
            }
        }
    }
}

impl<R> Drop for Reactor<R> {
    /// Leaks the coroutines that wait: unwinding them would run destructors, which may wait again. Only tests drop a
    /// reactor with such coroutines.
    fn drop(&mut self) {
        for slot in &mut self.slots {
            if let Some((_, coroutine)) = slot.entry.take() {
                mem::forget(coroutine);
            }
        }
    }
}
