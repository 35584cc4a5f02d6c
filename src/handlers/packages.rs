//! Installs the packages of a `requirements.txt` in the handler script's folder, with pip, before the script is loaded.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::StartError;
use crate::handlers::interpreter::Interpreter;
use crate::supervisor::child::Streams;
use crate::supervisor::handle::SupervisorHandle;

/// Log target of pip's output.
pub const LOG_TARGET: &str = "pip";

/// The `requirements.txt` to install for a script. `None` without the file, or when the folder `lib` contains the
/// packages.
pub fn requirements(script: &Path) -> Option<PathBuf> {
    let folder = script.parent()?;
    let requirements = folder.join("requirements.txt");
    if !requirements.is_file() {
        return None;
    }
    if folder.join("lib").is_dir() {
        log::warn!(
            "{} is ignored, because the folder lib next to it contains the packages",
            requirements.display()
        );
        return None;
    }
    log::info!("installing the packages in {}", requirements.display());
    Some(requirements)
}

/// The command that installs these packages.
pub fn pip(interpreter: &Interpreter, requirements: &Path) -> Command {
    let mut command = Command::new(&interpreter.executable);
    command
        .args(["-m", "pip", "install", "--disable-pip-version-check", "-r"])
        .arg(requirements);
    command
}

/// Sends pip's output to the log, with `prefix` before each line.
pub fn streams(prefix: &str) -> Streams {
    Streams::Log {
        target: LOG_TARGET,
        prefix: prefix.to_owned(),
    }
}

/// Installs these packages.
///
/// # Errors
/// pip's last lines when pip fails; [`StartError::Stopped`] when the server stops.
pub fn install(
    requirements: &Path,
    interpreter: &Interpreter,
    supervisor: &SupervisorHandle,
) -> Result<(), StartError> {
    let command = pip(interpreter, requirements);
    let end = supervisor.run_to_end(command, streams(""))?;
    end.map(drop).map_err(|failure| {
        StartError::failed(format!(
            "the packages in {} cannot be installed: pip: {}",
            requirements.display(),
            failure.text
        ))
    })
}
