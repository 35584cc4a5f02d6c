//! Decides which models a directory holds: a SavedModel in a folder whose name is a version number is a version of the
//! model that the folder above it is named after.
//!
//! What cannot be served is left out with a warning if something else can. docs/GUIDE.md has the rules with examples.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::error::StartError;
use crate::models::formats::{Mistaken, SAVED_MODELS};
use crate::models::names::Names;
use crate::models::remarks::{self, shortened};
use crate::models::search::{MAX_LISTED, Search};
use crate::tfs::model::Model;

/// What [`discover`] found.
#[derive(Debug)]
pub struct Found {
    /// The models, sorted by the names of their folders. At least one.
    pub models: Vec<Model>,
    /// Everything that the search noted.
    pub search: Search,
    /// What is not served, and why: sentences for the log.
    pub left_out: Vec<String>,
}

/// Finds all models below `dir`, in a search that ends at `deadline`.
///
/// # Errors
/// When there is no model that can be served, or two models have the same name or two folders the same version, or the
/// directory cannot be read.
pub fn discover(dir: &Path, deadline: Option<Instant>) -> Result<Found, StartError> {
    // Does not resolve links, because the model is named after the link. A path without a name (`..`) must be resolved.
    let absolute = match std::path::absolute(dir) {
        Ok(path) if path.file_name().is_some() && path.is_dir() => Ok(path),
        _ => dir.canonicalize(),
    };
    let unreadable = |e| {
        let dir = dir.display();
        StartError::failed(format!("cannot read the model directory {dir}: {e}"))
    };
    let dir = &absolute.map_err(unreadable)?;
    let search = Search::of(dir, deadline).map_err(unreadable)?;

    let mut problems = Vec::new();
    let mut folders = Vec::new();
    for (path, versions) in &search.versions {
        let numbers = version_numbers(path, versions, &mut problems)?;
        if !numbers.is_empty() {
            folders.push((path.clone(), numbers, false));
        }
    }
    if search.versions.is_empty() {
        match search.lone.as_slice() {
            [] => {}
            [path] => folders.push((path.clone(), vec![1], true)),
            several => return Err(StartError::failed(several_lone(dir, several))),
        }
    }
    let models = named(folders, &mut problems)?;
    if models.is_empty() {
        return Err(nothing_found(dir, &search, &problems));
    }
    let left_out = remarks::about_models(&search, &models, problems);
    Ok(Found {
        models,
        search,
        left_out,
    })
}

/// A folder of a model, its versions, and whether it is lone.
type Folder = (PathBuf, Vec<u64>, bool);

/// Names the models after their folders. Notes a problem for a folder that cannot give a name.
fn named(folders: Vec<Folder>, problems: &mut Vec<String>) -> Result<Vec<Model>, StartError> {
    let mut by_name: BTreeMap<String, Folder> = BTreeMap::new();
    for folder in folders {
        let Some(name) = folder.0.file_name().and_then(|name| name.to_str()) else {
            problems.push(format!(
                "{:?} is not served: the name of the folder is not valid UTF-8; rename it",
                folder.0
            ));
            continue;
        };
        if let Some((other, ..)) = by_name.get(name) {
            return Err(StartError::failed(format!(
                "two models are named {name:?}: {} and {}; rename one of the folders",
                other.display(),
                folder.0.display()
            )));
        }
        by_name.insert(name.to_owned(), folder);
    }
    let mut names = Names::new(by_name.keys().map(String::as_str));
    let models = by_name
        .into_iter()
        .map(|(folder_name, (path, versions, lone))| {
            let name = names.for_tfs(&folder_name);
            let other_name = (name != folder_name).then_some(folder_name);
            Model {
                name,
                other_name,
                path,
                versions,
                lone,
            }
        });
    Ok(models.collect())
}

fn version_numbers(
    model: &Path,
    folders: &BTreeSet<String>,
    problems: &mut Vec<String>,
) -> Result<Vec<u64>, StartError> {
    let mut numbers: BTreeMap<u64, &str> = BTreeMap::new();
    for folder in folders {
        // TFS stores a version number in a signed 64-bit integer.
        let number = folder.parse().ok().filter(|&n| n <= i64::MAX as u64);
        let Some(number) = number else {
            problems.push(format!(
                "{} is not served: its version number is larger than TensorFlow Serving supports ({})",
                model.join(folder).display(),
                i64::MAX
            ));
            continue;
        };
        if let Some(other) = numbers.insert(number, folder) {
            return Err(StartError::failed(format!(
                "the folders {other} and {folder} in {} are the same version, {number}; remove one",
                model.display()
            )));
        }
    }
    Ok(numbers.into_keys().collect())
}

fn several_lone(dir: &Path, folders: &[PathBuf]) -> String {
    format!(
        "several SavedModels below {}, but none in a version folder: {}; move each to <model name>/<version number>/",
        dir.display(),
        list(folders)
    )
}

fn nothing_found(dir: &Path, search: &Search, problems: &[String]) -> StartError {
    let seen = &search.seen;
    let what_is_there = if seen.is_empty() {
        "it is empty".to_owned()
    } else {
        let more = if seen.len() == MAX_LISTED {
            ", ..."
        } else {
            ""
        };
        format!("it contains {}{more}", list(seen))
    };
    let mut text = format!(
        "no model found in {}: {what_is_there}. Expected: <model name>/<version number>/{}, for example {}",
        dir.display(),
        SAVED_MODELS[0],
        dir.join("my_model/1").join(SAVED_MODELS[0]).display()
    );
    let mut all = Vec::new();
    let skipped = search.skipped.iter();
    // First, because the limit of files may be the reason.
    all.extend(skipped.map(|why| format!("not searched: {why}")));
    all.extend(problems.iter().cloned());
    all.extend(remarks::about_nested(search));
    all.extend(Mistaken::sentences(search.mistaken.iter()));
    for sentence in shortened(all, search.is_cut) {
        text += &format!(". {sentence}");
    }
    StartError::failed(text)
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
    paths.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A directory named `model` with an empty `saved_model.pb` in each of these folders.
    fn dir_with(folders: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap().join("model");
        fs::create_dir(&dir).unwrap();
        for folder in folders {
            fs::create_dir_all(dir.join(folder)).unwrap();
            fs::write(dir.join(folder).join(SAVED_MODELS[0]), "").unwrap();
        }
        (temp, dir)
    }

    /// A model's name, path below the model directory, versions, and whether it is lone.
    type Found = (String, String, Vec<u64>, bool);

    fn found(folders: &[&str]) -> Result<Vec<Found>, String> {
        let (_temp, dir) = dir_with(folders);
        let found = discover(&dir, None).map_err(|e| e.to_string())?;
        Ok(found
            .models
            .into_iter()
            .map(|m| {
                let path = m.path.strip_prefix(&dir).unwrap().display().to_string();
                (m.name, path, m.versions, m.lone)
            })
            .collect())
    }

    fn one(name: &str, path: &str, versions: &[u64], lone: bool) -> Vec<Found> {
        vec![(name.into(), path.into(), versions.into(), lone)]
    }

    #[test]
    fn finds_a_version_in_the_model_directory_itself() {
        assert_eq!(
            found(&["12345"]).unwrap(),
            one("model", "", &[12345], false)
        );
    }

    #[test]
    fn finds_the_layout_of_older_sdks() {
        assert_eq!(
            found(&["export/Servo/1"]).unwrap(),
            one("Servo", "export/Servo", &[1], false)
        );
    }

    #[test]
    fn sorts_versions_by_number_and_ignores_leading_zeros() {
        assert_eq!(
            found(&["m/10", "m/9", "m/0007"]).unwrap(),
            one("m", "m", &[7, 9, 10], false)
        );
    }

    #[test]
    fn sorts_models_by_name() {
        let names: Vec<_> = found(&["b/1", "a/x/1", "c/2"])
            .unwrap()
            .into_iter()
            .map(|m| m.0)
            .collect();
        assert_eq!(names, ["b", "c", "x"]);
    }

    #[test]
    fn ignores_hidden_folders() {
        assert!(found(&[".cache/1"]).unwrap_err().contains("no model found"));
        assert_eq!(
            found(&["m/1", "m/.2", ".x/3"]).unwrap(),
            one("m", "m", &[1], false)
        );
    }

    #[test]
    fn serves_a_lone_saved_model_as_version_1() {
        assert_eq!(found(&[""]).unwrap(), one("model", "", &[1], true));
        assert_eq!(
            found(&["export/net"]).unwrap(),
            one("net", "export/net", &[1], true)
        );
    }

    #[test]
    fn ignores_a_lone_saved_model_if_there_are_versions() {
        assert_eq!(found(&["", "m/1"]).unwrap(), one("m", "m", &[1], false));
    }

    #[test]
    fn refuses_several_lone_saved_models() {
        assert!(
            found(&["a", "b"])
                .unwrap_err()
                .contains("several SavedModels")
        );
    }

    #[test]
    fn refuses_two_models_with_one_name_and_names_both_folders() {
        let error = found(&["a/net/1", "b/net/1"]).unwrap_err();
        assert!(
            error.contains("/a/net") && error.contains("/b/net"),
            "{error}"
        );
    }

    #[test]
    fn refuses_two_folders_of_one_version_and_names_both() {
        let error = found(&["m/1", "m/01"]).unwrap_err();
        assert!(error.contains("folders 01 and 1"), "{error}");
    }

    #[test]
    fn leaves_out_versions_that_tensorflow_serving_cannot_serve() {
        assert!(found(&["m/9223372036854775807"]).is_ok());
        let error = found(&["m/9223372036854775808"]).unwrap_err();
        assert!(error.contains("larger than TensorFlow Serving"), "{error}");
        assert_eq!(
            found(&["m/9223372036854775808", "m/2", "n/99999999999999999999"]).unwrap(),
            one("m", "m", &[2], false)
        );
    }

    #[test]
    fn serves_folders_of_any_name() {
        assert_eq!(found(&["my model/1"]).unwrap()[0].0, "my_model");
        assert_eq!(found(&["_export/1"]).unwrap()[0].0, "_export");
        let (_temp, dir) = dir_with(&["\u{e9}t\u{e9}/1"]);
        let model = &discover(&dir, None).unwrap().models[0];
        assert!(model.is_named("\u{e9}t\u{e9}") && model.is_named("_t_"));
    }

    #[test]
    fn a_folder_whose_name_is_not_utf8_is_left_out() {
        use std::os::unix::ffi::OsStrExt;
        let (_temp, dir) = dir_with(&["good/1"]);
        let bad = dir.join(std::ffi::OsStr::from_bytes(b"bad\xff"));
        fs::create_dir_all(bad.join("1")).unwrap();
        fs::write(bad.join("1/saved_model.pb"), "").unwrap();
        assert_eq!(discover(&dir, None).unwrap().models.len(), 1);
        fs::remove_dir_all(dir.join("good")).unwrap();
        let error = discover(&dir, None).unwrap_err().to_string();
        assert!(error.contains("UTF-8"), "{error}");
    }

    #[test]
    fn a_saved_model_may_be_text_or_in_chunks() {
        let (_temp, dir) = dir_with(&[]);
        for (version, name) in [("1", "saved_model.pbtxt"), ("2", "saved_model.cpb")] {
            fs::create_dir_all(dir.join("m").join(version)).unwrap();
            fs::write(dir.join("m").join(version).join(name), "").unwrap();
        }
        assert_eq!(discover(&dir, None).unwrap().models[0].versions, [1, 2]);
    }

    #[test]
    fn an_error_without_models_says_what_is_there_and_what_is_expected() {
        let (_temp, dir) = dir_with(&[]);
        assert!(
            discover(&dir, None)
                .unwrap_err()
                .to_string()
                .contains("it is empty")
        );
        fs::create_dir(dir.join("v1")).unwrap();
        fs::write(dir.join("v1/model.h5"), "").unwrap();
        let error = discover(&dir, None).unwrap_err().to_string();
        assert!(
            error.contains("v1/model.h5") && error.contains("my_model/1/saved_model.pb"),
            "{error}"
        );
        let error = discover(&dir.join("absent"), None).unwrap_err().to_string();
        assert!(error.contains("cannot read the model directory"), "{error}");
    }

    #[test]
    fn a_linked_model_directory_keeps_the_name_of_the_link() {
        let (_temp, dir) = dir_with(&["1"]);
        let link = dir.with_file_name("served");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        assert_eq!(discover(&link, None).unwrap().models[0].name, "served");
        assert_eq!(
            discover(&dir.join("1/.."), None).unwrap().models[0].name,
            "model"
        );
    }

    #[test]
    fn follows_links_but_not_in_a_circle() {
        let (_temp, dir) = dir_with(&["real/1"]);
        std::os::unix::fs::symlink(dir.join("real"), dir.join("linked")).unwrap();
        let names: Vec<_> = discover(&dir, None)
            .unwrap()
            .models
            .into_iter()
            .map(|m| m.name)
            .collect();
        assert_eq!(names, ["linked", "real"]);
        fs::remove_file(dir.join("linked")).unwrap();
        std::os::unix::fs::symlink(&dir, dir.join("loop")).unwrap();
        assert_eq!(discover(&dir, None).unwrap().models.len(), 1);
    }
}
