//! The folder of a model to be loaded, as a client names it: it must hold one model, and not lead into the system's own
//! folders.

use std::path::{Path, PathBuf};

use crate::error::RequestError;
use crate::models::{Model, discover};

/// Folders that hold no models, whatever seems to be there.
const SYSTEM_FOLDERS: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Finds the model below `url`, and gives it the name it is loaded by.
///
/// # Errors
/// 404 without a model there, 400 for several, or in a folder of the system.
pub fn find_model(name: &str, url: &str) -> Result<Model, RequestError> {
    let none = || {
        let text = format!("Could not find valid base path {url} for servable {name}");
        RequestError::new(404, text)
    };
    let holds_none = || {
        let text = format!("url is {url:?}, which holds no models.");
        RequestError::bad_request(text)
    };
    let real = PathBuf::from(url).canonicalize().map_err(|_| none())?;
    if is_of_the_system(&real) {
        return Err(holds_none());
    }
    let models = discover(Path::new(url)).map_err(|e| {
        log::warn!("model {name}: {e}");
        none()
    })?;
    match models.as_slice() {
        // Links inside the archive may lead anywhere.
        [model] if leads_to_the_system(&model.path) => Err(holds_none()),
        [model] => Ok(Model {
            name: name.to_owned(),
            ..model.clone()
        }),
        several => Err(RequestError::bad_request(format!(
            "url is {url:?}, which holds {} models; a model is loaded by itself.",
            several.len()
        ))),
    }
}

/// Whether a path is below a folder of the system, or above one.
fn is_of_the_system(real: &Path) -> bool {
    let mut folders = SYSTEM_FOLDERS.iter().map(Path::new);
    folders.any(|folder| real.starts_with(folder) || folder.starts_with(real))
}

/// Whether a model's folder, or something in it such as a version, is a link to a folder of the system.
fn leads_to_the_system(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let mut paths = std::iter::once(folder.to_owned()).chain(paths);
    paths.any(|path| {
        path.canonicalize()
            .is_ok_and(|real| is_of_the_system(&real))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_must_lead_to_one_model() {
        let temp = tempfile::tempdir().unwrap();
        let url = temp.path().to_str().unwrap();
        assert_eq!(find_model("n", url).unwrap_err().status, 404);
        let add = |folder: &str| {
            let folder = temp.path().join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("saved_model.pb"), "").unwrap();
        };
        add("export/Servo/1");
        let model = find_model("n", url).unwrap();
        assert_eq!((model.name.as_str(), &model.versions), ("n", &vec![1]));
        add("other/1");
        assert_eq!(find_model("n", url).unwrap_err().status, 400);
        assert_eq!(find_model("n", "/proc/self").unwrap_err().status, 400);
        assert_eq!(find_model("n", "/no/such").unwrap_err().status, 404);
    }
}
