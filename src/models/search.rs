//! Walks through a model directory once, and notes what matters there: versions of models, folders for handler scripts,
//! and files that people take for models. What follows from it is left to `discovery.rs` and `remarks.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::DirEntry;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::handlers::CODE;
use crate::handlers::files;
use crate::models::formats::{Mistaken, SAVED_MODELS};

/// Where TensorFlow keeps the numbers of a SavedModel.
const VARIABLES: &str = "variables";
/// The folders in a SavedModel where TensorFlow keeps parts of it. What is in there is no model of its own.
const PARTS: [&str; 4] = [VARIABLES, "assets", "assets.extra", "debug"];
/// Folders that hold no models as a rule: the numbers of a SavedModel that is lost, and what macOS adds to archives.
const DATA: [&str; 2] = [VARIABLES, "__MACOSX"];
/// The deepest level of folders that we search.
const MAX_DEPTH: usize = 20;
/// The most files and folders that we look at: less than a second of work on a local disk, and more than an archive needs.
const MAX_ENTRIES: usize = 100_000;
/// How often we visit a folder through links. Links between folders would otherwise multiply the work: each path through
/// six folders that all link to each other is another one.
const MAX_LINKED: usize = 10;
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
    /// SavedModels below a folder `code`.
    pub in_code: Vec<PathBuf>,
    /// SavedModels below other SavedModels.
    pub in_models: Vec<PathBuf>,
    /// Folders named like versions that are no SavedModels.
    pub numbered: Vec<PathBuf>,
    /// The first paths that we saw, for the message when there is no model.
    pub seen: Vec<PathBuf>,
    /// Folders named `code`, in whatever case.
    pub code: Vec<PathBuf>,
    /// Python files and `requirements.txt` outside of these folders.
    pub loose: Vec<PathBuf>,
    /// Files `inference.py` below subfolders of these folders, and in SavedModels.
    pub buried: Vec<PathBuf>,
    /// Files and folders that people take for models.
    pub mistaken: Vec<Mistaken>,
    /// Why parts were not searched; the limit of files comes first.
    pub skipped: Vec<String>,
    /// Whether one of the lists is not complete.
    pub is_cut: bool,
    entries: usize,
    /// Where the limit of files was reached.
    ended_at: Option<PathBuf>,
    /// The real folders on the path to the current one, by device and number.
    above: Vec<Folder>,
    /// How often folders were visited through links.
    linked: BTreeMap<Folder, usize>,
    deadline: Option<Instant>,
}

/// A folder's device and its number there.
type Folder = (u64, u64);

/// Where a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// None of those below.
    Open,
    /// Beside the parts of a SavedModel, in `variables` without one, or in what macOS adds: files mean nothing, but there
    /// may be models.
    Data,
    /// Below a version of a model or in the parts of a SavedModel, where TensorFlow keeps what it likes.
    InModel,
    /// Below a folder `code`, where a script keeps what it likes.
    InCode,
}

/// A folder to visit.
#[derive(Debug, Clone, Copy)]
struct Visit<'a> {
    dir: &'a Path,
    depth: usize,
    place: Place,
    /// Whether a SavedModel is a model here; otherwise it belongs to a script or another model.
    has_models: bool,
    /// Whether the path to it leads through a link.
    is_linked: bool,
}

/// What is in a folder.
#[derive(Debug, Default)]
struct Entries {
    /// The names of the files.
    files: BTreeSet<OsString>,
    /// The names of the folders, sorted, and whether each is a link.
    folders: Vec<(OsString, bool)>,
}

impl Entries {
    fn has_folder(&self, name: &OsStr) -> bool {
        self.folders.iter().any(|(folder, _)| folder == name)
    }
}

impl Search {
    /// Searches `dir` until `deadline`.
    ///
    /// # Errors
    /// The system's, when `dir` itself cannot be read; [`io::ErrorKind::TimedOut`] at the deadline.
    pub fn of(dir: &Path, deadline: Option<Instant>) -> io::Result<Self> {
        let mut search = Self {
            root: dir.to_path_buf(),
            deadline,
            ..Self::default()
        };
        let (place, is_linked) = (Place::Open, false);
        search.visit(Visit {
            dir,
            depth: 0,
            place,
            has_models: true,
            is_linked,
        })?;
        search.check_deadline()?;
        if let Some(path) = &search.ended_at {
            let path = path.display();
            let why = format!("from {path} on: there are more than {MAX_ENTRIES} files");
            search.skipped.insert(0, why);
        }
        Ok(search)
    }

    fn check_deadline(&self) -> io::Result<()> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }

    fn visit(&mut self, visit: Visit) -> io::Result<()> {
        self.check_deadline()?;
        let folder = number_of(visit.dir)?;
        let entries = self.entries(visit.dir)?;
        let is_model = self.has_saved_model(visit, &entries);
        let name = visit.dir.file_name().and_then(OsStr::to_str);
        let number = name.filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
        let mut below = visit;
        if is_model {
            self.note_model(visit, number);
        } else if number.is_some() && visit.place == Place::Open {
            let path = || visit.dir.to_path_buf();
            note(&mut self.numbered, MAX_NOTED, &mut self.is_cut, path);
        }
        self.note_files(visit, &entries, is_model);
        if is_model && visit.place != Place::InCode {
            let is_version = number.is_some();
            below.place = if is_version {
                Place::InModel
            } else {
                Place::Data
            };
            below.has_models &= !is_version;
        }
        self.above.push(folder);
        for (name, is_link) in entries.folders {
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            below.is_linked = visit.is_linked || is_link;
            let mut below = below;
            let is_part = PARTS.iter().any(|part| name == *part);
            if is_model && is_part && visit.place != Place::InCode {
                (below.place, below.has_models) = (Place::InModel, false);
            } else if DATA.iter().any(|data| name == *data) && visit.place == Place::Open {
                below.place = Place::Data;
            }
            self.enter(Visit {
                dir: &visit.dir.join(&name),
                ..below
            });
        }
        self.above.pop();
        Ok(())
    }

    fn entries(&mut self, dir: &Path) -> io::Result<Entries> {
        let entries = std::fs::read_dir(dir)?.take(MAX_ENTRIES + 1);
        let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
        // What macOS adds to archives: `._saved_model.pb` beside `saved_model.pb`.
        entries.retain(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"._"));
        entries.sort_by_key(DirEntry::file_name);
        let mut found = Entries::default();
        for entry in entries {
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                self.ended_at.get_or_insert_with(|| entry.path());
                break;
            }
            if self.seen.len() < MAX_LISTED {
                self.seen.push(entry.path());
            }
            // Known without access to the entry, unless it is a link.
            let kind = entry.file_type()?;
            if kind.is_dir() || kind.is_symlink() && entry.path().is_dir() {
                found.folders.push((entry.file_name(), kind.is_symlink()));
            } else {
                found.files.insert(entry.file_name());
            }
        }
        Ok(found)
    }

    /// Whether a folder is a SavedModel. Notes what has the name of its file, but is none.
    fn has_saved_model(&mut self, visit: Visit, entries: &Entries) -> bool {
        let mut is_model = false;
        for name in SAVED_MODELS.map(OsStr::new) {
            let is_there = entries.files.contains(name) || entries.has_folder(name);
            if !is_there {
                continue;
            }
            let path = visit.dir.join(name);
            match files::check(&path) {
                Ok(_) => is_model = true,
                Err(_) if !visit.has_models => {}
                Err(_) => {
                    let mistaken = || Mistaken::unusable(&path);
                    note(&mut self.mistaken, MAX_NOTED, &mut self.is_cut, mistaken);
                }
            }
        }
        is_model
    }

    fn note_model(&mut self, visit: Visit, number: Option<&str>) {
        let (dir, cut) = (visit.dir, &mut self.is_cut);
        if !visit.has_models {
            let list = match visit.place {
                Place::InCode => &mut self.in_code,
                _ => &mut self.in_models,
            };
            return note(list, MAX_NOTED, cut, || dir.to_path_buf());
        }
        match (dir.parent(), number) {
            (Some(model), Some(number)) => {
                let versions = self.versions.entry(model.to_path_buf()).or_default();
                versions.insert(number.to_owned());
            }
            _ => self.lone.push(dir.to_path_buf()),
        }
    }

    /// Notes files that people take for something that has an effect.
    fn note_files(&mut self, visit: Visit, entries: &Entries, is_model: bool) {
        let (dir, cut) = (visit.dir, &mut self.is_cut);
        let is_code = self.code.iter().any(|code| code == dir);
        for name in entries.files.iter().filter_map(|name| name.to_str()) {
            let is_script = Path::new(name).extension().is_some_and(|e| e == "py");
            let path = || dir.join(name);
            if visit.place != Place::Open {
                if name.eq_ignore_ascii_case("inference.py") && !is_code {
                    note(&mut self.buried, MAX_NOTED, cut, path);
                }
            } else if is_script || name == "requirements.txt" {
                note(&mut self.loose, MAX_NOTED, cut, path);
            } else if !is_model && let Some(mistaken) = Mistaken::file(dir, name) {
                note(&mut self.mistaken, MAX_NOTED, cut, || mistaken);
            }
        }
        let has_variables = entries.has_folder(OsStr::new(VARIABLES));
        if visit.place == Place::Open && has_variables && !is_model {
            let mistaken = || Mistaken::variables(&dir.join(VARIABLES));
            note(&mut self.mistaken, MAX_NOTED, cut, mistaken);
        }
    }

    /// Visits a folder, one level below the place that `visit` says, unless a limit is reached.
    fn enter(&mut self, mut visit: Visit) {
        let path = visit.dir;
        let is_code = path
            .file_name()
            .is_some_and(|name| name.eq_ignore_ascii_case(CODE));
        if is_code && visit.place != Place::InCode {
            note(&mut self.code, MAX_NOTED, &mut self.is_cut, || path.into());
            visit.place = Place::InCode;
            visit.has_models &= !path.ends_with(CODE);
        }
        if self.ended_at.is_some() || self.check_deadline().is_err() {
            return;
        }
        let skipped = if visit.depth == MAX_DEPTH {
            format!(
                "{}: it is more than {MAX_DEPTH} folders deep",
                path.display()
            )
        } else if visit.is_linked && !self.may_follow(path) {
            return;
        } else {
            visit.depth += 1;
            match self.visit(visit) {
                Ok(()) => return,
                Err(e) => format!("{}: {e}", path.display()),
            }
        };
        note(&mut self.skipped, MAX_NOTED, &mut self.is_cut, || skipped);
    }

    /// Whether a folder below a link is visited once more. Notes why not, unless it is on its own path.
    fn may_follow(&mut self, path: &Path) -> bool {
        if leads_to_all_files(path) {
            let why = || format!("{}: it leads to a folder of the system", path.display());
            note(&mut self.skipped, MAX_NOTED, &mut self.is_cut, why);
            return false;
        }
        // A folder that is gone, or cannot be entered, is noted by the visit.
        let Ok(folder) = number_of(path) else {
            return true;
        };
        if self.above.contains(&folder) {
            return false;
        }
        let visits = self.linked.entry(folder).or_default();
        *visits += 1;
        if *visits == MAX_LINKED + 1 {
            let why = || {
                let path = path.display();
                format!("{path}: it is reached through links in more than {MAX_LINKED} ways")
            };
            note(&mut self.skipped, MAX_NOTED, &mut self.is_cut, why);
        }
        *visits <= MAX_LINKED
    }
}

/// Whether a folder is the root, `/dev`, or in `/proc` or `/sys`: through links between processes, all files of the
/// machine are below these. Folders in `/dev`, such as `/dev/shm`, may hold models.
fn leads_to_all_files(path: &Path) -> bool {
    path.canonicalize().is_ok_and(|real| {
        real == Path::new("/")
            || real == Path::new("/dev")
            || real.starts_with("/proc")
            || real.starts_with("/sys")
    })
}

/// Adds an item unless there are `most` already; then the list `is_cut`.
fn note<T>(items: &mut Vec<T>, most: usize, is_cut: &mut bool, item: impl FnOnce() -> T) {
    if items.len() < most {
        items.push(item());
    } else {
        *is_cut = true;
    }
}

fn number_of(folder: &Path) -> io::Result<Folder> {
    let metadata = folder.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Folders `0` to `count - 1` with links from each to each.
    fn forest(count: usize) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        for from in 0..count {
            let folder = temp.path().join(format!("d{from}"));
            std::fs::create_dir(&folder).unwrap();
            for to in (0..count).filter(|to| *to != from) {
                symlink(format!("../d{to}"), folder.join(format!("l{to}"))).unwrap();
            }
        }
        temp
    }

    #[test]
    fn links_between_folders_do_not_multiply_the_work() {
        for count in [2, 3, 8, 20] {
            let temp = forest(count);
            let search = Search::of(temp.path(), None).unwrap();
            let most = count + count * (count - 1) * (MAX_LINKED + 1);
            assert!(search.entries <= most, "{count}: {}", search.entries);
            assert_eq!(search.skipped.is_empty(), count < 8, "{:?}", search.skipped);
        }
    }

    #[test]
    fn the_limit_of_files_is_the_first_reason() {
        let temp = forest(8);
        let files = temp.path().join("d0/files");
        std::fs::create_dir(&files).unwrap();
        for number in 0..MAX_ENTRIES / MAX_LINKED {
            std::fs::write(files.join(number.to_string()), "").unwrap();
        }
        let search = Search::of(temp.path(), None).unwrap();
        let reason = &search.skipped[0];
        assert!(reason.ends_with("more than 100000 files"), "{reason}");
        assert!(search.entries <= MAX_ENTRIES + 1);
    }

    #[test]
    fn a_search_ends_at_its_deadline() {
        let temp = forest(2);
        let error = Search::of(temp.path(), Some(Instant::now())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
