//! Tells files and folders of an archive that are missing, which is fine, from those that are there but cannot be used,
//! which must not pass for missing.

use std::fs::FileType;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::fs::{Access, access};

/// Whether there is a file at `path`.
///
/// # Errors
/// When what is there is not a regular file that this user can read: a sentence with the path and the reason.
pub fn check(path: &Path) -> Result<bool, String> {
    look(path, FileType::is_file, "file", Access::READ_OK)
}

/// Whether there is a folder at `path`.
///
/// # Errors
/// When what is there is not a folder that this user can enter: a sentence with the path and the reason.
pub fn check_folder(path: &Path) -> Result<bool, String> {
    look(path, FileType::is_dir, "folder", Access::EXEC_OK)
}

fn look(
    path: &Path,
    is_right: fn(&FileType) -> bool,
    expected: &str,
    needed: Access,
) -> Result<bool, String> {
    let wrong = |why: &str| Err(format!("{} cannot be used: {why}", path.display()));
    let entry = match path.symlink_metadata() {
        Ok(entry) => entry,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        Err(e) => return wrong(&e.to_string()),
    };
    let kind = match path.metadata() {
        Ok(target) => target.file_type(),
        Err(e) if entry.is_symlink() => return wrong(&format!("the link leads nowhere ({e})")),
        Err(e) => return wrong(&e.to_string()),
    };
    if !is_right(&kind) {
        return wrong(&format!("it is {}, not a {expected}", name(kind)));
    }
    match access(path, needed) {
        Ok(()) => Ok(true),
        Err(e) => wrong(&std::io::Error::from(e).to_string()),
    }
}

fn name(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_file() => "a file",
        _ if kind.is_dir() => "a folder",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn tells_what_is_missing_from_what_cannot_be_used() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        std::fs::write(at("file"), "").unwrap();
        symlink("file", at("link")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        symlink("circle", at("circle")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for there in ["file", "link"] {
            assert_eq!(check(&at(there)), Ok(true), "{there}");
        }
        for missing in ["missing", "missing/x", "file/x"] {
            assert_eq!(check(&at(missing)), Ok(false), "{missing}");
            assert_eq!(check_folder(&at(missing)), Ok(false), "{missing}");
        }
        for (name, why) in [
            ("", "it is a folder, not a file"),
            ("dangling", "the link leads nowhere"),
            ("circle", "the link leads nowhere"),
            ("socket", "it is a socket, not a file"),
        ] {
            let error = check(&at(name)).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(check_folder(temp.path()), Ok(true));
        assert!(
            check_folder(&at("link"))
                .unwrap_err()
                .contains("it is a file, not a folder")
        );
    }
}
