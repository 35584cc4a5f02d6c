//! Users' Python handlers: `code/inference.py` beside a model.
//!
//! Each runs in processes of its own, `sagemaker-tfs-python`: a call that hangs or crashes costs its process and
//! never the server. This module finds the script, keeps the workers and takes requests through them.

mod abandoned_calls;
pub mod channels;
pub mod interpreter;
pub mod invocation;
pub mod launch;
mod lease;
pub mod packages;
pub mod pool;
pub mod worker;

use std::path::{Path, PathBuf};

/// The handler script of a model directory, if it has one.
pub fn find(model_dir: &Path, program: &str) -> Option<PathBuf> {
    let script = model_dir.join("code").join(program);
    script.is_file().then_some(script)
}

/// The first of these folders that has the handler script in its folder `code`.
pub fn find_in<'a>(folders: impl IntoIterator<Item = &'a Path>, program: &str) -> Option<PathBuf> {
    folders.into_iter().find_map(|folder| find(folder, program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_is_found_and_other_code_is_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("code")).unwrap();
        std::fs::write(dir.path().join("code/notes.txt"), "").unwrap();
        assert_eq!(find(dir.path(), "inference.py"), None);
        let script = dir.path().join("code/inference.py");
        std::fs::write(&script, "").unwrap();
        assert_eq!(find(dir.path(), "inference.py"), Some(script));
        assert_eq!(find(dir.path(), "other.py"), None);
    }
}
