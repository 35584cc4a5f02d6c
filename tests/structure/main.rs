//! Enforces the order that ARCHITECTURE.md describes: what may import what, no circles, no file or function too long to
//! read. The checks read the text of `src/`, start no process and take a second.

#![forbid(unsafe_code)]

mod checker;
mod clock;
mod modules;
mod source;
mod unchecked_code;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use modules::Tree;

/// Every top-level module with all modules that it may import, from the lowest to the highest: a module stands below
/// all modules that import it. `main` and `python` are the two executables.
const LAYERS: &[(&str, &str)] = &[
    ("error", ""),
    ("logging", "error"),
    ("memory", ""),
    ("descriptors", ""),
    ("allocator", ""),
    ("pauses", ""),
    ("budget", "error"),
    ("wait", ""),
    ("config", "error"),
    ("http", "budget pauses wait logging error"),
    ("worker_protocol", ""),
    ("s3", "config wait"),
    ("supervisor", "allocator error"),
    ("dispatch", "wait error"),
    ("convert", "config budget error"),
    (
        "tfs",
        "dispatch convert supervisor config budget pauses wait error",
    ),
    (
        "handlers",
        "tfs dispatch convert supervisor worker_protocol config budget wait descriptors error",
    ),
    ("models", "handlers tfs supervisor config wait memory error"),
    (
        "api",
        "models handlers tfs convert http config budget wait error",
    ),
    (
        "app",
        "api models handlers tfs supervisor s3 http config wait descriptors memory logging error",
    ),
    ("cli", "config error"),
    ("main", "app cli config allocator logging error"),
    ("python", "convert worker_protocol config budget error"),
];

/// The most lines of a file without its tests, and of a function: more than that is hard to keep in mind.
const LONGEST_FILE: usize = 450;
const LONGEST_FUNCTION: usize = 70;
/// Starts the line in a file's head that says why the file is longer.
const REASON: &str = "//! Long because ";

/// Imports that break the table, and modules missing from it.
fn wrong_imports(tree: &Tree, layers: &[(&str, &str)]) -> BTreeSet<String> {
    let mut wrong = BTreeSet::new();
    let row = |name: &str| layers.iter().find(|(module, _)| *module == name);
    for (module, file) in &tree.files {
        if let Some(top) = module.first()
            && row(top).is_none()
        {
            wrong.insert(format!(
                "{}: the module `{top}` is new. Add it to LAYERS in tests/structure/main.rs, above everything that it \
                 imports, and to the picture of layers in ARCHITECTURE.md.",
                file.path
            ));
        }
    }
    for import in tree.imports() {
        let (from, to) = (&import.from[0], &import.to[0]);
        let Some((_, allowed)) = row(from) else {
            continue;
        };
        if from != to && !allowed.split(' ').any(|name| name == to) {
            wrong.insert(format!(
                "{}: `{from}` imports `{}`; it may import only: {allowed}",
                import.place,
                import.to.join("::"),
            ));
        }
    }
    wrong
}

/// Files and functions that are too long.
fn too_long(tree: &Tree) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in tree.files.values() {
        let lines = production_lines(&file.text, &file.code);
        if lines > LONGEST_FILE && !gives_reason(&file.text) {
            found.insert(format!(
                "{}: {lines} lines without its tests, more than {LONGEST_FILE}. Split it by what it owns, or say in its \
                 head `{REASON}...`.",
                file.path
            ));
        }
        for function in source::functions(&file.code) {
            if function.lines > LONGEST_FUNCTION {
                found.insert(format!(
                    "{}:{}: `fn {}` has {} lines, more than {LONGEST_FUNCTION}",
                    file.path, function.line, function.name, function.lines
                ));
            }
        }
    }
    found
}

/// Lines of a file, including comments and blank lines, that are not blanked out as tests. A comment or blank line
/// belongs to the code below it.
fn production_lines(text: &str, code: &str) -> usize {
    let mut count = 0;
    let mut waiting = 0;
    for (line, left) in text.lines().zip(code.lines()) {
        let is_comment = line.trim().is_empty() || line.trim_start().starts_with("//");
        if is_comment {
            waiting += 1;
        } else if left.trim().is_empty() {
            waiting = 0;
        } else {
            count += waiting + 1;
            waiting = 0;
        }
    }
    count
}

fn gives_reason(text: &str) -> bool {
    let mut head = text.lines().take_while(|line| line.starts_with("//!"));
    head.any(|line| line.strip_prefix(REASON).is_some_and(|why| !why.is_empty()))
}

/// All sources in `src/`.
fn sources() -> Tree {
    fn read(folder: &Path, below: &str, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).expect("folders can be read") {
            let path = entry.expect("folders can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let name = format!("{below}{name}");
            if path.is_dir() {
                read(&path, &format!("{name}/"), found);
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).expect("sources can be read");
                found.push((name, text));
            }
        }
    }
    let mut found = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    read(&root, "", &mut found);
    assert!(found.len() > 50, "{} files", found.len());
    Tree::new(found)
}

#[track_caller]
fn assert_none(what: &str, found: &BTreeSet<String>) {
    let lines: Vec<&str> = found.iter().map(String::as_str).collect();
    assert!(found.is_empty(), "{what}:\n{}", lines.join("\n"));
}

#[test]
fn modules_import_only_modules_below_them() {
    assert_none(
        "imports against the order",
        &wrong_imports(&sources(), LAYERS),
    );
}

#[test]
fn the_table_of_layers_is_in_order() {
    for (index, (module, allowed)) in LAYERS.iter().enumerate() {
        for name in allowed.split_whitespace() {
            let below = LAYERS[..index].iter().any(|(lower, _)| *lower == name);
            assert!(below, "{name} must stand above {module} in the table");
        }
    }
}

#[test]
fn files_do_not_import_each_other_in_a_circle() {
    assert_none("circles", &sources().circles());
}

#[test]
fn files_and_functions_are_short_enough_to_read() {
    assert_none("too long", &too_long(&sources()));
}
