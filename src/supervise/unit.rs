//! What is kept running: the seam between the watchdog and the programs it looks after.

use std::time::Instant;

use rustix::process::Signal;

use crate::supervise::child::Child;
use crate::supervise::lifecycle::{Phase, Status};

/// Number of a unit among all.
pub type UnitId = usize;

/// The place of one process, which is started anew when it ends.
pub trait Unit: Send {
    /// What people call it: `instance 0`.
    fn name(&self) -> String;

    /// Starts its process, the `process`-th (from 1). News of it reach the watchdog under this number.
    ///
    /// # Errors
    /// A sentence that says what to do.
    fn start(&mut self, process: u64) -> Result<Child, String>;

    /// Its process has ended: `how` by what the system says.
    fn ended(&mut self, how: String) -> Ended {
        Ended {
            reason: how,
            was_useful: false,
        }
    }

    /// Its process number `process` came to a new phase: tells those who send requests. `failures`: in a row.
    fn publish(&mut self, process: u64, phase: &Phase, since: Instant, failures: u32);

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

/// News of a unit from a thread that watches it.
#[derive(Debug)]
pub struct News {
    /// Which unit.
    pub unit: UnitId,
    /// Which of its processes.
    pub process: u64,
    /// How it is.
    pub status: Status,
}
