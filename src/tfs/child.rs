//! Starting a TensorFlow Serving process, its output into our log, and signals to it.
//!
//! Waiting for its end is the watchdog's work, which reaps all children in one place.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, ErrorKind, PipeReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::tfs::command::Launch;

/// Log target of the model server's own lines.
pub const LOG_TARGET: &str = "tensorflow_model_server";
/// This many last lines are kept for the message when the process ends.
const KEPT_LINES: usize = 10;
/// Longer lines are cut, so that a process that writes no line ends cannot fill the memory.
const MAX_LINE_BYTES: u64 = 16 * 1024;
/// After the process ended its last output is waited for this long; a process it left behind may hold the pipe.
const LAST_OUTPUT_WAIT: Duration = Duration::from_millis(500);

/// A running process.
#[derive(Debug)]
pub struct Child {
    /// Its process id, until it is reaped.
    pub pid: Pid,
    lines: Arc<Mutex<VecDeque<String>>>,
    output_ended: Receiver<()>,
}

impl Child {
    /// Starts instance `index`.
    ///
    /// # Errors
    /// A sentence that says what to do: a port in use, a program that is missing or cannot run.
    pub fn start(index: usize, launch: &Launch) -> Result<Self, String> {
        for port in [launch.ports.grpc, launch.ports.rest] {
            // Else another program on the port would be taken for the model server.
            if let Err(e) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                return Err(format!(
                    "port {port} for TensorFlow Serving cannot be used: {e}; set SAGEMAKER_SAFE_PORT_RANGE to free \
                     ports"
                ));
            }
        }
        let program = launch.program.display();
        let failed = |e: io::Error| match e.kind() {
            ErrorKind::NotFound => format!(
                "{program} is not found{}; install TensorFlow Serving, or name its program with --model-server",
                if launch.program.components().count() == 1 {
                    " on PATH"
                } else {
                    ""
                }
            ),
            _ => format!("cannot start {program}: {e}"),
        };
        let (output, input) = io::pipe().map_err(failed)?;
        let lines = Arc::new(Mutex::new(VecDeque::with_capacity(KEPT_LINES)));
        let (ended, output_ended) = bounded(1);
        let kept = Arc::clone(&lines);
        thread::Builder::new()
            .name(format!("log-{index}"))
            .spawn(move || {
                forward(output, index, &kept);
                let _ = ended.send(());
            })
            .map_err(failed)?;
        let child = Command::new(&launch.program)
            .args(&launch.args)
            .envs(launch.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(input.try_clone().map_err(failed)?)
            .stderr(input)
            // A group of its own: Ctrl-C in a terminal is for us, who then stop it in good order.
            .process_group(0)
            .spawn()
            .map_err(failed)?;

        log::info!(
            "instance {index}: started {program}, process {}",
            child.id()
        );
        Ok(Self {
            pid: Pid::from_child(&child),
            lines,
            output_ended,
        })
    }

    /// Sends a signal to it and whatever it started: its program may be a script that starts the real one. Only to
    /// be called while it is not reaped: its id could belong to another then.
    pub fn signal(&self, signal: Signal) {
        if let Err(e) = kill_process_group(self.pid, signal) {
            log::warn!("cannot send {signal:?} to process {}: {e}", self.pid);
        }
    }

    /// Kills what is left of its group, just after it was reaped.
    pub fn kill_group(&self) {
        // Mostly nothing is left, which is an error here.
        let _ = kill_process_group(self.pid, Signal::KILL);
    }

    /// Its last lines of output, after its end.
    pub fn last_lines(&self) -> String {
        let _ = self.output_ended.recv_timeout(LAST_OUTPUT_WAIT);
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        Vec::from_iter(lines.iter().map(String::as_str)).join("\n")
    }
}

/// Copies lines into the log and keeps the last ones.
fn forward(output: PipeReader, index: usize, kept: &Mutex<VecDeque<String>>) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match output
            .by_ref()
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line)
        {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) => {
                log::warn!("instance {index}: its output cannot be read: {e}");
                return;
            }
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        log::info!(target: LOG_TARGET, "{index}: {text}");
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        kept.push_back(text);
    }
}
