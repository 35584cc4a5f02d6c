//! The environment of child processes: signals as a shell would leave them, the container's variables and few more, and
//! a folder for files that no other user can read.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::process::Signal;

use crate::support::setup::fake_model_server;
use crate::support::{Server, Setup, wait_for, wait_until};

/// A signal mask of `/proc/<pid>/status`, without the real-time signals, which the server does not use.
fn signals(status: &str, line: &str) -> u64 {
    let found = status.lines().find_map(|l| l.strip_prefix(line));
    let text = found.expect("the line exists").trim_start_matches(':');
    u64::from_str_radix(text.trim(), 16).expect("a number") & 0x7fff_ffff
}

fn bit(signal: Signal) -> u64 {
    1 << (signal.as_raw() - 1)
}

fn status(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs")
}

/// Shell commands that copy the shell's own status. They start no process, because a shell blocks signals while it
/// waits for one.
const NOTE: &str = "while read -r line; do echo \"$line\"; done </proc/$$/status";

/// A server whose model server first saves its own status to a file.
fn noting() -> Setup {
    let setup = Setup::new();
    let note = setup.path("status").display().to_string();
    let script = format!(
        "{NOTE} > '{note}'\nexec '{}' \"$@\"",
        fake_model_server().display()
    );
    let setup = setup.script("bin/model_server", &script);
    let program = setup.path("bin/model_server");
    setup.flag("model-server", program.display())
}

#[test]
fn children_get_the_signal_state_that_the_server_was_started_with() {
    for (wrapper, ignored) in [
        (&["sh", "-c", "exec \"$@\"", "sh"][..], 0),
        (
            &["sh", "-c", "trap '' HUP USR1; exec \"$@\"", "sh"],
            bit(Signal::HUP) | bit(Signal::USR1),
        ),
    ] {
        let server = noting().wrapper(wrapper).start();
        let noted = fs::read_to_string(server.path("status")).expect("the status was saved");
        assert_eq!(signals(&noted, "SigBlk"), 0);
        // Signals that the caller of the tests ignores are ignored here, too. The server itself ignores SIGPIPE, but
        // children must not: SIGPIPE ends a child whose output nobody reads.
        let ours = signals(&status(server.pid()), "SigIgn");
        let theirs = signals(&noted, "SigIgn");
        assert_eq!(theirs & ignored, ignored);
        assert_eq!(theirs, ours & !bit(Signal::PIPE), "{theirs:x} {ours:x}");
        assert_eq!(signals(&noted, "SigCgt") & bit(Signal::TERM), 0);
    }
}

/// The variables of a process.
fn variables(pid: u32) -> BTreeMap<String, String> {
    let text = fs::read(format!("/proc/{pid}/environ")).expect("the process runs");
    let text = String::from_utf8(text).expect("text");
    let pairs = text.split_terminator('\0');
    let pairs = pairs.map(|pair| pair.split_once('=').expect("a variable"));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Variables for its own allocator, with which the server starts itself again.
const ALLOCATOR: [&str; 4] = [
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_ARENA_MAX",
    "_SAGEMAKER_TFS_ALLOCATOR",
];

/// Names of the variables that a child has in addition to the server's, or with another value. Asserts that the child
/// has all of the server's variables except those for the allocator.
fn added(server: &Server, child: u32) -> Vec<String> {
    let (ours, theirs) = (variables(server.pid()), variables(child));
    for name in ours.keys() {
        let is_own = ALLOCATOR.contains(&name.as_str());
        assert_eq!(theirs.contains_key(name), !is_own, "{name}");
    }
    let differs = |(name, value): &(&String, &String)| ours.get(*name) != Some(value);
    let names = theirs.iter().filter(differs).map(|(name, _)| name.clone());
    names.collect()
}

#[test]
fn model_servers_get_the_servers_variables_and_their_number_of_threads() {
    let server = Setup::new().var("SOME_SECRET", "of the container").start();
    let model_server = server.model_server_pid(0);
    assert_eq!(added(&server, model_server), ["OMP_NUM_THREADS"]);
    assert_eq!(variables(model_server)["SOME_SECRET"], "of the container");
}

#[cfg(feature = "python")]
#[test]
fn python_workers_get_the_servers_variables_and_those_of_the_model() {
    let server = Setup::new().obedient_pair().start();
    server.assert_handlers_serve(1);
    let expected = [
        "OMP_NUM_THREADS",
        "TFS_DEFAULT_MODEL_NAME",
        "TFS_GRPC_PORT",
        "TFS_GRPC_PORTS",
        "TFS_REST_PORT",
        "TFS_REST_PORTS",
    ];
    assert_eq!(added(&server, server.python_worker_pid(0)), expected);
}

#[cfg(feature = "python")]
#[test]
fn signals_can_end_processes_that_scripts_start() {
    let server = Setup::new().obedient_pair().start();
    server.assert_handlers_serve(1);
    let worker = status(server.python_worker_pid(0));
    assert_eq!(signals(&worker, "SigBlk"), 0);
    let note = format!("{NOTE} > \"$HERE/status\"");
    let run = format!("subprocess.run(['sh', '-c', {note:?}], check=True)");
    server.obey(&serde_json::json!({"input": run}));
    let noted = fs::read_to_string(server.path("status")).expect("the status was saved");
    assert_eq!(signals(&noted, "SigBlk"), 0);
    let pipe = bit(Signal::PIPE);
    assert_eq!(signals(&noted, "SigIgn") & pipe, 0);
}

/// Everything below a folder.
fn walk(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).expect("folders can be read") {
        let path = entry.expect("folders can be read").path();
        if path.is_dir() && !path.is_symlink() {
            walk(&path, found);
        }
        found.push(path);
    }
}

#[test]
fn only_the_servers_user_can_access_its_files_whatever_the_umask() {
    for umask in ["000", "022", "077"] {
        let change = format!("umask {umask}; exec \"$@\"");
        let server = Setup::multi_model(1)
            .wrapper(&["sh", "-c", &change, "sh"])
            .var("SAGEMAKER_TFS_ENABLE_BATCHING", "true")
            .start();
        server.add_loaded(&["m"]);
        let tmp = server.path("tmp");
        let entries = fs::read_dir(&tmp).expect("folders can be read");
        let folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        // All files are in one folder, which no other user can enter or list.
        assert_eq!(folders.len(), 1, "{folders:?}");
        let folder = fs::metadata(&folders[0]).expect("the folder exists");
        assert_eq!(folder.permissions().mode() & 0o7777, 0o700, "{umask}");
        assert_eq!(folder.uid(), rustix::process::geteuid().as_raw());
        let mut inside = Vec::new();
        walk(&folders[0], &mut inside);
        assert!(inside.iter().any(|p| p.ends_with("batching.config")));
        let of_models = server.files_of_models();
        assert!(of_models.iter().all(|p| p.starts_with(&folders[0])));
        server.signal(Signal::TERM);
        wait_until("the server ends", || server.try_end().is_some());
        assert!(!folders[0].exists());
    }
}

#[test]
fn the_limit_for_core_files_is_left_as_the_container_set_it() {
    // A core file holds clients' data, so only the container decides whether core files are written.
    let server = noting()
        .wrapper(&["sh", "-c", "ulimit -c 0; exec \"$@\"", "sh"])
        .start();
    let limits = |pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
        let line = text.lines().find(|l| l.starts_with("Max core file size"));
        line.map(str::to_owned)
    };
    let ours = wait_for("the server's limits", || limits(server.pid()));
    assert!(ours.split_whitespace().any(|word| word == "0"), "{ours}");
    assert_eq!(limits(server.model_server_pid(0)), Some(ours));
}

/// The server sets up its own allocator to return freed memory. Settings of the user take precedence, also in children.
#[test]
fn children_get_allocator_settings_only_if_the_user_sets_them() {
    let server = Setup::new().start();
    let ours = variables(server.pid());
    assert!(ALLOCATOR.iter().all(|name| ours.contains_key(*name)));

    let server = Setup::new().var("MALLOC_ARENA_MAX", 2).start();
    for pid in [server.pid(), server.model_server_pid(0)] {
        let found = variables(pid);
        let names = ALLOCATOR.iter().filter(|name| found.contains_key(**name));
        assert_eq!(Vec::from_iter(names), [&"MALLOC_ARENA_MAX"]);
        assert_eq!(found["MALLOC_ARENA_MAX"], "2");
    }
}
