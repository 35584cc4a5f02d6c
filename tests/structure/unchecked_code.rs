//! Code that the compiler does not check is allowed in two files only. Cargo.toml denies it in all targets
//! (`unsafe_code`), but a file could allow it for itself.

use std::fs;
use std::path::{Path, PathBuf};

/// The file that starts and ends the Python interpreter, and the one that suspends coroutines.
const EXCEPTIONS: [&str; 2] = ["src/python/embed.rs", "src/wait/coroutine.rs"];
/// Roots of all targets except those with one of these files below them.
const ROOTS: [&str; 8] = [
    "build.rs",
    "src/main.rs",
    "tests/chaos/main.rs",
    "tests/convert_speed.rs",
    "tests/fake_model_server/main.rs",
    "tests/fuzz_corpus.rs",
    "tests/integration/main.rs",
    "tests/structure/main.rs",
];
const WORD: &str = concat!("un", "safe");
const LINT: &str = concat!("un", "safe_code");

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files of the package, relative to it.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("folders can be read") {
        let path = entry.expect("folders can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && !path.is_symlink() {
            if !name.starts_with('.') && name != "target" {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") {
            let relative = path
                .strip_prefix(package())
                .expect("sources are in the package");
            found.push(relative.to_owned());
        }
    }
}

/// The lines that contain or allow unchecked code. Comments may mention it.
fn offences(text: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(index, line)| {
            let code = line.split("//").next().unwrap_or_default();
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let refuses = [format!("forbid({LINT})"), format!("deny({LINT})")];
            let offends = code.split(|c| !is_word(c)).any(|word| word == WORD)
                || (code.contains(LINT) && !refuses.iter().any(|text| code.contains(text)));
            offends.then(|| format!("line {}: {line}", index + 1))
        })
        .collect()
}

#[test]
fn only_two_files_contain_unchecked_code() {
    let mut files = Vec::new();
    sources(package(), &mut files);
    assert!(files.len() > 100, "{files:?}");
    for file in files {
        let text = fs::read_to_string(package().join(&file)).expect("sources can be read");
        let found = offences(&text);
        let expected = EXCEPTIONS.iter().any(|name| file == Path::new(name));
        assert_eq!(
            !found.is_empty(),
            expected,
            "{}: {found:#?}",
            file.display()
        );
    }
}

#[test]
fn all_targets_forbid_unchecked_code() {
    let manifest = fs::read_to_string(package().join("Cargo.toml")).expect("the file can be read");
    let (_, lints) = manifest.split_once("\n[lints.rust]\n").expect("lints");
    assert!(
        lints.starts_with(&format!("{LINT} = \"deny\"\n")),
        "{lints}"
    );
    for file in ROOTS {
        let text = fs::read_to_string(package().join(file)).expect("the file can be read");
        assert!(text.contains(&format!("\n#![forbid({LINT})]\n")), "{file}");
    }
    // Every target in Cargo.toml is in the list above.
    let named = manifest.lines().filter(|line| line.starts_with("path = "));
    for line in named {
        let path = line.split('"').nth(1).expect("a path");
        let is_known =
            ROOTS.contains(&path) || ["src/python/main.rs", "src/lib.rs"].contains(&path);
        assert!(
            is_known,
            "{path} must forbid unchecked code, too: add it to ROOTS"
        );
    }
}

#[test]
fn the_check_finds_unchecked_code() {
    for text in [
        format!("let x = {WORD} {{ y() }};"),
        format!("{WORD} impl Send for X {{}}"),
        format!("#![allow({LINT})]"),
        format!("#[expect({LINT}, reason = \"\")]"),
        format!("#![cfg_attr(test, warn({LINT}))]"),
    ] {
        assert_eq!(offences(&text).len(), 1, "{text}");
    }
    for text in [
        format!("#![forbid({LINT})]"),
        format!("let x = 1; // not {WORD}"),
        format!("//! No {WORD} code."),
    ] {
        assert_eq!(offences(&text), [""; 0], "{text}");
    }
}
