//! The handle to the supervisor: other threads use it to start units and tasks, to stop them, and to end the program.
//!
//! Each call sends a [`Message`] to the event loop, which owns the processes.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select, unbounded};

use crate::error::StartError;
use crate::supervisor::child::Streams;
use crate::supervisor::drain::Drain;
use crate::supervisor::lifecycle::Limits;
use crate::supervisor::readiness::Readiness;
use crate::supervisor::unit::{StartFailure, Unit};

/// The number of a unit or a task; never used twice.
pub type UnitId = u64;

/// The failure message of a task whose program does not exist.
pub const NOT_FOUND: &str = "not found on PATH";

/// A handle to the supervisor, which starts before all users of this handle and runs until the program ends. When it
/// stops, every wait for it ends at once with an error.
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
    /// The server accepts requests from now on; drain it at the end.
    DrainAtEnd(Box<dyn Drain>),
    /// Startup has failed: end the program.
    StartFailed(StartError),
    /// The readiness of a unit's process.
    Report {
        /// The number of the unit.
        unit: UnitId,
        /// Which of the unit's processes.
        generation: u64,
        /// The readiness.
        readiness: Readiness,
    },
    /// Start a unit and keep it running.
    Keep {
        /// The number of the unit.
        id: UnitId,
        /// The unit.
        unit: Box<dyn Unit>,
        /// The time limits of its processes.
        limits: Limits,
        /// Gets the result of the first start. If this is `None`, the program ends when that start fails.
        starter: Option<Sender<Result<(), StartFailure>>>,
    },
    /// Run a task.
    Run {
        /// The number of the task.
        id: UnitId,
        /// The program.
        command: Command,
        /// Where its output goes.
        streams: Streams,
        /// Gets the last lines of the output, or why the task failed.
        reply: Sender<Result<String, StartFailure>>,
    },
    /// Stop units and tasks and forget them.
    Release {
        /// The numbers of the units and tasks.
        ids: Vec<UnitId>,
        /// Dropped when all their processes are gone.
        stopped: Sender<()>,
    },
}

impl SupervisorHandle {
    /// A handle and its receiving side, which the supervisor takes.
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

    /// A channel without messages that disconnects when the supervisor stops.
    pub fn stopping(&self) -> &Receiver<()> {
        &self.stopping
    }

    /// Makes the supervisor drain `server` at the end of the program. Before this call a signal ends the program at
    /// once.
    pub fn drain_at_end(&self, server: Box<dyn Drain>) {
        self.send(Message::DrainAtEnd(server));
    }

    /// Ends the program with this error.
    pub fn fail(&self, error: StartError) {
        self.send(Message::StartFailed(error));
    }

    /// A new number for a unit or a task.
    pub fn new_id(&self) -> UnitId {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Passes a signal on to the supervisor. Returns `false` when the supervisor has stopped.
    pub fn signal(&self, signal: i32) -> bool {
        self.messages.send(Message::Signal(signal)).is_ok()
    }

    /// Reports the readiness of a unit's process. The supervisor ignores reports about earlier processes.
    pub fn report(&self, unit: UnitId, generation: u64, readiness: Readiness) {
        self.send(Message::Report {
            unit,
            generation,
            readiness,
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

    /// Starts a task. The receiver gets the last lines of the output, or why the task failed, and disconnects when the
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

    /// Runs a task to its end. Returns the last lines of the output, or why the task failed.
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

    /// Runs a task that may take up to `limit`. Returns the last lines of the output, or why the task failed.
    ///
    /// # Errors
    /// `Timeout` when the task takes longer. Its process is killed then, but not waited for, because some processes
    /// survive SIGKILL for a while (in a broken driver, for example). `Disconnected` when the supervisor stops first.
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

    /// Runs a closure on a new thread and returns its result. For work that needs no process but may block.
    ///
    /// # Errors
    /// [`StartError::Stopped`] when the supervisor stops first; the thread is abandoned then. [`StartError::Failed`]
    /// when the thread cannot be started or panics.
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

    /// Stops units and tasks and waits until all their processes are gone.
    pub fn release(&self, ids: Vec<UnitId>) {
        // This wait ends when the last sender is dropped.
        let _ = self.begin_release(ids).recv();
    }

    /// Stops units and tasks. The receiver disconnects when all their processes are gone.
    pub(super) fn begin_release(&self, ids: Vec<UnitId>) -> Receiver<()> {
        let (stopped, all_stopped) = bounded(0);
        self.send(Message::Release { ids, stopped });
        all_stopped
    }

    fn send(&self, message: Message) {
        // This fails only when the supervisor has stopped: then the program is about to end.
        let _ = self.messages.send(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_in_thread_returns_the_result_a_panic_or_the_stop_of_the_supervisor() {
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
