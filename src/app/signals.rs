//! Chooses the signals that the program handles. The supervisor decides what they mean.

use std::fs;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::StartError;

/// Starts handling SIGCHLD and the signals that end the program.
///
/// # Errors
/// When a handler cannot be installed.
pub fn handle() -> Result<Signals, StartError> {
    let mut handled = vec![SIGCHLD, SIGTERM, SIGINT, SIGQUIT];
    // `nohup` ignores SIGHUP so that the program outlives the terminal.
    if !is_ignored(SIGHUP) {
        handled.push(SIGHUP);
    }
    Signals::new(handled).map_err(|e| StartError::failed(format!("cannot handle signals: {e}")))
}

/// Whether the parent process set this signal to be ignored before it started the program (`proc_pid_status(5)`,
/// `SigIgn`).
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}
