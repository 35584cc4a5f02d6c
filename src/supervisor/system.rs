//! What the event loop needs from outside: a clock, its mailbox, and child processes. Tests replace it.

use std::io;
use std::process::Command;
use std::time::Instant;

use crossbeam_channel::Receiver;
use rustix::process::Pid;

use crate::supervisor::child::{Child, Streams};
use crate::supervisor::handle::Message;
use crate::supervisor::reaper::{self, Exit};
use crate::supervisor::unit::ProcessHandle;

/// The world outside the event loop.
pub trait System: Send {
    /// The time.
    fn now(&self) -> Instant;

    /// Waits for the next message; `None` when `deadline` passes first.
    fn receive(&self, deadline: Option<Instant>) -> Option<Message>;

    /// Reaps one child that has ended, if there is one.
    fn reap_one(&self) -> Option<(Pid, Exit)>;

    /// Starts the process of a task.
    ///
    /// # Errors
    /// When the system cannot start it.
    fn start_task(&self, command: Command, streams: &Streams)
    -> io::Result<Box<dyn ProcessHandle>>;
}

/// The real one.
pub struct OperatingSystem {
    /// The event loop's mailbox.
    pub messages: Receiver<Message>,
}

impl System for OperatingSystem {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn receive(&self, deadline: Option<Instant>) -> Option<Message> {
        match deadline {
            Some(deadline) => self.messages.recv_deadline(deadline).ok(),
            // The thread that waits for signals holds a sender, so a message will come.
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
