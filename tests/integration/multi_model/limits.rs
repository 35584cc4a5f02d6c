//! Multi-model mode: when the system allows no more processes or threads, a load gets 507, so that SageMaker unloads
//! other models.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::process::getuid;

use crate::support::models::load_request;
use crate::support::setup::fake_model_server;
use crate::support::{Setup, processes, skipped, wait_for};

/// How many processes and threads the server may add to those it has without models. The limit covers all processes of
/// the user, so idle ones can use up the difference.
const ROOM: usize = 60;

/// Processes of the server's user that only count towards the limit.
struct Idlers(Vec<Child>);

impl Idlers {
    fn set(&mut self, count: usize, user: u32) {
        while self.0.len() > count {
            end(self.0.pop());
        }
        while self.0.len() < count {
            let mut command = Command::new("sleep");
            let started = command.arg("600").uid(user).gid(user).spawn();
            self.0.push(started.expect("the limit does not bind root"));
        }
    }
}

impl Drop for Idlers {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|child| end(Some(child)));
    }
}

fn end(child: Option<Child>) {
    let mut child = child.expect("an idle process");
    let _ = child.kill();
    let _ = child.wait();
}

/// The number of threads of a process and its children.
fn tasks(pid: u32) -> usize {
    let count = |pid: u32| fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let children = processes::children(pid);
    count(pid) + children.iter().map(|child| count(child.pid)).sum::<usize>()
}

#[test]
fn at_the_process_limit_loads_get_507_and_loaded_models_still_serve() {
    const TEST: &str = "at_the_process_limit_loads_get_507_and_loaded_models_still_serve";
    if !getuid().is_root() {
        skipped(TEST, "starting the server as another user needs root");
        return;
    }
    // A user without processes, because the limit does not bind root.
    let user = 30_000 + std::process::id() % 30_000;
    let setup = Setup::multi_model(3);
    // The user may be unable to reach the originals.
    let copies = ["bin/server", "bin/model_server"].map(|name| setup.path(name));
    let programs = [
        env!("CARGO_BIN_EXE_sagemaker-tfs").into(),
        fake_model_server(),
    ];
    for (program, copy) in programs.iter().zip(&copies) {
        crate::support::processes::copy_program(program, copy);
    }
    for folder in ["", "model", "record", "tmp", "bin"] {
        chown(setup.path(folder), Some(user), Some(user)).expect("root may");
    }
    let usual = Setup::multi_model(3).start();
    // The server responds before it has started all its threads.
    usual.wait_for_log("listening on");
    let most = tasks(usual.pid()) + ROOM;
    let (limit, id) = (format!("--nproc={most}"), user.to_string());
    let words = [
        "prlimit",
        &limit,
        "setpriv",
        "--reuid",
        &id,
        "--regid",
        &id,
        "--clear-groups",
    ];
    let server = setup
        .wrapper(&words)
        .program(copies[0].clone())
        .flag("model-server", copies[1].display())
        .start();
    server.add_loaded(&["ready"]);
    server.add_model("m");
    // An open connection needs no new thread.
    let mut connection = server.connect();
    let mut idlers = Idlers(Vec::new());
    // Fewer than a load needs: the process, and threads to wait, to probe and to log.
    for allowed in 0..3 {
        // The number of threads changes on its own, because idle threads end.
        let response = wait_for("a load at the limit", || {
            idlers.set(most.saturating_sub(tasks(server.pid()) + allowed), user);
            connection.send(&load_request("m", &server.url("m")));
            let response = connection.response();
            if response.status == 200 {
                idlers.set(0, user);
                server.assert_unloads("m");
                return None;
            }
            Some(response)
        });
        assert_eq!(response.status, 507, "{allowed} more: {}", response.text());
        let error = response.error();
        assert!(error.starts_with("Memory exhausted: "), "{error}");
        idlers.set(0, user);
        server.assert_model_serves("ready");
        server.assert_free_but(&["ready"]);
        assert_eq!(server.ping().status, 200);
    }
    server.assert_loads("m");
    server.assert_model_serves("m");
}
