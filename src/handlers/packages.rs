//! Installs the packages of a `requirements.txt` in the handler script's folder, with pip, before the script is loaded.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::StartError;
use crate::handlers::files;
use crate::handlers::interpreter::Interpreter;
use crate::supervisor::child::Streams;
use crate::supervisor::handle::SupervisorHandle;

/// Log target of pip's output.
pub const LOG_TARGET: &str = "pip";

/// The `requirements.txt` to install for a script in this folder `code`: the one directly in it, otherwise the one in
/// its folder `lib`, where the SageMaker SDK puts files that it is told to add. `None` without any, or when `lib` holds the
/// packages. The log's lines about them begin with `prefix`.
///
/// # Errors
/// When the file or `lib` exists but cannot be used: a sentence with the path and the reason.
pub fn requirements(code: &Path, prefix: &str) -> Result<Option<PathBuf>, String> {
    let lib = code.join("lib");
    let name = "requirements.txt";
    let mut files = Vec::from([code.join(name), lib.join(name)]);
    files.retain(|path| path.symlink_metadata().is_ok());
    let content = content(&lib)?;
    if content.iter().any(|path| is_package(path)) {
        for path in &files {
            log::warn!(
                "{prefix}{} is ignored, because the folder {} contains the packages",
                path.display(),
                lib.display()
            );
        }
        return Ok(None);
    }
    if let [first, second] = files.as_slice() {
        log::warn!(
            "{prefix}{} is ignored, because there is {}",
            second.display(),
            first.display()
        );
    }
    let Some(requirements) = files.into_iter().next() else {
        let is_wheel = |path: &&PathBuf| path.extension().is_some_and(|ending| ending == "whl");
        if let Some(wheel) = content.iter().find(is_wheel) {
            log::warn!(
                "{prefix}{} has no effect, because Python does not import packages from wheels: unpack it there, or \
                 name its package in {}",
                wheel.display(),
                code.join(name).display()
            );
        }
        return Ok(None);
    };
    files::check(&requirements)?;
    log::info!(
        "{prefix}installing the packages in {}",
        requirements.display()
    );
    Ok(Some(requirements))
}

/// The paths in the folder `lib`, sorted; none if it does not exist or is a file, from which Python imports if it is a
/// zip archive.
fn content(lib: &Path) -> Result<Vec<PathBuf>, String> {
    if lib.is_file() || !files::check_folder(lib)? {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(lib).and_then(|entries| {
        let paths = entries.map(|entry| Ok(entry?.path()));
        paths.collect::<std::io::Result<Vec<_>>>()
    });
    let mut paths = entries.map_err(|e| format!("{} cannot be used: {e}", lib.display()))?;
    paths.sort();
    Ok(paths)
}

/// Whether this is something that Python imports.
fn is_package(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    let ending = path.extension().and_then(|ending| ending.to_str());
    let is_hidden = name.as_encoded_bytes().starts_with(b".");
    let is_folder = path.is_dir() && name != "__pycache__";
    !is_hidden && (is_folder || matches!(ending, Some("py" | "pyc" | "so")))
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
        let requirements = |code: &Path| requirements(code, "").unwrap();
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
