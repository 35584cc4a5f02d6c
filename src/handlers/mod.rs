//! Users' Python handlers: the script `code/inference.py` in a model's archive.
//!
//! A script runs in Python workers, child processes that execute `sagemaker-tfs-python`, so a call that hangs or
//! crashes costs its process but never the server. This module finds the script, its Python and its packages, watches
//! the workers, and takes requests through them. Running Python code is left to the second executable, `src/python/`.

mod abandoned_calls;
pub mod answer;
pub mod channels;
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
pub fn find(model_dir: &Path, program: &str) -> Option<Script> {
    let code = model_dir.join(CODE);
    let mut names = [Path::new(program), below_code(program)].into_iter();
    let path = names.find_map(|name| Some(code.join(name)).filter(|path| path.is_file()))?;
    Some(Script { path, code })
}

/// The path of a program below the folder `code`, without that folder.
pub fn below_code(program: &str) -> &Path {
    let program = Path::new(program);
    program.strip_prefix(CODE).unwrap_or(program)
}

/// The handler script of the first of these folders that has the script in its subfolder `code`.
pub fn find_in<'a>(folders: impl IntoIterator<Item = &'a Path>, program: &str) -> Option<Script> {
    folders.into_iter().find_map(|folder| find(folder, program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_handler_and_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("code")).unwrap();
        std::fs::write(dir.path().join("code/notes.txt"), "").unwrap();
        assert_eq!(find(dir.path(), "inference.py"), None);
        let script = dir.path().join("code/inference.py");
        std::fs::write(&script, "").unwrap();
        let path = |program| find(dir.path(), program).map(|script| script.path);
        assert_eq!(path("inference.py"), Some(script.clone()));
        assert_eq!(path("code/inference.py"), Some(script));
        assert_eq!(path("other.py"), None);
        assert_eq!(path("code"), None);
    }
}
