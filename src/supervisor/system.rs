//! What the event loop needs from the operating system: a clock, its inbox, and child processes. Tests replace it.

use std::io;
use std::process::Command;
use std::time::Instant;

use crossbeam_channel::Receiver;
use rustix::process::Pid;

use crate::supervisor::child::{Child, Streams};
use crate::supervisor::handle::Message;
use crate::supervisor::reaper::{self, Exit};
use crate::supervisor::unit::ProcessHandle;

/// The operating system, as the event loop uses it.
pub trait System: Send {
    /// The current time.
    fn now(&self) -> Instant;

    /// Waits for the next message; `None` when `deadline` passes first.
    fn receive(&self, deadline: Option<Instant>) -> Option<Message>;

    /// Reaps one child that has ended; `None` if there is no such child.
    fn reap_one(&self) -> Option<(Pid, Exit)>;

    /// Starts the process of a task.
    ///
    /// # Errors
    /// The system's, when it cannot start the process.
    fn start_task(&self, command: Command, streams: &Streams)
    -> io::Result<Box<dyn ProcessHandle>>;
}

/// The real operating system.
pub struct OperatingSystem {
    /// The event loop's inbox.
    pub messages: Receiver<Message>,
}

impl System for OperatingSystem {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn receive(&self, deadline: Option<Instant>) -> Option<Message> {
        match deadline {
            Some(deadline) => self.messages.recv_deadline(deadline).ok(),
            // The thread that waits for signals holds a sender, so this wait ends with a message.
            None => self.messages.recv().ok(),
        }
    }

    fn reap_one(&self) -> Option<(Pid, Exit)> {
        reaper::reap_one()
    }

    fn start_task(
        &self,
        command: Command,
        streams: &Streams,
    ) -> io::Result<Box<dyn ProcessHandle>> {
        Ok(Box::new(Child::start(command, streams, &[])?))
    }
}
