//! Handler scripts for tests, and the Python workers that run them.
//!
//! A test and its script meet through files in the test's own directory: the script waits at a gate until the test
//! opens it, and leaves notes that the test reads.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::http::{Connection, request};
use crate::support::processes::{self, Process};
use crate::support::server::Server;
use crate::support::setup::Setup;
use crate::support::{wait_for, wait_until};

/// A module next to every handler script.
const MEETING: &str = r#"
import os
import time

HERE = os.environ["HERE"]


def is_open(gate):
    return os.path.exists(os.path.join(HERE, gate))


def wait_at(gate):
    """Waits until the test has opened the gate."""
    while not is_open(gate):
        time.sleep(0.005)


def note(text):
    """Leaves a line for the test."""
    with open(os.path.join(HERE, "notes"), "a") as notes:
        notes.write(f"{text}\n")
"#;

/// Runs the Python statements that the request has under `input` and `output`, or under `handler`. The response is the
/// request itself.
const OBEDIENT: &str = r#"
import atexit, ctypes, json, multiprocessing, os, signal, subprocess, sys, threading, time
from meeting import is_open, note, wait_at

if is_open("broken"):
    os._exit(4)


def run(body, function):
    request = json.loads(body)
    exec(request.get(function, ""), globals(), {"request": request})
"#;

const OBEDIENT_PAIR: &str = r#"
def input_handler(data, context):
    body = data.read()
    run(body, "input")
    return body


def output_handler(response, context):
    run(response.content, "output")
    return response.content, "application/json"
"#;

const OBEDIENT_SINGLE: &str = r#"
def handler(data, context):
    body = data.read()
    run(body, "handler")
    return body, "application/json"
"#;

impl Setup {
    /// Gives the model this handler script. The fake model server echoes requests. The script never finds gevent,
    /// wherever these tests run: `tests/handlers` covers gevent.
    pub fn handler(self, text: &str) -> Self {
        let here = self.path("").display().to_string();
        let no_gevent = self.path("no_gevent").display().to_string();
        self.file("model/code/inference.py", text)
            .file("model/code/meeting.py", MEETING)
            .file(
                "no_gevent/gevent.py",
                "raise ImportError('not installed')\n",
            )
            .var("PYTHONPATH", no_gevent)
            .var("HERE", here)
            .var("FAKE_TFS_ANSWER", "echo")
    }

    /// Gives the model an `input_handler` and an `output_handler` that do what requests say; see [`Server::order`].
    pub fn obedient_pair(self) -> Self {
        self.handler(&format!("{OBEDIENT}\n{OBEDIENT_PAIR}"))
    }

    /// Gives the model a `handler` that does what requests say.
    pub fn obedient_handler(self) -> Self {
        self.handler(&format!("{OBEDIENT}\n{OBEDIENT_SINGLE}"))
    }

    /// Sets the number of Python workers.
    pub fn workers(self, count: usize) -> Self {
        self.var("SAGEMAKER_GUNICORN_WORKERS", count)
    }

    /// Sets how calls may overlap.
    pub fn worker_class(self, name: &str) -> Self {
        self.var("SAGEMAKER_GUNICORN_WORKER_CLASS", name)
    }

    /// Sets the longest time of a call.
    pub fn call_limit(self, seconds: u32) -> Self {
        self.var("SAGEMAKER_GUNICORN_TIMEOUT_SECONDS", seconds)
    }
}

/// The request that makes an obedient script do this.
pub fn order(order: &Value) -> Vec<u8> {
    let headers = [("Content-Type", "application/json")];
    request(
        "POST",
        "/invocations",
        &headers,
        order.to_string().as_bytes(),
    )
}

impl Server {
    /// Sends an order to an obedient script without waiting for the response.
    #[track_caller]
    pub fn order(&self, what: &Value) -> Connection {
        let mut connection = self.connect();
        connection.send(&order(what));
        connection
    }

    /// Makes an obedient script do something, and asserts that it did.
    #[track_caller]
    pub fn obey(&self, what: &Value) {
        answered(&mut self.order(what), what);
    }

    /// Asserts that all Python workers are loaded, and that requests get their own responses.
    #[track_caller]
    pub fn assert_handlers_serve(&self, workers: usize) {
        self.wait_until_healthy();
        wait_until("all Python workers are loaded", || {
            (0..workers).all(|index| self.is_loaded(index))
        });
        let all: Vec<_> = (0..10).map(|n| json!({"n": n})).collect();
        let mut connections: Vec<_> = all.iter().map(|what| self.order(what)).collect();
        for (connection, what) in connections.iter_mut().zip(&all) {
            answered(connection, what);
        }
    }

    /// Whether the current process of a Python worker is loaded.
    fn is_loaded(&self, index: usize) -> bool {
        let log = self.log();
        let last = |what: &str| log.rfind(&format!("Python worker {index}: {what}"));
        let others = ["started", "down", "being killed"];
        others.iter().all(|what| last("loaded") > last(what))
    }

    /// The Python workers that run now.
    pub fn python_workers(&self) -> Vec<Process> {
        let mut workers = processes::children(self.pid());
        workers.retain(|p| p.state != 'Z' && p.command_line.contains("sagemaker-tfs-python"));
        workers
    }

    /// The process id of the last start of a Python worker.
    #[track_caller]
    pub fn python_worker_pid(&self, index: usize) -> u32 {
        let start = format!("Python worker {index}: started, process ");
        wait_for("the start is in the log", || {
            let log = self.log();
            let (pid, _) = log.rsplit_once(&start)?.1.split_once(';')?;
            Some(pid.parse().expect("a process id"))
        })
    }

    /// Waits until a Python worker has a new process, and returns its process id.
    #[track_caller]
    pub fn wait_for_new_worker(&self, index: usize, old: u32) -> u32 {
        wait_for("the Python worker is started again", || {
            let pid = self.python_worker_pid(index);
            (pid != old && self.is_loaded(index)).then_some(pid)
        })
    }

    /// Kills a Python worker, waits until it is gone, and returns its process id.
    #[track_caller]
    pub fn kill_worker(&self, index: usize) -> u32 {
        let pid = self.python_worker_pid(index);
        processes::signal(pid, Signal::KILL);
        wait_until("the Python worker is gone", || {
            processes::look(pid).is_none()
        });
        pid
    }

    /// Opens the gate for scripts that wait there.
    pub fn open_gate(&self, gate: &str) {
        fs::write(self.path(gate), "").expect("files can be written");
    }

    /// Closes a gate again.
    pub fn close_gate(&self, gate: &str) {
        fs::remove_file(self.path(gate)).expect("the gate is open");
    }

    /// The notes that scripts left.
    pub fn notes(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("notes")).unwrap_or_default();
        // A line without a line end is still being written.
        let lines = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
        lines.map(|line| line.trim_end().to_owned()).collect()
    }

    /// Waits for `count` notes.
    #[track_caller]
    pub fn wait_for_notes(&self, count: usize) -> Vec<String> {
        wait_for(&format!("{count} notes"), || {
            Some(self.notes()).filter(|notes| notes.len() >= count)
        })
    }
}

/// Asserts that an order was obeyed: the response is the order itself.
#[track_caller]
pub fn answered(connection: &mut Connection, what: &Value) {
    let response = connection.response();
    assert_eq!(
        (response.status, response.text()),
        (200, what.to_string()),
        "{what}"
    );
}

/// Asserts that an order failed with this status and an error that contains all of these texts.
#[track_caller]
pub fn failed(connection: &mut Connection, status: u16, named: &[&str]) {
    let response = connection.response();
    assert_eq!(response.status, status, "{}", response.text());
    for text in named {
        assert!(
            response.error().contains(text),
            "{text:?} in {}",
            response.error()
        );
    }
}
