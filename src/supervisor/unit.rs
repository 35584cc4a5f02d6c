//! The seam between the supervisor and the programs it runs.
//!
//! A [`Unit`] knows how to start one program and what its end means; the supervisor decides when to start, stop and
//! restart it, through a [`ProcessHandle`].

use std::io;
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use crate::supervisor::lifecycle::Phase;

/// Why a process did not start, or why a task failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailure {
    /// For people: what happened and, where it helps, what to do.
    pub text: String,
    /// Whether memory, processes or file descriptors ran out.
    pub out_of_resources: bool,
}

impl StartFailure {
    /// A failure of the system, described by `text`.
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
    /// A failure that has nothing to do with a lack of resources.
    fn from(text: String) -> Self {
        Self {
            text,
            out_of_resources: false,
        }
    }
}

/// A child process that has been started.
pub trait ProcessHandle: Send {
    /// Its process id, valid until it is reaped.
    fn pid(&self) -> Pid;

    /// Sends a signal to the process and to everything it started. Call this only before the process is reaped:
    /// afterwards its id may belong to another process.
    fn signal(&self, signal: Signal);

    /// Kills what the process left behind. Call this right after it was reaped.
    fn kill_group(&self);

    /// The last lines of its output. Call this after its end.
    fn last_lines(&self) -> String;
}

/// A program that is kept running: when its process ends, a new one is started.
pub trait Unit: Send {
    /// Its name in messages, such as `instance 0`.
    fn name(&self) -> String;

    /// Starts a process. Each process of a unit has a new `generation`, counted from 1; status reports carry it.
    ///
    /// # Errors
    /// Why the process cannot be started.
    fn start(&mut self, generation: u64) -> Result<Box<dyn ProcessHandle>, StartFailure>;

    /// Called when the process has ended; `how` is what the system says about it.
    fn ended(&mut self, how: String) -> Ended {
        Ended {
            reason: how,
            was_useful: false,
        }
    }

    /// Called when the process entered a new phase, to inform the senders of requests. `failures`: how often the unit
    /// failed in a row.
    fn publish(&mut self, generation: u64, phase: &Phase, since: Instant, failures: u32);

    /// Whether other units can do its work, so that its failure to start ends nothing.
    fn can_be_spared(&self) -> bool {
        false
    }

    /// When to call [`Unit::check`] next, if at all.
    fn next_check(&self) -> Option<Instant> {
        None
    }

    /// Checks the process: returns a reason to kill it, if there is one.
    fn check(&mut self, _now: Instant) -> Option<String> {
        None
    }

    /// Asks the process to end. The supervisor kills it if it does not.
    fn stop(&mut self, process: &dyn ProcessHandle) {
        process.signal(Signal::TERM);
    }

    /// Whether these last lines of output say that memory or the like ran out.
    fn ran_out_of_resources(&self, _output: &str) -> bool {
        false
    }

    /// The error message when the program never came up.
    fn refusal(&self, reason: &str) -> String;
}

/// The end of a process, as its unit sees it.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why, for people.
    pub reason: String,
    /// Whether the process did its work before: then the next failure counts as the first in a row.
    pub was_useful: bool,
}
