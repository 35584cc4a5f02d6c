//! Archives as people make them, and everything that the log says about each: `archives.txt` is the table.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Mutex;
use std::thread;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::{Setup, wait_until};

const TABLE: &str = include_str!("archives.txt");
/// Servers that run at the same time.
const AT_ONCE: usize = 4;

struct Archive {
    title: &'static str,
    entries: Vec<&'static str>,
    variables: Vec<(&'static str, &'static str)>,
    expected: Vec<&'static str>,
}

/// The rows of the table; its first lines describe the format.
fn archives() -> Vec<Archive> {
    let rows = TABLE.split("\n# ").skip(1);
    let archives = rows.map(|row| {
        let mut lines = row.lines().filter(|line| !line.is_empty());
        let mut archive = Archive {
            title: lines.next().expect("a title"),
            entries: Vec::new(),
            variables: Vec::new(),
            expected: Vec::new(),
        };
        for line in lines {
            if let Some(said) = line.strip_prefix("> ") {
                archive.expected.push(said);
            } else if let Some(variable) = line.strip_prefix("$ ") {
                let pair = variable.split_once('=').expect("a variable");
                archive.variables.push(pair);
            } else {
                archive.entries.push(line);
            }
        }
        archive
    });
    archives.collect()
}

/// Makes an entry of the archive.
fn made(setup: Setup, entry: &str) -> Setup {
    let (name, target) = match entry.split_once(" -> ") {
        Some((link, target)) => (link, Some(target)),
        None => (entry, None),
    };
    let path = setup.path("model").join(name.trim_end_matches(['/', '|']));
    fs::create_dir_all(path.parent().expect("below the model directory")).unwrap();
    match (target, name.chars().last()) {
        (Some(target), _) => symlink(target, path).unwrap(),
        (None, Some('/')) => fs::create_dir_all(path).unwrap(),
        (None, Some('|')) => mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
        _ => return setup.file(&format!("model/{name}"), ""),
    }
    setup
}

/// What the log says until the model server is started, or until the start is refused.
fn said_about(archive: &Archive) -> Vec<String> {
    let mut setup = Setup::new().models(&[]);
    for entry in &archive.entries {
        setup = made(setup, entry);
    }
    let directory = setup.path("model").display().to_string();
    for (name, value) in &archive.variables {
        setup = setup.var(name, value.replace("DIR", &directory));
    }
    let server = setup.launch();
    let (mut has_ended, starts) = (false, "listening on ");
    wait_until("the model server is started, or the start refused", || {
        has_ended = server.try_end().is_some();
        has_ended || (server.log().contains(starts) && !server.starts().is_empty())
    });
    let log = match has_ended {
        true => server.wait_for_end().stderr,
        false => server.log(),
    };
    let lines = log.lines().filter_map(said);
    lines.map(|line| line.replace(&directory, "DIR")).collect()
}

/// A line that a person should read: a warning, a served model or a refusal, without the time and the module.
fn said(line: &str) -> Option<String> {
    if let Some(why) = line.strip_prefix("sagemaker-tfs: ") {
        return Some(format!("REFUSED {why}"));
    }
    let (head, text) = line.split_once("] ")?;
    // Other lines depend on the machine, and on how far the model server is.
    let modules = ["models", "config", "app", "handlers::packages"];
    if !modules
        .iter()
        .any(|module| head.contains(&format!("[sagemaker_tfs::{module}")))
    {
        return None;
    }
    if line.contains(" WARN ") {
        return Some(format!("WARN {text}"));
    }
    let model = text
        .strip_prefix("model ")
        .filter(|text| text.contains(", versions "));
    model.map(|model| format!("serves {model}"))
}

#[test]
fn the_log_says_what_is_wrong_with_an_archive() {
    let archives = archives();
    assert!(archives.len() >= 40, "{}", archives.len());
    let wrong = Mutex::new(Vec::new());
    let waiting = Mutex::new(VecDeque::from(archives));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(archive) = { waiting.lock().unwrap().pop_front() } {
                    let said = said_about(&archive);
                    if said != archive.expected {
                        let said: Vec<_> = said.iter().map(|line| format!("> {line}")).collect();
                        let text = format!("# {}\n{}", archive.title, said.join("\n"));
                        wrong.lock().unwrap().push(text);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(
        wrong.is_empty(),
        "the log says otherwise:\n{}",
        wrong.join("\n")
    );
}
