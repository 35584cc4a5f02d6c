//! The event loop of one worker thread: an epoll instance, the coroutines of this worker, and what wakes them.
//!
//! The worker's own files are registered with it, too; their events are handed out. Coroutines stay on their worker, so nothing
//! here needs a lock but the list of those that other threads have woken.

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
use super::task::{CURRENT, TURN_MASK, Task, WORKER};

/// Events taken from the system at once.
const MAX_EVENTS: usize = 64;
/// Unused stacks kept; the pages that were touched stay with them.
const MAX_STACKS: usize = 64;

/// What happened on a file of the worker's own.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// Which file.
    pub token: Token,
    /// What happened.
    pub flags: EventFlags,
}

/// Identifies a coroutine of a [`Reactor`], also when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskId {
    index: u32,
    generation: u32,
}

/// What became of a coroutine that was started.
#[derive(Debug)]
pub enum Spawned<R> {
    /// It is done already; an error when it panicked.
    Done(thread::Result<R>),
    /// It waits.
    Waiting(TaskId),
}

struct Slot<R> {
    generation: u32,
    /// Turns go on from one coroutine to the next, so that nothing meant for one ends a wait of another.
    last_turn: u32,
    entry: Option<(Rc<Task>, Coroutine<R>)>,
}

/// See the module. `R` is what coroutines return.
pub struct Reactor<R> {
    remote: Arc<Remote>,
    slots: Vec<Slot<R>>,
    free: Vec<u32>,
    stacks: Vec<Stack>,
    /// No deadline of a coroutine is earlier.
    earliest: Option<Instant>,
    /// Room for events.
    happened: Vec<epoll::Event>,
}

impl<R: 'static> Reactor<R> {
    /// A reactor without coroutines, for the thread that calls this, which is worker `number`.
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

    /// Makes sure that there is a stack for the next coroutine.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn prepare(&mut self) -> io::Result<()> {
        if self.stacks.is_empty() {
            self.stacks.push(Stack::new()?);
        }
        Ok(())
    }

    /// Starts a coroutine and runs it until it waits.
    ///
    /// # Panics
    /// When there is no stack for it; see [`Reactor::prepare`].
    pub fn spawn(&mut self, body: impl FnOnce() -> R + 'static) -> Spawned<R> {
        let stack = self.stacks.pop().expect("a stack was prepared");
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                last_turn: 0,
                entry: None,
            });
            self.slots.len() as u32 - 1
        });
        let task = Rc::new(Task {
            remote: Arc::clone(&self.remote),
            index,
            turn: Cell::new(self.slots[index as usize].last_turn),
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

    /// Tells a coroutine that nobody needs its result any more: its waits end, now and from now on.
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

    /// Waits, for at most `limit`, until something happens, and resumes the coroutines concerned. Adds events on the
    /// worker's own files to `events`, and the results of coroutines that are done to `done`.
    ///
    /// # Errors
    /// When the system cannot wait for events, which should not happen.
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
                let turn = (token >> 32) as u32 & TURN_MASK;
                done.extend(self.end_wait(token as u32, |current| current & TURN_MASK == turn));
            }
        }
        self.happened = happened;
        let woken = mem::take(&mut *self.remote.woken.lock());
        for (index, turn) in woken {
            done.extend(self.end_wait(index, |current| current == turn));
        }
        self.end_late_waits(done);
        Ok(())
    }

    /// Resumes a coroutine if it is still in the wait that `is_this` knows by its number.
    fn end_wait(&mut self, index: u32, is_this: impl Fn(u32) -> bool) -> Option<thread::Result<R>> {
        let (task, _) = self.slots.get(index as usize)?.entry.as_ref()?;
        if is_this(task.turn.get()) {
            return self.resume(index, Ok(()));
        }
        None
    }

    /// Time until the next deadline, in whole milliseconds, but not more than `limit`.
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

    fn note_deadline(&mut self, deadline: Instant) {
        let earliest = self.earliest.get_or_insert(deadline);
        *earliest = deadline.min(*earliest);
    }

    /// Runs a coroutine until its next wait. Its result, if it is done.
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
                slot.last_turn = task.turn.get();
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
    /// Leaks the coroutines that wait: unwinding them would run destructors, which may wait again. Only tests end with some.
    fn drop(&mut self) {
        for slot in &mut self.slots {
            if let Some((_, coroutine)) = slot.entry.take() {
                mem::forget(coroutine);
            }
        }
    }
}
