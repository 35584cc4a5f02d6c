//! `requirements.txt` beside a handler script: installed with pip before the script is loaded.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::StartError;
use crate::handlers::interpreter::Interpreter;
use crate::supervisor::child::Streams;
use crate::supervisor::handle::SupervisorHandle;

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
/// packages.
///
/// # Errors
/// When pip fails: its last lines. [`StartError::Stopped`] when the server stops.
pub fn install(
    script: &Path,
    interpreter: &Interpreter,
    supervisor: &SupervisorHandle,
) -> Result<(), StartError> {
    let Some(requirements) = requirements(script) else {
        return Ok(());
    };
    let command = pip(interpreter, &requirements);
    let end = supervisor.run_to_end(command, streams(""))?;
    end.map(drop).map_err(|failure| {
        StartError::failed(format!(
            "the packages in {} cannot be installed: pip: {}",
            requirements.display(),
            failure.text
        ))
    })
}
