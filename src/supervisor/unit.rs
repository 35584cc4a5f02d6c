//! What is kept running: the seam between the watchdog and the programs it looks after.

use std::io;
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::Signal;

use crate::supervisor::child::Child;
use crate::supervisor::lifecycle::Phase;

/// Why a process could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnError {
    /// A sentence that says what to do.
    pub text: String,
    /// Whether memory, processes or the like ran out.
    pub out_of_resources: bool,
}

impl SpawnError {
    /// From what the system said, and the sentence made of it.
    pub fn new(error: &io::Error, text: String) -> Self {
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

impl From<String> for SpawnError {
    fn from(text: String) -> Self {
        Self {
            text,
            out_of_resources: false,
        }
    }
}

/// The place of one process, which is started anew when it ends.
pub trait Unit: Send {
    /// What people call it: `instance 0`.
    fn name(&self) -> String;

    /// Starts its process, the `process`-th (from 1). News of it reach the watchdog under this number.
    ///
    /// # Errors
    /// See [`SpawnError`].
    fn start(&mut self, process: u64) -> Result<Child, SpawnError>;

    /// Its process has ended: `how` by what the system says.
    fn ended(&mut self, how: String) -> Ended {
        Ended {
            reason: how,
            was_useful: false,
        }
    }

    /// Its process number `process` came to a new phase: tells those who send requests. `failures`: in a row.
    fn publish(&mut self, process: u64, phase: &Phase, since: Instant, failures: u32);

    /// Whether others like it do its work, so that its failing to start ends nothing.
    fn can_be_spared(&self) -> bool {
        false
    }

    /// When to look at it next, if it wants to be looked at.
    fn next_check(&self) -> Option<Instant> {
        None
    }

    /// Looks at it: a reason to kill its process, if there is one.
    fn check(&mut self, _now: Instant) -> Option<String> {
        None
    }

    /// Asks its process to end.
    fn stop(&mut self, child: &Child) {
        child.signal(Signal::TERM);
    }

    /// Whether the last lines of its process say that memory or the like ran out.
    fn ran_out_of_resources(&self, _output: &str) -> bool {
        false
    }

    /// What to say when it never came up.
    fn refusal(&self, reason: &str) -> String;
}

/// The end of a process.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why, for people.
    pub reason: String,
    /// Whether it is known to have done its work before.
    pub was_useful: bool,
}
