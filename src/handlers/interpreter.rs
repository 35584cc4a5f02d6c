//! Finding the Python that handlers run in: `python3` on PATH, as a person who types it would get it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::error::StartError;
use crate::supervise::child::spawn;

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
    /// When there is none that works; `script` is what needs it.
    pub fn find(script: &Path) -> Result<Self, StartError> {
        let mut question = Self::question();
        question
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = spawn(&mut question, &[])
            .and_then(Child::wait_with_output)
            .map_err(|e| match e.kind() {
                ErrorKind::NotFound => StartError::failed(format!(
                    "{} needs {NAME}, which is not found on PATH; install Python, or use an image with Python",
                    script.display()
                )),
                _ => StartError::failed(format!("cannot start {NAME}: {e}")),
            })?;
        let text = String::from_utf8_lossy(&output.stdout);
        match Self::parse(&text) {
            Some(interpreter) if output.status.success() => Ok(interpreter),
            _ => Err(StartError::failed(format!(
                "{NAME} on PATH does not work ({}): {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim_end()
            ))),
        }
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
