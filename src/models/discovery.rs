//! Finds models on disk: every `saved_model.pb` below the model directory in a folder whose name is a version number.
//!
//! A model is the folder that contains version folders, and the folder's name is the model's name. docs/GUIDE.md has
//! the rules with examples.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::config::is_model_name;
use crate::error::StartError;
use crate::tfs::model::Model;

const SAVED_MODEL: &str = "saved_model.pb";
/// The deepest level of folders that we search, so that circular links cannot loop forever.
const MAX_DEPTH: usize = 20;
/// The most paths that the message about a directory without models lists.
const MAX_LISTED: usize = 30;

/// Finds all models below `dir`, sorted by name.
///
/// # Errors
/// When there is no model, two models have the same name or two folders the same version, a name cannot be used in a
/// URL, a version number is too large for TFS, or a folder cannot be read.
pub fn discover(dir: &Path) -> Result<Vec<Model>, StartError> {
    // Does not resolve links, because the model is named after the link. A path without a name (`..`) must be resolved.
    let absolute = match std::path::absolute(dir) {
        Ok(path) if path.file_name().is_some() && path.is_dir() => Ok(path),
        _ => dir.canonicalize(),
    };
    let dir = &absolute.map_err(|e| {
        StartError::failed(format!(
            "cannot read the model directory {}: {e}",
            dir.display()
        ))
    })?;
    let mut search = Search::default();
    search.visit(dir, 0)?;

    if search.versions.is_empty() {
        return match search.lone.as_slice() {
            [path] => Ok(vec![Model {
                name: model_name(path)?,
                path: path.clone(),
                versions: vec![1],
                lone: true,
            }]),
            [] => Err(nothing_found(dir, &search.seen)),
            several => Err(StartError::failed(format!(
                "several {SAVED_MODEL} files below {}, but none in a version folder: {}; move each to \
                 <model name>/<version number>/",
                dir.display(),
                list(several)
            ))),
        };
    }
    for path in &search.lone {
        log::warn!(
            "{} is not served: the name of its folder is not a version number",
            path.join(SAVED_MODEL).display()
        );
    }

    let mut by_name: BTreeMap<String, Model> = BTreeMap::new();
    for (path, versions) in search.versions {
        let model = Model {
            name: model_name(&path)?,
            versions: version_numbers(&path, &versions)?,
            path,
            lone: false,
        };
        if let Some(other) = by_name.get(&model.name) {
            return Err(StartError::failed(format!(
                "two models are named {:?}: {} and {}; rename one of the folders",
                model.name,
                other.path.display(),
                model.path.display()
            )));
        }
        by_name.insert(model.name.clone(), model);
    }
    Ok(by_name.into_values().collect())
}

#[derive(Default)]
struct Search {
    /// The names of the version folders, by model folder.
    versions: BTreeMap<PathBuf, BTreeSet<String>>,
    /// Folders with a `saved_model.pb` whose names are not version numbers.
    lone: Vec<PathBuf>,
    /// The first paths that we saw, for the message when there is no model.
    seen: Vec<PathBuf>,
}

impl Search {
    fn visit(&mut self, dir: &Path, depth: usize) -> Result<(), StartError> {
        let unreadable = |e| StartError::failed(format!("cannot read {}: {e}", dir.display()));
        let mut entries = std::fs::read_dir(dir)
            .map_err(unreadable)?
            .collect::<Result<Vec<_>, _>>()
            .map_err(unreadable)?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let (name, path) = (entry.file_name(), entry.path());
            if self.seen.len() < MAX_LISTED {
                self.seen.push(path.clone());
            }
            if path.is_dir() {
                let hidden = name.as_encoded_bytes().starts_with(b".");
                if depth < MAX_DEPTH && !hidden && !leads_upwards(dir, &path) {
                    self.visit(&path, depth + 1)?;
                }
            } else if name == SAVED_MODEL {
                self.found(dir);
            }
        }
        Ok(())
    }

    fn found(&mut self, dir: &Path) {
        match (dir.parent(), dir.file_name().and_then(|n| n.to_str())) {
            (Some(model), Some(version)) if version.bytes().all(|b| b.is_ascii_digit()) => {
                self.versions
                    .entry(model.to_path_buf())
                    .or_default()
                    .insert(version.to_owned());
            }
            _ => self.lone.push(dir.to_path_buf()),
        }
    }
}

/// Whether `path`, an entry of `dir`, is a link to `dir` or to a folder above it.
fn leads_upwards(dir: &Path, path: &Path) -> bool {
    path.is_symlink()
        && match (dir.canonicalize(), path.canonicalize()) {
            (Ok(dir), Ok(target)) => dir.starts_with(target),
            _ => false,
        }
}

fn model_name(path: &Path) -> Result<String, StartError> {
    match path.file_name().and_then(|n| n.to_str()) {
        Some(name) if is_model_name(name) => Ok(name.to_owned()),
        _ => Err(StartError::failed(format!(
            "the name of the model folder {} cannot be used in a URL; rename it so that it has only letters, digits, \
             '.', '_' and '-' and starts with a letter or digit",
            path.display()
        ))),
    }
}

fn version_numbers(model: &Path, folders: &BTreeSet<String>) -> Result<Vec<u64>, StartError> {
    let mut numbers: BTreeMap<u64, &str> = BTreeMap::new();
    for folder in folders {
        // TFS stores a version number in a signed 64-bit integer.
        let number = folder
            .parse()
            .ok()
            .filter(|&n| n <= i64::MAX as u64)
            .ok_or_else(|| {
                StartError::failed(format!(
                    "the version folder {} has a larger number than TensorFlow Serving supports ({})",
                    model.join(folder).display(),
                    i64::MAX
                ))
            })?;
        if let Some(other) = numbers.insert(number, folder) {
            return Err(StartError::failed(format!(
                "the folders {other} and {folder} in {} are the same version, {number}; remove one",
                model.display()
            )));
        }
    }
    Ok(numbers.into_keys().collect())
}

fn nothing_found(dir: &Path, seen: &[PathBuf]) -> StartError {
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
    StartError::failed(format!(
        "no model found in {}: {what_is_there}. Expected: <model name>/<version number>/{SAVED_MODEL}, for \
         example {}",
        dir.display(),
        dir.join("my_model/1").join(SAVED_MODEL).display()
    ))
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
            fs::write(dir.join(folder).join(SAVED_MODEL), "").unwrap();
        }
        (temp, dir)
    }

    /// A model's name, path below the model directory, versions, and whether it is lone.
    type Found = (String, String, Vec<u64>, bool);

    fn found(folders: &[&str]) -> Result<Vec<Found>, String> {
        let (_temp, dir) = dir_with(folders);
        let models = discover(&dir).map_err(|e| e.to_string())?;
        Ok(models
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
                .contains("several saved_model.pb")
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
    fn refuses_versions_and_names_that_tensorflow_serving_cannot_serve() {
        assert!(found(&["m/9223372036854775807"]).is_ok());
        assert!(
            found(&["m/9223372036854775808"])
                .unwrap_err()
                .contains("larger number")
        );
        assert!(found(&["my model/1"]).unwrap_err().contains("rename it"));
    }

    #[test]
    fn an_error_without_models_says_what_is_there_and_what_is_expected() {
        let (_temp, dir) = dir_with(&[]);
        assert!(
            discover(&dir)
                .unwrap_err()
                .to_string()
                .contains("it is empty")
        );
        fs::create_dir(dir.join("v1")).unwrap();
        fs::write(dir.join("v1/model.h5"), "").unwrap();
        let error = discover(&dir).unwrap_err().to_string();
        assert!(
            error.contains("v1/model.h5") && error.contains("my_model/1/saved_model.pb"),
            "{error}"
        );
        let error = discover(&dir.join("absent")).unwrap_err().to_string();
        assert!(error.contains("cannot read the model directory"), "{error}");
    }

    #[test]
    fn a_linked_model_directory_keeps_the_name_of_the_link() {
        let (_temp, dir) = dir_with(&["1"]);
        let link = dir.with_file_name("served");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        assert_eq!(discover(&link).unwrap()[0].name, "served");
        assert_eq!(discover(&dir.join("1/..")).unwrap()[0].name, "model");
    }

    #[test]
    fn follows_links_but_not_in_a_circle() {
        let (_temp, dir) = dir_with(&["real/1"]);
        std::os::unix::fs::symlink(dir.join("real"), dir.join("linked")).unwrap();
        let names: Vec<_> = discover(&dir)
            .unwrap()
            .into_iter()
            .map(|m| m.name)
            .collect();
        assert_eq!(names, ["linked", "real"]);
        fs::remove_file(dir.join("linked")).unwrap();
        std::os::unix::fs::symlink(&dir, dir.join("loop")).unwrap();
        assert_eq!(discover(&dir).unwrap().len(), 1);
    }
}
