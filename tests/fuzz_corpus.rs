//! Replays what fuzzing has found: the checks of the fuzz targets on every input in `fuzz/corpus` and `fuzz/findings`.
//!
//! Needs neither cargo-fuzz nor a nightly compiler. `tests/integration/http/malformed_requests.rs` sends
//! `fuzz/corpus/http` through a socket, too.

#![forbid(unsafe_code)]

#[path = "../fuzz/src/lib.rs"]
mod checks;

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

#[test]
fn every_input_passes_its_check() {
    let mut failed = Vec::new();
    for (name, check) in checks::ALL {
        let corpus = entries(&folder("corpus").join(name));
        assert!(!corpus.is_empty(), "fuzz/corpus/{name} has no inputs");
        for path in corpus
            .into_iter()
            .chain(entries(&folder("findings").join(name)))
        {
            let input = fs::read(&path).expect("inputs can be read");
            // What it says is shown by the test harness.
            if catch_unwind(|| check(&input)).is_err() {
                failed.push(path);
            }
        }
    }
    assert!(failed.is_empty(), "inputs that fail: {failed:#?}");
}

/// A folder with a wrong name would never be read.
#[test]
fn targets_folders_and_checks_have_the_same_names() {
    let checks: BTreeSet<_> = checks::ALL
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let names = |folder: &str| -> BTreeSet<String> {
        let paths = entries(&self::folder(folder)).into_iter();
        let stem = |path: PathBuf| path.file_stem().map(|s| s.to_string_lossy().into_owned());
        paths.filter_map(stem).collect()
    };
    assert_eq!(names("targets"), checks);
    for inputs in ["corpus", "findings"] {
        for name in names(inputs) {
            assert!(checks.contains(&name), "fuzz/{inputs}/{name}");
        }
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(name)
}

/// What is in a folder, in the order of names; nothing when it is not there.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries
        .map(|e| e.expect("folders can be read").path())
        .collect();
    paths.sort();
    paths
}
