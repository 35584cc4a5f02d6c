//! Which signals the program handles. What they mean is for the supervisor to decide.

use std::fs;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::StartError;

/// Handles SIGCHLD and the signals that end the program, from now on.
///
/// # Errors
/// When the system refuses.
pub fn handle() -> Result<Signals, StartError> {
    let mut handled = vec![SIGCHLD, SIGTERM, SIGINT, SIGQUIT];
    // `nohup` has it ignored so that the program outlives the terminal.
    if !is_ignored(SIGHUP) {
        handled.push(SIGHUP);
    }
    Signals::new(handled).map_err(|e| StartError::failed(format!("cannot handle signals: {e}")))
}

/// Whether our parent had a signal ignored when it started us.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}
