//! The server as process 1 of a container: it inherits orphans, must reap them, and gets only the signals that it
//! handles.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::support::setup::fake_model_server;
use crate::support::{Setup, processes, skipped, wait_for, wait_until};

const NAMESPACE: &[&str] = &["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];

fn is_permitted() -> bool {
    let mut command = Command::new(NAMESPACE[0]);
    let status = command.args(&NAMESPACE[1..]).arg("true").output();
    status.is_ok_and(|output| output.status.success())
}

#[test]
fn as_process_1_the_server_reaps_orphans_and_ends_at_sigterm() {
    if !is_permitted() {
        skipped(
            "as_process_1_the_server_reaps_orphans_and_ends_at_sigterm",
            "the test may not create process namespaces here",
        );
        return;
    }
    let setup = Setup::new();
    let end = setup.path("end").display().to_string();
    // A model server that leaves an orphan: the subshell that starts the process ends at once.
    let script = format!(
        "( while [ ! -e '{end}' ]; do sleep 0.02; done & )\nexec '{}' \"$@\"",
        fake_model_server().display()
    );
    let setup = setup.script("bin/model_server", &script);
    let program = setup.path("bin/model_server");
    let server = setup
        .flag("model-server", program.display())
        .wrapper(NAMESPACE)
        .start();

    let children = processes::children(server.pid());
    assert_eq!(children.len(), 1, "unshare has one child: {children:?}");
    let pid = children[0].pid;
    let inside = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let inside = inside
        .lines()
        .find(|line| line.starts_with("NSpid:"))
        .unwrap();
    assert!(
        inside.ends_with("\t1"),
        "the server is process 1 inside: {inside}"
    );

    let orphan = wait_for("the orphan is adopted", || {
        let children = processes::children(pid);
        children
            .into_iter()
            .find(|child| child.command_line.contains("bin/model_server"))
    });
    fs::write(&end, "").unwrap();
    wait_until("the orphan is reaped", || {
        processes::look(orphan.pid).is_none()
    });
    server.assert_serves();

    // A killed model server is reaped and restarted, and the new one leaves another orphan, which ends at once.
    let first = processes::children(pid);
    let first = first
        .iter()
        .find(|p| p.command_line.contains("fake_model_server"))
        .unwrap()
        .pid;
    processes::signal(first, Signal::KILL);
    server.wait_for_start(1);
    server.wait_until_healthy();
    wait_until("no zombie is left", || {
        let children = processes::children(pid);
        children.len() == 1 && children[0].state != 'Z'
    });

    processes::signal(pid, Signal::TERM);
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.left_behind.is_empty(), "{:?}", ended.left_behind);
}
