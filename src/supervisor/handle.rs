//! The supervisor's handle: how other threads have processes started, kept running, run once, or stopped.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select, unbounded};

use crate::error::StartError;
use crate::supervisor::child::Streams;
use crate::supervisor::drain::Drain;
use crate::supervisor::lifecycle::{Limits, Status};
use crate::supervisor::unit::{StartFailure, Unit};

/// Number of a unit or a task; never used twice.
pub type UnitId = u64;

/// The failure text of a task whose program does not exist.
pub const NOT_FOUND: &str = "not found on PATH";

/// A handle to the supervisor. The supervisor starts before everything that uses this and runs until the program ends;
/// whatever waits for it fails at once when it stops.
#[derive(Debug, Clone)]
pub struct SupervisorHandle {
    messages: Sender<Message>,
    stopping: Receiver<()>,
    last_id: Arc<AtomicU64>,
}

/// The receiving side of a [`SupervisorHandle`].
pub struct Inbox {
    pub(super) messages: Receiver<Message>,
    /// Dropped when the supervisor stops: see [`SupervisorHandle::stopping`].
    pub(super) running: Sender<()>,
}

/// A message to the supervisor.
pub enum Message {
    /// A signal arrived: SIGCHLD, or one that ends the program.
    Signal(i32),
    /// Work is accepted from now on; drain it at the end.
    DrainAtEnd(Box<dyn Drain>),
    /// The start has failed, which ends the program.
    StartFailed(StartError),
    /// The status of a unit's process.
    Report {
        /// The unit.
        unit: UnitId,
        /// Which of its processes.
        generation: u64,
        /// Its status.
        status: Status,
    },
    /// Keep a unit running.
    Keep {
        /// Its number.
        id: UnitId,
        /// The unit.
        unit: Box<dyn Unit>,
        /// Its time limits.
        limits: Limits,
        /// Gets the result of the first start; `None`: the program depends on it and ends if it fails.
        starter: Option<Sender<Result<(), StartFailure>>>,
    },
    /// Run a task.
    Run {
        /// Its number.
        id: UnitId,
        /// The program.
        command: Command,
        /// Where its output goes.
        streams: Streams,
        /// Gets the last lines of its output, or why it failed.
        reply: Sender<Result<String, StartFailure>>,
    },
    /// Stop these units and tasks and forget them.
    Release {
        /// Their numbers.
        ids: Vec<UnitId>,
        /// Dropped when nothing is left of them.
        stopped: Sender<()>,
    },
}

impl SupervisorHandle {
    /// A handle and its receiving side.
    pub fn new() -> (Self, Inbox) {
        let (sender, messages) = unbounded();
        let (running, stopping) = bounded(0);
        let handle = Self {
            messages: sender,
            stopping,
            last_id: Arc::new(AtomicU64::new(0)),
        };
        (handle, Inbox { messages, running })
    }

    /// Never carries a message; disconnects when the supervisor stops.
    pub fn stopping(&self) -> &Receiver<()> {
        &self.stopping
    }

    /// Has the supervisor drain this at the end of the program. Until then a signal ends the program at once.
    pub fn drain_at_end(&self, front: Box<dyn Drain>) {
        self.send(Message::DrainAtEnd(front));
    }

    /// Ends the program with this error.
    pub fn fail(&self, error: StartError) {
        self.send(Message::StartFailed(error));
    }

    /// A new number.
    pub fn new_id(&self) -> UnitId {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Passes a signal on. Returns `false` when the supervisor has stopped.
    pub fn signal(&self, signal: i32) -> bool {
        self.messages.send(Message::Signal(signal)).is_ok()
    }

    /// Reports the status of a unit's process. Reports about earlier processes are ignored.
    pub fn report(&self, unit: UnitId, generation: u64, status: Status) {
        self.send(Message::Report {
            unit,
            generation,
            status,
        });
    }

    /// Starts a unit and keeps it running. If its first start fails, the program ends.
    pub fn keep(&self, id: UnitId, unit: Box<dyn Unit>, limits: Limits) {
        self.send(Message::Keep {
            id,
            unit,
            limits,
            starter: None,
        });
    }

    /// Starts a unit and keeps it running. `starter` gets the result of its first start.
    pub fn keep_for(
        &self,
        id: UnitId,
        unit: Box<dyn Unit>,
        limits: Limits,
        starter: Sender<Result<(), StartFailure>>,
    ) {
        self.send(Message::Keep {
            id,
            unit,
            limits,
            starter: Some(starter),
        });
    }

    /// Starts a task. The receiver gets the last lines of its output, or why it failed; it disconnects when the
    /// supervisor stops. [`SupervisorHandle::release`] kills the task.
    pub fn run(
        &self,
        id: UnitId,
        command: Command,
        streams: Streams,
    ) -> Receiver<Result<String, StartFailure>> {
        let (reply, result) = bounded(1);
        self.send(Message::Run {
            id,
            command,
            streams,
            reply,
        });
        result
    }

    /// Runs a task to its end: the last lines of its output, or why it failed.
    ///
    /// # Errors
    /// [`StartError::Stopped`] when the supervisor stops first.
    pub fn run_to_end(
        &self,
        command: Command,
        streams: Streams,
    ) -> Result<Result<String, StartFailure>, StartError> {
        let result = self.run(self.new_id(), command, streams);
        result.recv().map_err(|_| StartError::Stopped)
    }

    /// Runs a task that may take this long: the last lines of its output, or why it failed.
    ///
    /// # Errors
    /// `Timeout` when it takes longer: it is killed then, and its end not waited for, because some programs do not end
    /// even so. `Disconnected` when the supervisor stops first.
    pub fn run_within(
        &self,
        limit: Duration,
        command: Command,
        streams: Streams,
    ) -> Result<Result<String, StartFailure>, RecvTimeoutError> {
        let id = self.new_id();
        let result = self.run(id, command, streams);
        result.recv_timeout(limit).inspect_err(|_| {
            self.begin_release(vec![id]);
        })
    }

    /// Runs a closure on a thread of its own and returns its result. For work that needs no process but may block.
    ///
    /// # Errors
    /// [`StartError::Stopped`] when the supervisor stops first; the thread is left alone then. Otherwise that the thread
    /// cannot be started, or panicked.
    pub fn run_in_thread<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StartError> {
        let (sender, result) = bounded(1);
        let thread = thread::Builder::new().name(name.into());
        thread
            .spawn(move || sender.send(work()))
            .map_err(|e| StartError::failed(format!("cannot start the thread {name}: {e}")))?;
        select! {
            recv(result) -> result => {
                result.map_err(|_| StartError::failed(format!("the thread {name} panicked")))
            }
            recv(self.stopping) -> _ => Err(StartError::Stopped),
        }
    }

    /// Stops units and tasks and waits until nothing is left of them.
    pub fn release(&self, ids: Vec<UnitId>) {
        // Disconnects when the last sender is dropped.
        let _ = self.begin_release(ids).recv();
    }

    /// Stops units and tasks. The receiver disconnects when nothing is left of them.
    pub(super) fn begin_release(&self, ids: Vec<UnitId>) -> Receiver<()> {
        let (stopped, all_stopped) = bounded(0);
        self.send(Message::Release { ids, stopped });
        all_stopped
    }

    fn send(&self, message: Message) {
        // Without a supervisor the program is about to end.
        let _ = self.messages.send(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closure_ends_with_its_result_its_panic_or_the_supervisor() {
        let (handle, inbox) = SupervisorHandle::new();
        assert_eq!(handle.run_in_thread("test", || 7).unwrap(), 7);
        let panicked = handle.run_in_thread("test", || panic!("expected by the test"));
        let panicked: Result<(), StartError> = panicked;
        assert_eq!(
            panicked.unwrap_err().to_string(),
            "the thread test panicked"
        );
        let (_open, endless) = bounded::<()>(0);
        drop(inbox);
        let stopped = handle.run_in_thread("test", move || endless.recv().is_ok());
        assert!(matches!(stopped, Err(StartError::Stopped)));
    }
}
