//! Reaping: collects the exit status of child processes, our own and inherited ones.
//!
//! As process 1 of a container we inherit every orphan, so we wait for any child, not only for those we know.

use std::fmt;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// A signal of this number ended it.
    Signal(i32),
}

impl Exit {
    /// Whether SIGKILL ended it, which is how the kernel frees memory when it runs short.
    pub fn was_killed(self) -> bool {
        self == Self::Signal(Signal::KILL.as_raw())
    }
}

impl From<WaitStatus> for Exit {
    fn from(status: WaitStatus) -> Self {
        // We never ask for stopped or continued processes, so there are only two kinds.
        match status.exit_status() {
            Some(code) => Self::Code(code),
            None => Self::Signal(status.terminating_signal().unwrap_or_default()),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "its process exited with code {code}"),
            Self::Signal(signal) => write!(f, "its process was ended by signal {signal}"),
        }
    }
}

/// Reaps one child that has ended, if there is one.
pub fn reap_one() -> Option<(Pid, Exit)> {
    // The only error is "no children".
    let (pid, status) = rustix::process::wait(WaitOptions::NOHANG).ok().flatten()?;
    Some((pid, status.into()))
}
