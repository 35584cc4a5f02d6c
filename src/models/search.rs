//! Walks through a model directory once, and notes what matters there: versions of models, folders for handler scripts,
//! and files that people take for models. What follows from it is left to `discovery.rs` and `remarks.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use crate::models::formats::Mistaken;

/// The files that make a folder a SavedModel. TensorFlow writes the first one; the second one is its text, and the
/// third one, with parts in other files, exists from TensorFlow 2.15 on (`SaveOptions.experimental_image_format`).
pub const SAVED_MODELS: [&str; 3] = ["saved_model.pb", "saved_model.pbtxt", "saved_model.cpb"];
/// The folder for handler scripts.
pub const CODE: &str = "code";
/// Where TensorFlow keeps the numbers of a SavedModel.
const VARIABLES: &str = "variables";
/// The deepest level of folders that we search, so that circular links cannot loop forever.
const MAX_DEPTH: usize = 20;
/// The most files and folders that we look at: some seconds of work, and far more than any archive needs.
const MAX_ENTRIES: usize = 1_000_000;
/// The most paths that the message about a directory without models lists.
pub const MAX_LISTED: usize = 30;
/// The most paths of each kind that are kept for warnings.
const MAX_NOTED: usize = 1000;

/// What is in a model directory.
#[derive(Debug, Default)]
pub struct Search {
    /// The directory that was searched.
    pub root: PathBuf,
    /// The names of the version folders, by model folder.
    pub versions: BTreeMap<PathBuf, BTreeSet<String>>,
    /// SavedModels in folders whose names are not version numbers.
    pub lone: Vec<PathBuf>,
    /// Folders named like versions that are no SavedModels.
    pub numbered: Vec<PathBuf>,
    /// The first paths that we saw, for the message when there is no model.
    pub seen: Vec<PathBuf>,
    /// Folders named `code`, in whatever case.
    pub code: Vec<PathBuf>,
    /// Python files and `requirements.txt` outside of these folders.
    pub loose: Vec<PathBuf>,
    /// Files and folders that people take for models.
    pub mistaken: Vec<Mistaken>,
    /// Why parts were not searched.
    pub skipped: Vec<String>,
    entries: usize,
}

/// Where a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Neither of the two below.
    Open,
    /// Below a SavedModel, where TensorFlow keeps what it likes.
    InModel,
    /// Below a folder `code`, where a script keeps what it likes.
    InCode,
}

impl Search {
    /// Searches `dir`.
    ///
    /// # Errors
    /// The system's, when `dir` itself cannot be read.
    pub fn of(dir: &Path) -> std::io::Result<Self> {
        let mut search = Self {
            root: dir.to_path_buf(),
            ..Self::default()
        };
        search.visit(dir, 0, Place::Open)?;
        Ok(search)
    }

    fn visit(&mut self, dir: &Path, depth: usize, mut place: Place) -> std::io::Result<()> {
        let entries = std::fs::read_dir(dir)?.take(MAX_ENTRIES + 1);
        let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
        // What macOS adds to archives: `._saved_model.pb` beside `saved_model.pb`.
        entries.retain(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"._"));
        entries.sort_by_key(DirEntry::file_name);
        let mut folders = Vec::new();
        let mut files = BTreeSet::new();
        for entry in entries {
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                let why = too_many(&entry.path());
                note(&mut self.skipped, MAX_NOTED, || why);
                break;
            }
            let path = entry.path();
            note(&mut self.seen, MAX_LISTED, || path.clone());
            if path.is_dir() {
                folders.push((entry.file_name(), path));
            } else {
                files.insert(entry.file_name());
            }
        }
        let is_model = SAVED_MODELS
            .iter()
            .any(|name| files.contains(OsStr::new(name)));
        let number = dir.file_name().and_then(|name| name.to_str());
        let number = number.filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
        match (dir.parent(), number) {
            (Some(model), Some(number)) if is_model => {
                let versions = self.versions.entry(model.to_path_buf()).or_default();
                versions.insert(number.to_owned());
            }
            _ if is_model => self.lone.push(dir.to_path_buf()),
            (_, Some(_)) if place == Place::Open => {
                note(&mut self.numbered, MAX_NOTED, || dir.to_path_buf());
            }
            _ => {}
        }
        if place == Place::Open {
            let names = files.iter().filter_map(|name| name.to_str());
            self.note_files(dir, names, is_model);
            let has_variables = folders.iter().any(|(name, _)| name == VARIABLES);
            if has_variables && !is_model {
                let mistaken = Mistaken::variables(&dir.join(VARIABLES));
                note(&mut self.mistaken, MAX_NOTED, || mistaken);
            }
            if is_model {
                place = Place::InModel;
            }
        }
        for (name, path) in folders {
            if !name.as_encoded_bytes().starts_with(b".") {
                self.enter(dir, &path, depth, place);
            }
        }
        Ok(())
    }

    /// Visits a folder in `dir`, unless a limit is reached.
    fn enter(&mut self, dir: &Path, path: &Path, depth: usize, mut place: Place) {
        if place == Place::Open && path.ends_with(VARIABLES) {
            place = Place::InModel;
        }
        let is_code = path
            .file_name()
            .is_some_and(|n| n.eq_ignore_ascii_case(CODE));
        if is_code && place != Place::InCode {
            note(&mut self.code, MAX_NOTED, || path.to_path_buf());
            place = Place::InCode;
        }
        let skipped = if self.entries > MAX_ENTRIES {
            too_many(path)
        } else if depth == MAX_DEPTH {
            format!(
                "{}: it is more than {MAX_DEPTH} folders deep",
                path.display()
            )
        } else if leads_upwards(dir, path) {
            return;
        } else {
            match self.visit(path, depth + 1, place) {
                Ok(()) => return,
                Err(e) => format!("{}: {e}", path.display()),
            }
        };
        note(&mut self.skipped, MAX_NOTED, || skipped);
    }

    fn note_files<'a>(&mut self, dir: &Path, names: impl Iterator<Item = &'a str>, is_model: bool) {
        for name in names {
            let is_script = Path::new(name).extension().is_some_and(|e| e == "py");
            if is_script || name == "requirements.txt" {
                note(&mut self.loose, MAX_NOTED, || dir.join(name));
            } else if !is_model && let Some(mistaken) = Mistaken::file(dir, name) {
                note(&mut self.mistaken, MAX_NOTED, || mistaken);
            }
        }
    }
}

fn too_many(path: &Path) -> String {
    format!(
        "from {} on: there are more than {MAX_ENTRIES} files",
        path.display()
    )
}

/// Adds an item unless there are `most` already.
fn note<T>(items: &mut Vec<T>, most: usize, item: impl FnOnce() -> T) {
    if items.len() < most {
        items.push(item());
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
