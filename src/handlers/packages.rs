//! `requirements.txt` beside a handler script: installed with pip before the script is loaded.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Signal, WaitOptions, waitpid};
use signal_hook::consts::SIGCHLD;
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

use crate::error::StartError;
use crate::handlers::interpreter::Interpreter;
use crate::supervise::child::{Child, Streams};
use crate::supervise::watchdog::describe_end;

/// Log target of pip's lines.
pub const LOG_TARGET: &str = "pip";

/// The list of packages to be installed for a script, if there is one.
pub fn requirements(script: &Path) -> Option<PathBuf> {
    let folder = script.parent()?;
    let requirements = folder.join("requirements.txt");
    if !requirements.is_file() {
        return None;
    }
    if folder.join("lib").is_dir() {
        log::warn!(
            "{} is ignored: the folder lib beside it has the packages",
            requirements.display()
        );
        return None;
    }
    log::info!("installing what {} lists", requirements.display());
    Some(requirements)
}

/// The command that installs them.
pub fn pip(interpreter: &Interpreter, requirements: &Path) -> Command {
    let mut command = Command::new(&interpreter.executable);
    command
        .args(["-m", "pip", "install", "--disable-pip-version-check", "-r"])
        .arg(requirements);
    command
}

/// Where its output goes, line by line with this before.
pub fn streams(prefix: &str) -> Streams {
    Streams::Log {
        target: LOG_TARGET,
        prefix: prefix.to_owned(),
    }
}

/// Installs what `requirements.txt` in the script's folder lists, unless there is a `lib` folder, which has the
/// packages. No child may be running beside: this waits for its own by way of `signals`, which have SIGCHLD.
///
/// # Errors
/// When pip fails: its last lines. [`StartError::Stopped`] when a signal comes.
pub fn install(
    script: &Path,
    interpreter: &Interpreter,
    signals: &mut Signals,
) -> Result<(), StartError> {
    let Some(requirements) = requirements(script) else {
        return Ok(());
    };
    let failed = |reason: String| {
        StartError::failed(format!(
            "the packages in {} cannot be installed: {reason}",
            requirements.display()
        ))
    };
    let command = pip(interpreter, &requirements);
    let pip = Child::start(command, &streams(""), &[]).map_err(|e| failed(e.to_string()))?;
    for signal in signals.forever() {
        if signal != SIGCHLD {
            log::info!(
                "{}: stopping while packages are installed",
                signal_name(signal).unwrap_or("signal")
            );
            pip.signal(Signal::KILL);
            let _ = waitpid(Some(pip.pid), WaitOptions::empty());
            return Err(StartError::Stopped);
        }
        let ended = waitpid(Some(pip.pid), WaitOptions::NOHANG);
        let Some((_, status)) = ended.map_err(|e| failed(e.to_string()))? else {
            continue;
        };
        pip.kill_group();
        return match status.exit_status() {
            Some(0) => Ok(()),
            _ => Err(failed(format!(
                "pip: {}; its last output:\n{}",
                describe_end(status),
                pip.last_lines()
            ))),
        };
    }
    Err(failed("signals cannot be received any more".into()))
}
