//! The interface between the supervisor and the programs it runs.
//!
//! A [`Unit`] knows how to start one program and what the end of its process means. The supervisor decides when to
//! start, stop and restart the program; it reaches the process through a [`ProcessHandle`].

use std::io;
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use crate::supervisor::lifecycle::Phase;

/// Why a process did not start, or why a task failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailure {
    /// The message: what happened and, where it helps, what to do.
    pub text: String,
    /// Whether the system ran out of memory, processes or file descriptors.
    pub out_of_resources: bool,
}

impl StartFailure {
    /// A failure with this message. `error` says whether the system ran out of something.
    pub fn from_io(error: &io::Error, text: String) -> Self {
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        let out_of_resources = matches!(
            errno,
            Some(Errno::NOMEM | Errno::AGAIN | Errno::MFILE | Errno::NFILE)
        );
        Self {
            text,
            out_of_resources,
        }
    }
}

impl From<String> for StartFailure {
    /// A failure that no lack of resources caused.
    fn from(text: String) -> Self {
        Self {
            text,
            out_of_resources: false,
        }
    }
}

/// A child process.
pub trait ProcessHandle: Send {
    /// The process id, valid until the process is reaped.
    fn pid(&self) -> Pid;

    /// Sends a signal to the process and to all processes of its group. Call this only before the process is reaped:
    /// afterwards its id may belong to another process.
    fn signal(&self, signal: Signal);

    /// Kills what is left of the process group. Call this right after the process was reaped.
    fn kill_group(&self);

    /// The last lines of its output. Call this after the process has ended.
    fn last_lines(&self) -> String;
}

/// A program that the supervisor keeps running: when its process ends, the supervisor starts a new one.
pub trait Unit: Send {
    /// The name in messages, for example `instance 0`.
    fn name(&self) -> String;

    /// Starts a process. Each process of a unit has a new `generation`, counted from 1, which its reports carry.
    ///
    /// # Errors
    /// Why the process did not start.
    fn start(&mut self, generation: u64) -> Result<Box<dyn ProcessHandle>, StartFailure>;

    /// Called when the process has ended; `how` says with which exit code or signal.
    fn ended(&mut self, how: String) -> Ended {
        Ended {
            reason: how,
            was_useful: false,
        }
    }

    /// Called when the unit enters a new phase, so that it can tell the pool that spreads requests. `failures` is the
    /// number of failures in a row.
    fn publish(&mut self, generation: u64, phase: &Phase, since: Instant, failures: u32);

    /// Whether other units can do the same work. Then a failed first start ends neither the program nor a load: the
    /// supervisor retries it.
    fn is_redundant(&self) -> bool {
        false
    }

    /// When to call [`Unit::check`] next; `None` for never.
    fn next_check(&self) -> Option<Instant> {
        None
    }

    /// Checks the process. Returns the reason to kill it, if there is one.
    fn check(&mut self, _now: Instant) -> Option<String> {
        None
    }

    /// Asks the process to end. The supervisor kills the process if it does not end soon.
    fn stop(&mut self, process: &dyn ProcessHandle) {
        process.signal(Signal::TERM);
    }

    /// Whether these last lines of output say that the process ran out of memory or another resource.
    fn ran_out_of_resources(&self, _output: &str) -> bool {
        false
    }

    /// The error message for a unit that has never been ready.
    fn refusal(&self, reason: &str) -> String;
}

/// What a unit says about the end of its process.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why the process ended, for messages.
    pub reason: String,
    /// Whether the process did useful work. Then this failure counts as the first in a row.
    pub was_useful: bool,
}
