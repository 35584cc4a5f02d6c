//! Installs the packages of a `requirements.txt` in the handler script's folder, with pip, before the script is loaded.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::StartError;
use crate::handlers::interpreter::Interpreter;
use crate::supervisor::child::Streams;
use crate::supervisor::handle::SupervisorHandle;

/// Log target of pip's output.
pub const LOG_TARGET: &str = "pip";

/// The `requirements.txt` to install for a script in this folder `code`: the one directly in it, otherwise the one in
/// its folder `lib`, where the SageMaker SDK puts files that it is told to add. `None` without any, or when `lib` holds the
/// packages.
pub fn requirements(code: &Path) -> Option<PathBuf> {
    let lib = code.join("lib");
    let name = "requirements.txt";
    let mut files = Vec::from([code.join(name), lib.join(name)]);
    files.retain(|path| path.is_file());
    if holds_packages(&lib) {
        for path in &files {
            log::warn!(
                "{} is ignored, because the folder {} contains the packages",
                path.display(),
                lib.display()
            );
        }
        return None;
    }
    if let [first, second] = files.as_slice() {
        log::warn!(
            "{} is ignored, because there is {}",
            second.display(),
            first.display()
        );
    }
    let requirements = files.into_iter().next()?;
    log::info!("installing the packages in {}", requirements.display());
    Some(requirements)
}

/// Whether Python finds something to import in this folder.
fn holds_packages(lib: &Path) -> bool {
    let entries = std::fs::read_dir(lib).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        let name = path.file_name().unwrap_or_default();
        let ending = path.extension().and_then(|ending| ending.to_str());
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        let is_package = path.is_dir() && name != "__pycache__";
        !is_hidden && (is_package || matches!(ending, Some("py" | "pyc" | "so")))
    })
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
        is_cause: Some(is_cause),
    }
}

/// Whether a line of pip's output says why it fails. After it, pip may print much else: the output of a build, hints.
fn is_cause(line: &str) -> bool {
    let line = line.trim_start();
    let words = [
        "ERROR: ",
        "error: ",
        "fatal error: ",
        "Could not fetch URL ",
        "ModuleNotFoundError: ",
    ];
    words.iter().any(|word| line.starts_with(word)) || line.contains(": fatal error: ")
}

/// Installs these packages.
///
/// # Errors
/// pip's first reasons and last lines when pip fails; [`StartError::Stopped`] when the server stops.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installs_requirements_of_lib_only_when_lib_holds_no_packages() {
        let temp = tempfile::tempdir().unwrap();
        let code = temp.path();
        let write = |name: &str| {
            let path = code.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        assert_eq!(requirements(code), None);
        write("lib/requirements.txt");
        for no_package in [
            "lib/.cache/x.py",
            "lib/__pycache__/x.pyc",
            "lib/x.whl",
            "lib/LICENSE",
        ] {
            write(no_package);
        }
        assert_eq!(requirements(code), Some(code.join("lib/requirements.txt")));
        write("requirements.txt");
        assert_eq!(requirements(code), Some(code.join("requirements.txt")));
        for package in [
            "lib/one.py",
            "lib/two.cpython-311.so",
            "lib/three/__init__.py",
        ] {
            write(package);
            assert_eq!(requirements(code), None, "{package}");
            let path = code.join(package);
            match path.parent() {
                Some(folder) if folder.ends_with("three") => std::fs::remove_dir_all(folder),
                _ => std::fs::remove_file(path),
            }
            .unwrap();
            assert!(requirements(code).is_some());
        }
    }

    #[test]
    fn finds_the_causes_in_the_output_of_pip() {
        for line in [
            "ERROR: Could not find a version that satisfies the requirement x (from versions: none)",
            "  error: subprocess-exited-with-error",
            "      x.c:1:10: fatal error: missing.h: No such file or directory",
            "      ModuleNotFoundError: No module named 'numpy'",
        ] {
            assert!(is_cause(line), "{line}");
        }
        for line in [
            "Collecting error-handling",
            "  note: This error originates from a subprocess",
        ] {
            assert!(!is_cause(line), "{line}");
        }
    }
}
