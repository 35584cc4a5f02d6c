//! Users' Python handlers: the script `code/inference.py` in a model's archive.
//!
//! A script runs in Python workers, child processes that execute `sagemaker-tfs-python`, so a call that hangs or
//! crashes costs its process but never the server. This module finds the script, its Python and its packages, watches
//! the workers, and takes requests through them. Running Python code is left to the second executable, `src/python/`.

mod abandoned_calls;
pub mod answer;
pub mod channels;
pub mod files;
pub mod interpreter;
pub mod invocation;
pub mod launch;
mod lease;
pub mod packages;
pub mod pool;
pub mod worker;

use std::path::{Path, PathBuf};

/// The folder of a handler script in a model's archive.
pub const CODE: &str = "code";

/// A handler script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Its path.
    pub path: PathBuf,
    /// The folder `code` that holds it, directly or in a subfolder.
    pub code: PathBuf,
}

/// The handler script in a model directory, if it exists. `program` is a path below the folder `code`, and may name
/// that folder itself.
///
/// # Errors
/// When `code` or the script exists but cannot be used: a sentence with the path and the reason.
pub fn find(model_dir: &Path, program: &str) -> Result<Option<Script>, String> {
    let code = model_dir.join(CODE);
    if !files::check_folder(&code).map_err(|why| format!("the folder {why}"))? {
        return Ok(None);
    }
    for name in [Path::new(program), below_code(program)] {
        let path = code.join(name);
        if files::check(&path).map_err(|why| format!("the handler script {why}"))? {
            return Ok(Some(Script { path, code }));
        }
    }
    Ok(None)
}

/// The path of a program below the folder `code`, without that folder.
pub fn below_code(program: &str) -> &Path {
    let program = Path::new(program);
    program.strip_prefix(CODE).unwrap_or(program)
}

/// The handler script of the first of these folders that has the script in its subfolder `code`.
///
/// # Errors
/// Those of [`find`].
pub fn find_in<'a>(
    folders: impl IntoIterator<Item = &'a Path>,
    program: &str,
) -> Result<Option<Script>, String> {
    for folder in folders {
        if let Some(script) = find(folder, program)? {
            return Ok(Some(script));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_handler_and_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find(dir.path(), "inference.py"), Ok(None));
        std::fs::create_dir(dir.path().join("code")).unwrap();
        std::fs::write(dir.path().join("code/notes.txt"), "").unwrap();
        assert_eq!(find(dir.path(), "inference.py"), Ok(None));
        let script = dir.path().join("code/inference.py");
        std::fs::write(&script, "").unwrap();
        let path = |program| Ok::<_, String>(find(dir.path(), program)?.map(|script| script.path));
        assert_eq!(path("inference.py"), Ok(Some(script.clone())));
        assert_eq!(path("code/inference.py"), Ok(Some(script)));
        assert_eq!(path("other.py"), Ok(None));
        assert!(path("code").unwrap_err().contains("a folder, not a file"));
    }
}
