//! A running server: requests to it, its log, the records of its model servers. Dropping it kills the server with all
//! its processes, and prints the log if the test failed.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::http::{Connection, Response, request};
use crate::support::ports::Ports;
use crate::support::processes::{self, Process};
use crate::support::record::{self, Recorded, Start};
use crate::support::setup::rest_port;
use crate::support::{LIMIT, wait_for, wait_until};

/// A server and everything it needs.
#[derive(Debug)]
pub struct Server {
    child: Mutex<Child>,
    stdout: Output,
    stderr: Output,
    temp: TempDir,
    ports: Ports,
    instances: u16,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// `None`: a signal ended the program.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// The starts that the fake model server recorded.
    pub starts: Vec<Start>,
    /// The files left in the folder for temporary files.
    pub left_behind: Vec<PathBuf>,
    /// The processes that still run.
    pub still_running: Vec<Process>,
}

impl Ended {
    /// Asserts that neither temporary files nor processes are left.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        assert!(self.left_behind.is_empty(), "{:?}", self.left_behind);
        for start in &self.starts {
            let pid = start.pid;
            // Another process may have this process id by now.
            let runs = self.still_running.iter().any(|process| process.pid == pid);
            assert!(!runs, "model server {pid} still runs");
        }
        self.assert_no_process_left();
    }

    /// Asserts that no process is left.
    #[track_caller]
    pub fn assert_no_process_left(&self) {
        assert!(self.still_running.is_empty(), "{:?}", self.still_running);
    }

    /// The whole text in which the program says why it ended.
    pub fn reason(&self) -> String {
        self.reasons().join("\n")
    }

    /// The lines in which the program says why it ended.
    pub fn reasons(&self) -> Vec<&str> {
        let lines = self.stderr.lines();
        lines
            .filter_map(|line| line.strip_prefix("sagemaker-tfs: "))
            .collect()
    }
}

impl Server {
    pub(super) fn new(mut child: Child, temp: TempDir, ports: Ports, instances: u16) -> Self {
        let stdout = Output::collect(child.stdout.take().expect("piped"));
        let stderr = Output::collect(child.stderr.take().expect("piped"));
        Self {
            child: Mutex::new(child),
            stdout,
            stderr,
            temp,
            ports,
            instances,
        }
    }

    /// The process id of the started program.
    pub fn pid(&self) -> u32 {
        self.lock().id()
    }

    /// The port of the server.
    pub fn port(&self) -> u16 {
        self.ports.first
    }

    /// The REST port of an instance.
    pub fn rest_port(&self, index: u16) -> u16 {
        rest_port(self.ports.first, index)
    }

    /// A path in this server's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Opens a connection to the server.
    #[track_caller]
    pub fn connect(&self) -> Connection {
        Connection::open(self.port())
    }

    /// Sends these bytes on a new connection and returns the response.
    #[track_caller]
    pub fn exchange(&self, bytes: &[u8]) -> Response {
        let mut connection = self.connect();
        connection.send(bytes);
        connection.response()
    }

    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.exchange(&request("GET", target, &[], b""))
    }

    #[track_caller]
    pub fn post(&self, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.exchange(&request("POST", target, headers, body))
    }

    /// Sends a JSON body to `/invocations`.
    #[track_caller]
    pub fn invoke(&self, body: impl AsRef<[u8]>) -> Response {
        let headers = [("Content-Type", "application/json")];
        self.post("/invocations", &headers, body.as_ref())
    }

    /// Sends an invocation that makes the fake model server do what `command` says.
    #[track_caller]
    pub fn invoke_fake(&self, command: &Value) -> Response {
        self.invoke(fake(command))
    }

    #[track_caller]
    pub fn ping(&self) -> Response {
        self.get("/ping")
    }

    /// Whether `/ping` returns 200; `false` also if no process listens.
    pub fn is_healthy(&self) -> bool {
        let Ok(mut connection) = Connection::try_open(self.port()) else {
            return false;
        };
        let sent = connection.try_send(&request("GET", "/ping", &[], b""));
        sent.is_ok() && matches!(connection.try_response(), Ok(Some(r)) if r.status == 200)
    }

    /// Waits until `/ping` returns 200.
    #[track_caller]
    pub fn wait_until_healthy(&self) {
        wait_until("/ping returns 200", || {
            if let Some(code) = self.try_end() {
                panic!("the server ended ({code:?}) instead of serving");
            }
            self.is_healthy()
        });
    }

    /// Waits until `/ping` returns 502, and returns the reason.
    #[track_caller]
    pub fn wait_until_unhealthy(&self) -> String {
        let response = wait_for("/ping returns 502", || {
            let response = self.ping();
            (response.status != 200).then_some(response)
        });
        assert_eq!(response.status, 502, "{}", response.text());
        response.error()
    }

    /// Asserts that the server serves: `/ping` and an invocation both return 200.
    #[track_caller]
    pub fn assert_serves(&self) {
        let ping = self.ping();
        assert_eq!(ping.status, 200, "{}", ping.text());
        let response = self.invoke(crate::support::INSTANCES);
        assert_eq!(response.status, 200, "{}", response.text());
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.stderr.text()
    }

    /// Waits until the log contains `text`.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        wait_until(&format!("the log says {text:?}"), || {
            self.log().contains(text)
        });
    }

    /// The starts of model servers so far.
    pub fn starts(&self) -> Vec<Start> {
        record::starts(&self.path("record"))
    }

    /// Waits for start number `index` (from 0).
    #[track_caller]
    pub fn wait_for_start(&self, index: usize) -> Start {
        wait_for(&format!("start {index} of the model server"), || {
            self.starts().get(index).cloned()
        })
    }

    /// The requests that model servers got, except status requests.
    pub fn requests(&self) -> Vec<Recorded> {
        record::requests(&self.path("record"))
    }

    /// The last request that a model server got.
    #[track_caller]
    pub fn last_request(&self) -> Recorded {
        self.requests()
            .pop()
            .expect("the model server got a request")
    }

    /// Tells the fake model server of an instance how to behave from now on.
    #[track_caller]
    pub fn control(&self, index: u16, order: &Value) {
        let bytes = request("POST", "/fake/control", &[], order.to_string().as_bytes());
        let mut connection = Connection::open(self.rest_port(index));
        connection.send(&bytes);
        let response = connection.response();
        assert_eq!(response.status, 200, "{}", response.text());
    }

    /// A counter of the fake model server of an instance.
    #[track_caller]
    pub fn stat(&self, index: u16, name: &str) -> u64 {
        let mut connection = Connection::open(self.rest_port(index));
        connection.send(&request("GET", "/fake/stats", &[], b""));
        let stats: Value = serde_json::from_slice(&connection.response().body).expect("JSON");
        stats[name].as_u64().expect("a counter")
    }

    /// The process id of the current model server of instance `index`.
    #[track_caller]
    pub fn model_server_pid(&self, index: u16) -> u32 {
        let port = self.rest_port(index).to_string();
        let starts = self.starts().into_iter().rev();
        let mut ours = starts.filter(|start| start.flag("rest_api_port") == Some(&port));
        ours.next().expect("the instance was started").pid
    }

    /// Sends the server a signal.
    pub fn signal(&self, signal: Signal) {
        processes::signal(self.pid(), signal);
    }

    /// The exit code if the server has ended; `Some(None)` if a signal ended it.
    pub fn try_end(&self) -> Option<Option<i32>> {
        let status = self.lock().try_wait().expect("a child can be waited for");
        status.map(|status| status.code())
    }

    /// Waits until the server has ended.
    #[track_caller]
    pub fn wait_for_end(self) -> Ended {
        let code = wait_for("the program ends", || self.try_end());
        let tmp = fs::read_dir(self.path("tmp"));
        // Processes that were killed at the very end take a moment to go.
        let until = Instant::now() + LIMIT;
        let mut still_running = processes::users_of(self.temp.path());
        while !still_running.is_empty() && Instant::now() < until {
            thread::sleep(super::POLL_INTERVAL);
            still_running = processes::users_of(self.temp.path());
        }
        Ended {
            still_running,
            code,
            stdout: self.stdout.whole_text(),
            stderr: self.stderr.whole_text(),
            starts: self.starts(),
            left_behind: tmp
                .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).collect())
                .unwrap_or_default(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut child = self.lock();
        // The server may have ended already.
        let _ = child.kill();
        let _ = child.wait();
        drop(child);
        // All processes of this test have a path in its directory on their command lines or in their environments.
        processes::kill_users_of(self.temp.path());
        if thread::panicking() {
            eprintln!(
                "--- output of the server on port {}, {} instances ---\n{}{}--- end ---",
                self.ports.first,
                self.instances,
                end_of(&self.stdout.whole_text()),
                end_of(&self.stderr.whole_text())
            );
        }
    }
}

/// The last part of a text that may be very long.
fn end_of(text: &str) -> &str {
    let mut start = text.len().saturating_sub(64 * 1024);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// The body of a request that makes the fake model server do what `command` says.
pub fn fake(command: &Value) -> String {
    serde_json::json!({"instances": [1.0], "fake": command}).to_string()
}

/// The output of a program, collected by a thread.
#[derive(Debug)]
struct Output {
    text: Arc<Mutex<String>>,
    thread: JoinHandle<()>,
}

impl Output {
    fn collect(from: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&text);
        let thread = thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while matches!(from.read_until(b'\n', &mut line), Ok(1..)) {
                let mut text = sink.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self { text, thread }
    }

    fn text(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.clone()
    }

    /// The text after the program has ended. If a process that it left behind keeps the output open, the text so far.
    fn whole_text(&self) -> String {
        let until = Instant::now() + LIMIT;
        while !self.thread.is_finished() && Instant::now() < until {
            thread::sleep(super::POLL_INTERVAL);
        }
        self.text()
    }
}
