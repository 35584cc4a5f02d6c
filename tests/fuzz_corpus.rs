//! Runs the checks of the fuzz targets on every input in `fuzz/corpus` and `fuzz/findings`.
//!
//! This needs neither cargo-fuzz nor a nightly compiler. `tests/integration/http/malformed_requests.rs` also sends
//! `fuzz/corpus/http` through a socket.

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
            // The test harness shows the message of the panic.
            if catch_unwind(|| check(&input)).is_err() {
                failed.push(path);
            }
        }
    }
    assert!(failed.is_empty(), "inputs that fail: {failed:#?}");
}

/// No test would read a folder with a wrong name.
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

/// The entries of a folder, sorted by name; none if the folder does not exist.
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
