//! Multi-model mode: the system gives no more processes or threads. SageMaker unloads other models when it is told 507.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::process::getuid;

use crate::support::models::load_request;
use crate::support::setup::fake_model_server;
use crate::support::{Setup, processes, skipped, wait_for};

/// How far the limit of processes and threads is above what a server without models has: it is one of all that a user
/// has, so others can use up the difference.
const ROOM: usize = 60;

/// Processes of the server's user that do nothing but count.
struct Idlers(Vec<Child>);

impl Idlers {
    fn set(&mut self, count: usize, user: u32) {
        while self.0.len() > count {
            end(self.0.pop());
        }
        while self.0.len() < count {
            let mut command = Command::new("sleep");
            let started = command.arg("600").uid(user).gid(user).spawn();
            self.0.push(started.expect("root has no such limit"));
        }
    }
}

impl Drop for Idlers {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|child| end(Some(child)));
    }
}

fn end(child: Option<Child>) {
    let mut child = child.expect("there is one");
    let _ = child.kill();
    let _ = child.wait();
}

/// Threads of a process and its children.
fn tasks(pid: u32) -> usize {
    let count = |pid: u32| fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let children = processes::children(pid);
    count(pid) + children.iter().map(|child| count(child.pid)).sum::<usize>()
}

#[test]
fn at_the_process_limit_loads_get_507_and_loaded_models_still_serve() {
    const TEST: &str = "at_the_process_limit_loads_get_507_and_loaded_models_still_serve";
    if !getuid().is_root() {
        skipped(
            TEST,
            "it needs root, to start the server as a user of its own",
        );
        return;
    }
    // Somebody who has no processes; no limit binds root.
    let user = 30_000 + std::process::id() % 30_000;
    let setup = Setup::multi_model(3);
    // Where this user can reach them.
    let copies = ["bin/server", "bin/model_server"].map(|name| setup.path(name));
    let programs = [
        env!("CARGO_BIN_EXE_sagemaker-tfs").into(),
        fake_model_server(),
    ];
    for (program, copy) in programs.iter().zip(&copies) {
        fs::copy(program, copy).expect("programs can be copied");
    }
    for folder in ["", "model", "record", "tmp", "bin"] {
        chown(setup.path(folder), Some(user), Some(user)).expect("root may");
    }
    let usual = Setup::multi_model(3).start();
    // It answers before it has all its threads.
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
    // A connection that is served already needs no new thread.
    let mut connection = server.connect();
    let mut idlers = Idlers(Vec::new());
    // Fewer than a load needs: a thread to wait on, one to probe, one to log, and the process.
    for allowed in 0..3 {
        // The number moves by itself: threads of connections end when they are idle.
        let answer = wait_for("a load at the limit", || {
            idlers.set(most.saturating_sub(tasks(server.pid()) + allowed), user);
            connection.send(&load_request("m", &server.url("m")));
            let answer = connection.response();
            if answer.status == 200 {
                idlers.set(0, user);
                server.assert_unloads("m");
                return None;
            }
            Some(answer)
        });
        assert_eq!(answer.status, 507, "{allowed} more: {}", answer.text());
        let error = answer.error();
        assert!(error.starts_with("Memory exhausted: "), "{error}");
        idlers.set(0, user);
        server.assert_model_serves("ready");
        server.assert_free_but(&["ready"]);
        assert_eq!(server.ping().status, 200);
    }
    server.assert_loads("m");
    server.assert_model_serves("m");
}
