//! Responses of S3 and similar stores: no key leads out of the folder that is being filled.
//!
//! Input: the prefix up to the first newline; a response's body, which is a list of keys or an error.

use std::path::{Component, Path};

use sagemaker_tfs::s3::bucket::{MAX_SHOWN, explanation, read_page, relative_path};

pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (prefix, body) = text.split_once('\n').unwrap_or((&text, ""));

    let shown = explanation(body);
    assert!(shown.chars().count() <= MAX_SHOWN && !shown.contains(['\n', '\r']));

    // If the body is not a list, its lines are the keys.
    let lines = || body.lines().map(str::to_owned).collect();
    let keys: Vec<String> = read_page(body).map_or_else(|_| lines(), |(keys, _)| keys);
    for key in &keys {
        let Ok(Some(path)) = relative_path(prefix, key) else {
            continue;
        };
        let mut parts = path.components();
        assert!(
            parts.all(|part| matches!(part, Component::Normal(_))),
            "{path:?}"
        );
        let folder = Path::new("/folder");
        assert!(folder.join(&path).starts_with(folder) && !path.as_os_str().is_empty());
        let name = path.file_name().and_then(|name| name.to_str());
        assert!(name.is_some_and(|name| key.ends_with(name) || key.contains(name)));
    }
}
