//! A single process: its identity, which no later process with the same id shares, its program, its age, and signals
//! that reach no other process.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::time::{ClockId, clock_gettime};

use crate::support::processes::{Process, look};

/// Process id and start.
pub type Identity = (u32, u64);

pub fn identity(process: &Process) -> Identity {
    (process.pid, process.started)
}

/// File name of the program that it runs now; `None` for a zombie.
pub fn program(process: &Process) -> Option<String> {
    let program = fs::read_link(format!("/proc/{}/exe", process.pid)).ok()?;
    Some(program.file_name()?.to_string_lossy().into_owned())
}

pub fn age(process: &Process) -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let now = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
    let ticks = rustix::param::clock_ticks_per_second();
    now.saturating_sub(Duration::from_millis(process.started * 1000 / ticks))
}

/// Returns whether the process was still there.
pub fn send(process: &Process, signal: Signal) -> bool {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    let Ok(handle) = pidfd_open(pid.expect("a process id"), PidfdFlags::empty()) else {
        return false;
    };
    // The handle keeps the process that has this id now.
    let is_it = look(process.pid).is_some_and(|now| identity(&now) == identity(process));
    is_it && pidfd_send_signal(&handle, signal).is_ok()
}
