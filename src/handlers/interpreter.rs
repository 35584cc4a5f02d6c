//! Finds the Python that handlers run in: `python3` on PATH, the same that a shell would start.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::StartError;
use crate::supervisor::child::Streams;
use crate::supervisor::handle::{NOT_FOUND, SupervisorHandle};

/// An installed Python.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    /// `sys.executable`; in a virtual environment, the executable of that environment.
    pub executable: PathBuf,
    /// The version, such as `3.11.7`.
    pub version: String,
    /// `sys.prefix`, below which the packages are.
    pub prefix: PathBuf,
}

const NAME: &str = "python3";
const QUESTION: &str = "import sys; print(sys.executable); print('%d.%d.%d' % sys.version_info[:3]); print(sys.prefix)";

impl Interpreter {
    /// Runs `python3` to get its path, version and prefix. `script` is for messages.
    ///
    /// # Errors
    /// When `python3` is missing or does not work; [`StartError::Stopped`] when the server stops.
    pub fn find(script: &Path, supervisor: &SupervisorHandle) -> Result<Self, StartError> {
        let why = match supervisor.run_to_end(Self::question(), Streams::Captured)? {
            Ok(answer) => match Self::parse(&answer) {
                Some(interpreter) => return Ok(interpreter),
                None => answer,
            },
            Err(failure) if failure.text == NOT_FOUND => {
                return Err(StartError::failed(format!(
                    "{} needs {NAME}, which is {NOT_FOUND}; install Python, or use an image with Python",
                    script.display()
                )));
            }
            Err(failure) => failure.text,
        };
        Err(StartError::failed(format!(
            "{NAME} on PATH does not work: {why}"
        )))
    }

    /// The command that prints path, version and prefix of `python3`.
    pub fn question() -> Command {
        let mut command = Command::new(NAME);
        command.args(["-c", QUESTION]);
        command
    }

    /// Parses the output of the command. `None` when the output has too few lines.
    pub fn parse(answer: &str) -> Option<Self> {
        // Installed packages may print lines when Python starts, so only the last lines count.
        match answer.lines().collect::<Vec<_>>()[..] {
            [.., executable, version, prefix] => Some(Self {
                executable: executable.into(),
                version: version.into(),
                prefix: prefix.into(),
            }),
            _ => None,
        }
    }
}
