//! The way to the watchdog: who has a process to be kept running, or run once, asks here.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::error::StartError;
use crate::supervisor::Drain;
use crate::supervisor::child::Streams;
use crate::supervisor::lifecycle::{Limits, Status};
use crate::supervisor::unit::Unit;

/// Number of a unit or an errand; never given twice.
pub type UnitId = u64;

/// A handle to the watchdog. The watchdog starts before everything that uses this and ends with the program, so messages
/// are always taken, and waiting for a reply fails at once when the watchdog stops.
#[derive(Debug, Clone)]
pub struct Supervisor {
    inbox: Sender<Message>,
    stopping: Receiver<()>,
    last_id: Arc<AtomicU64>,
}

/// Where messages of a [`Supervisor`] arrive.
pub struct Inbox {
    /// The messages.
    pub messages: Receiver<Message>,
    /// To be dropped when the watchdog stops: see [`Supervisor::stopping`].
    pub running: Option<Sender<()>>,
}

/// What the watchdog is told.
pub enum Message {
    /// A signal arrived: SIGCHLD, or one that ends the program.
    Signal(i32),
    /// The front is open: at the end it is drained.
    Serve(Box<dyn Drain>),
    /// The start has failed, which ends the program.
    StartFailed(StartError),
    /// A process of a unit is well, or not.
    News {
        /// Which unit.
        unit: UnitId,
        /// Which of its processes.
        process: u64,
        /// How it is.
        status: Status,
    },
    /// Keep this unit running.
    Keep {
        /// Its number.
        id: UnitId,
        /// The unit.
        unit: Box<dyn Unit>,
        /// By what it is measured.
        limits: Limits,
        /// Who waits for its start; `None`: the program, which ends if it fails.
        starter: Option<Sender<Result<(), StartFailure>>>,
    },
    /// Run this once.
    Run {
        /// Its number.
        id: UnitId,
        /// What to run.
        command: Command,
        /// Where its output goes.
        streams: Streams,
        /// Gets its end: the last lines of its output.
        reply: Sender<Result<String, StartFailure>>,
    },
    /// Stop these units and errands and forget them; `done` is dropped when nothing is left of them.
    Release {
        /// Which.
        ids: Vec<UnitId>,
        /// See above.
        done: Sender<()>,
    },
}

/// Why a process did not come up, or an errand came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailure {
    /// For people.
    pub text: String,
    /// Whether memory, processes or the like ran out.
    pub out_of_resources: bool,
}

/// What is said of a program that is not there.
pub const NOT_FOUND: &str = "not found on PATH";

impl Supervisor {
    /// A handle, and where its messages arrive.
    pub fn new() -> (Self, Inbox) {
        let (inbox, messages) = unbounded();
        let (running, stopping) = bounded(0);
        let supervisor = Self {
            inbox,
            stopping,
            last_id: Arc::new(AtomicU64::new(0)),
        };
        let running = Some(running);
        (supervisor, Inbox { messages, running })
    }

    /// Never carries a message, and disconnects when the watchdog stops. Select on it when waiting for something that
    /// the watchdog does not do.
    pub fn stopping(&self) -> &Receiver<()> {
        &self.stopping
    }

    /// Hands over the front, to be drained at the end.
    pub fn serve(&self, front: Box<dyn Drain>) {
        self.send(Message::Serve(front));
    }

    /// Ends the program with this error.
    pub fn fail(&self, error: StartError) {
        self.send(Message::StartFailed(error));
    }

    /// A new number.
    pub fn new_id(&self) -> UnitId {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Passes a signal on. `false`: the watchdog has ended.
    pub fn signal(&self, signal: i32) -> bool {
        self.inbox.send(Message::Signal(signal)).is_ok()
    }

    /// News of a unit's process.
    pub fn report(&self, unit: UnitId, process: u64, status: Status) {
        self.send(Message::News {
            unit,
            process,
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

    /// Starts a unit and keeps it running. `starter` hears how its first start went.
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

    /// Runs a program once. The receiver gets its end and last lines of output; [`Supervisor::release`] ends it
    /// before.
    pub fn run(
        &self,
        id: UnitId,
        command: Command,
        streams: Streams,
    ) -> Receiver<Result<String, StartFailure>> {
        let (reply, end) = bounded(1);
        self.send(Message::Run {
            id,
            command,
            streams,
            reply,
        });
        end
    }

    /// Runs a program to its end: the last lines of its output, or why it failed.
    ///
    /// # Errors
    /// [`StartError::Stopped`] when the watchdog stops before.
    pub fn run_to_end(
        &self,
        command: Command,
        streams: Streams,
    ) -> Result<Result<String, StartFailure>, StartError> {
        let end = self.run(self.new_id(), command, streams);
        end.recv().map_err(|_| StartError::Stopped)
    }

    /// Stops an errand and does not wait for its end.
    pub fn abandon(&self, id: UnitId) {
        let (done, _) = bounded(0);
        self.send(Message::Release {
            ids: vec![id],
            done,
        });
    }

    /// Stops units and errands and waits until nothing is left of them.
    pub fn release(&self, ids: Vec<UnitId>) {
        let (done, all_done) = bounded(0);
        self.send(Message::Release { ids, done });
        // Ends when the last holder drops its end.
        let _ = all_done.recv();
    }

    fn send(&self, message: Message) {
        // Without a watchdog the program is at its end.
        let _ = self.inbox.send(message);
    }
}
