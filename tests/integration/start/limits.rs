//! Starts with too few threads or processes: they end with the reason.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::setup::fake_model_server;
use crate::support::{Setup, skipped};

/// The setup, run as a separate user with this limit of threads and processes, because the limit does not hold for
/// root. `None`, with a message, if the test cannot become another user.
fn limited(test: &str, setup: Setup, limit: u32) -> Option<Setup> {
    let copy = |from: &str, name: &str| {
        let to = setup.path("bin").join(name);
        crate::support::processes::copy_program(from, &to);
        to
    };
    let program = copy(env!("CARGO_BIN_EXE_sagemaker-tfs"), "sagemaker-tfs");
    let model_server = fake_model_server().display().to_string();
    let model_server = copy(&model_server, "fake_model_server");
    for (name, mode) in [("", 0o755), ("record", 0o777), ("tmp", 0o1777)] {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(setup.path(name), mode).expect("the test owns the files");
    }
    // The limit counts all processes of a user. No other test has this port, so no other test has this user.
    let user = 200_000 + u32::from(setup.port());
    let words = [
        "setpriv".to_owned(),
        format!("--reuid={user}"),
        format!("--regid={user}"),
        "--clear-groups".to_owned(),
        "prlimit".to_owned(),
        format!("--nproc={limit}"),
    ];
    let probed = Command::new(&words[0])
        .args(&words[1..])
        .args(["test", "-w"])
        .arg(setup.path("tmp"))
        .output();
    if !probed.is_ok_and(|output| output.status.success()) {
        skipped(test, "the test cannot become another user here");
        return None;
    }
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    Some(
        setup
            .program(program)
            .flag("model-server", model_server.display())
            .wrapper(&words),
    )
}

/// The limits cut off the start at different points: workers, computing threads, probes, log threads, processes.
#[test]
fn a_start_without_enough_threads_ends_with_the_reason() {
    let test = "a_start_without_enough_threads_ends_with_the_reason";
    for limit in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 20, 30, 40] {
        let Some(setup) = limited(test, Setup::many_instances(20), limit) else {
            return;
        };
        let ended = setup.run();
        assert_eq!(ended.code, Some(1), "limit {limit}: {}", ended.stderr);
        let reason = ended.reasons().join("\n");
        let is_clear = [
            "cannot start the thread",
            "cannot start a thread",
            "cannot start /",
            "Resource temporarily unavailable",
            "exited with",
        ]
        .iter()
        .any(|text| reason.contains(text));
        assert!(is_clear, "limit {limit}: {}", ended.stderr);
        ended.assert_nothing_left();
    }
}
