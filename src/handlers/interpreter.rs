//! Finding the Python that handlers run in: `python3` on PATH, as a person who types it would get it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::StartError;
use crate::supervisor::child::Streams;
use crate::supervisor::handle::{NOT_FOUND, SupervisorHandle};

/// A Python.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    /// `sys.executable`: in a virtual environment that environment's.
    pub executable: PathBuf,
    /// Its version, such as `3.11.7`.
    pub version: String,
    /// `sys.prefix`: where its packages are.
    pub prefix: PathBuf,
}

const NAME: &str = "python3";
const QUESTION: &str = "import sys; print(sys.executable); print('%d.%d.%d' % sys.version_info[:3]); print(sys.prefix)";

impl Interpreter {
    /// Asks `python3` what it is.
    ///
    /// # Errors
    /// When there is none that works; `script` is what needs it. [`StartError::Stopped`] when the server stops.
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

    /// The command that asks `python3` what it is.
    pub fn question() -> Command {
        let mut command = Command::new(NAME);
        command.args(["-c", QUESTION]);
        command
    }

    /// From the answer.
    pub fn parse(answer: &str) -> Option<Self> {
        // What is installed may print something at Python's start.
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
