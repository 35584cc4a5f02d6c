//! Checks the folder from which a client wants to load a model: it must hold exactly one model, and must not lead into
//! the system's own folders.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::error::{RequestError, clipped};
use crate::models::discovery::{Found, discover};
use crate::models::remarks;

/// System folders, in which we never look for models.
const SYSTEM_FOLDERS: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Finds the model below `url`, the only one in the result, and gives it the name under which it is loaded. The search
/// ends at `deadline`.
///
/// # Errors
/// 404 when there is no model, 400 when there are several or the folder belongs to the system.
pub fn find_model(name: &str, url: &str, deadline: Instant) -> Result<Found, RequestError> {
    let shown_url = clipped(url);
    let none = || {
        let text = format!("Could not find valid base path {shown_url} for servable {name}");
        RequestError::new(404, text)
    };
    let holds_none = || {
        let text = format!("url {shown_url:?} holds no models.");
        RequestError::bad_request(text)
    };
    let real = PathBuf::from(url).canonicalize().map_err(|_| none())?;
    // Also as it is given: `/proc/self/cwd` leads elsewhere.
    if is_of_the_system(&real) || is_of_the_system(Path::new(url)) {
        return Err(holds_none());
    }
    let mut found = discover(Path::new(url), Some(deadline)).map_err(|e| {
        remarks::warn(&format!("model {name}: "), vec![e.to_string()]);
        none()
    })?;
    match found.models.as_mut_slice() {
        // The archive may contain links to any folder.
        [model] if leads_to_the_system(&model.path) => Err(holds_none()),
        [model] => {
            name.clone_into(&mut model.name);
            model.other_name = None;
            Ok(found)
        }
        several => Err(RequestError::bad_request(format!(
            "url {shown_url:?} holds {} models; load each of them from its own folder.",
            several.len()
        ))),
    }
}

/// Whether a path is one of the system's folders, or is below or above one.
fn is_of_the_system(real: &Path) -> bool {
    let mut folders = SYSTEM_FOLDERS.iter().map(Path::new);
    folders.any(|folder| real.starts_with(folder) || folder.starts_with(real))
}

/// Whether a model's folder or an entry in it, such as a version, is a link to a folder of the system.
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
    use std::time::Duration;

    use super::*;

    #[test]
    fn accepts_a_url_with_exactly_one_model() {
        let temp = tempfile::tempdir().unwrap();
        let url = temp.path().to_str().unwrap();
        let later = Instant::now() + Duration::from_secs(60);
        let find = |name: &str, url: &str| find_model(name, url, later);
        assert_eq!(find("n", url).unwrap_err().status, 404);
        let add = |folder: &str| {
            let folder = temp.path().join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("saved_model.pb"), "").unwrap();
        };
        add("export/Servo/1");
        let model = &find("n", url).unwrap().models[0];
        assert_eq!((model.name.as_str(), &model.versions), ("n", &vec![1]));
        add("other/1");
        assert_eq!(find("n", url).unwrap_err().status, 400);
        assert_eq!(find("n", "/proc/self").unwrap_err().status, 400);
        let round_about = format!("/proc/self/root{url}/export");
        assert!(Path::new(&round_about).exists());
        assert_eq!(find("n", &round_about).unwrap_err().status, 400);
        assert_eq!(find("n", "/no/such").unwrap_err().status, 404);
    }
}
