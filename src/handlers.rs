//! Users' Python handlers. This version finds them only to refuse: serving an archive without its handler would
//! answer something else than its author meant, silently.

use std::path::{Path, PathBuf};

use crate::error::StartError;

/// The handler script of a model directory, if it has one.
pub fn find(model_dir: &Path, program: &str) -> Option<PathBuf> {
    let script = model_dir.join("code").join(program);
    script.is_file().then_some(script)
}

/// Refuses to start when there is a handler.
///
/// # Errors
/// When [`find`] finds one.
pub fn refuse(model_dir: &Path, program: &str) -> Result<(), StartError> {
    match find(model_dir, program) {
        Some(script) => Err(StartError::failed(format!(
            "{} exists, but this version does not run Python handlers yet; remove it to serve the model without it",
            script.display()
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_is_refused_and_other_code_is_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("code")).unwrap();
        std::fs::write(dir.path().join("code/notes.txt"), "").unwrap();
        refuse(dir.path(), "inference.py").unwrap();
        std::fs::write(dir.path().join("code/inference.py"), "").unwrap();
        let error = refuse(dir.path(), "inference.py").unwrap_err().to_string();
        assert!(error.contains("code/inference.py"), "{error}");
        refuse(dir.path(), "other.py").unwrap();
    }
}
