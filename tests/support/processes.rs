//! Processes as `/proc` shows them: which run, which are zombies, which are whose children; and signals to them.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit, setrlimit};

/// Limits how many files the child `pid` may have open; `None` restores the limit. Returns the previous limit.
pub fn limit_files(pid: u32, files: Option<u64>) -> Rlimit {
    let limit = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: files.or(limit.maximum),
        maximum: limit.maximum,
    };
    let pid = Pid::from_raw(pid as i32);
    prlimit(pid, Resource::Nofile, limit).expect("it is our child")
}

/// Raises this process's limit of file descriptors, because thousands of connections exceed the usual soft limit.
/// Returns the new limit; `None`: unlimited.
pub fn raise_own_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("the soft limit can be raised");
    raised.current
}

/// A process as `/proc` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    /// `Z` means a zombie.
    pub state: char,
    pub command_line: String,
    /// The start time in clock ticks since the machine's start: together with `pid` it identifies a process for good.
    pub started: u64,
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
    // The name in parentheses may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    Some(Process {
        pid,
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
        command_line: String::from_utf8_lossy(&command_line).replace('\0', " "),
        started: fields.nth(17)?.parse().ok()?,
    })
}

/// The children of a process.
pub fn children(parent: u32) -> Vec<Process> {
    let mut processes = all();
    processes.retain(|process| process.parent == parent);
    processes
}

/// Whether the process runs; a zombie does not.
pub fn runs(pid: u32) -> bool {
    look(pid).is_some_and(|process| process.state != 'Z')
}

/// Sends a signal to a process, which may be gone.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let _ = kill_process(pid.expect("a process id"), signal);
}

/// All processes that mention `directory`, which is private to one test, on their command lines or in their
/// environments, which children inherit.
pub fn users_of(directory: &Path) -> Vec<Process> {
    let directory = directory.to_str().expect("temporary paths are UTF-8");
    let mentions = |process: &Process| {
        process.command_line.contains(directory) || {
            let environment = fs::read(format!("/proc/{}/environ", process.pid));
            String::from_utf8_lossy(&environment.unwrap_or_default()).contains(directory)
        }
    };
    let mut users = all();
    users.retain(|p| p.pid != std::process::id() && p.state != 'Z' && mentions(p));
    users
}

/// Kills all processes that mention `directory`.
pub fn kill_users_of(directory: &Path) {
    for process in users_of(directory) {
        signal(process.pid, Signal::KILL);
    }
}

/// The value of a memory line of `/proc/<pid>/status`, for example `VmRSS`, in bytes.
pub fn memory(pid: u32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let found = status.lines().find_map(|l| l.strip_prefix(line));
    let digits = found.expect("the line exists").trim_start_matches(':');
    let kilobytes = digits.trim().trim_end_matches(" kB");
    kilobytes.parse::<u64>().expect("a number") * 1024
}

/// The peak of the resident memory of a child process while `run` ran, less its resident memory before, in bytes.
pub fn peak(pid: u32, run: impl FnOnce()) -> usize {
    let rest = memory(pid, "VmRSS");
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the process is our child");
    run();
    usize::try_from(memory(pid, "VmHWM").saturating_sub(rest)).expect("it fits")
}

/// The number of threads of a process.
pub fn threads(pid: u32) -> usize {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    threads.expect("the process runs").count()
}

/// Copies a program. Another process does so: if this one wrote the file, a test that forks at that moment would keep it
/// open for writing, and the system would refuse to run it.
#[track_caller]
pub fn copy_program(from: impl AsRef<std::ffi::OsStr>, to: impl AsRef<std::ffi::OsStr>) {
    let status = std::process::Command::new("cp")
        .arg("--")
        .arg(from)
        .arg(to)
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "the program cannot be copied"
    );
}
