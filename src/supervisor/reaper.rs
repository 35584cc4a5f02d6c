//! Reaping: collects the exit status of child processes.
//!
//! As process 1 of a container we adopt every orphan, so we wait for any child, not only for those we started.

use std::fmt;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The process exited with this code.
    Code(i32),
    /// The signal with this number terminated the process.
    Signal(i32),
}

impl Exit {
    /// Whether SIGKILL terminated the process, which is what the kernel does when memory runs out.
    pub fn was_killed(self) -> bool {
        self == Self::Signal(Signal::KILL.as_raw())
    }
}

impl From<WaitStatus> for Exit {
    fn from(status: WaitStatus) -> Self {
        // We do not wait for stopped or continued processes, so the process has exited or been terminated.
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
            Self::Signal(signal) => write!(f, "its process was terminated by signal {signal}"),
        }
    }
}

/// Reaps one child that has ended; `None` if there is no such child.
pub fn reap_one() -> Option<(Pid, Exit)> {
    // The only error is ECHILD: there are no children.
    let (pid, status) = rustix::process::wait(WaitOptions::NOHANG).ok().flatten()?;
    Some((pid, status.into()))
}
