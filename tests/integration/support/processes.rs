//! Processes seen from outside: who runs, who is whose child, who is a zombie; and signals to them.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// A process as `/proc` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    /// `Z` is a zombie.
    pub state: char,
    pub command_line: String,
}

/// All processes.
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc can be read");
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(look)
        .collect()
}

/// One process, if it exists.
pub fn look(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    Some(Process {
        pid,
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
        command_line: String::from_utf8_lossy(&command_line).replace('\0', " "),
    })
}

/// The children of a process.
pub fn children(parent: u32) -> Vec<Process> {
    let mut processes = all();
    processes.retain(|process| process.parent == parent);
    processes
}

/// Whether it runs; a zombie does not.
pub fn runs(pid: u32) -> bool {
    look(pid).is_some_and(|process| process.state != 'Z')
}

/// Sends a signal. The process may be gone.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let _ = kill_process(pid.expect("a process id"), signal);
}

/// Kills everything whose command line mentions `directory`, which is private to one test.
pub fn kill_users_of(directory: &Path) {
    let directory = directory.to_str().expect("temporary paths are UTF-8");
    for process in all() {
        if process.pid != std::process::id() && process.command_line.contains(directory) {
            signal(process.pid, Signal::KILL);
        }
    }
}
