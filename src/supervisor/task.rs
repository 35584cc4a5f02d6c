//! A task: a program that runs once, for its output or its effect.

use std::io::{self, ErrorKind};

use crossbeam_channel::Sender;
use rustix::process::{Pid, Signal};

use crate::supervisor::handle::NOT_FOUND;
use crate::supervisor::reaper::Exit;
use crate::supervisor::unit::{ProcessHandle, StartFailure};

/// Where the end of a task is reported: the last lines of its output, or why it failed.
pub type Reply = Sender<Result<String, StartFailure>>;

/// A task whose process runs.
pub struct Task {
    process: Box<dyn ProcessHandle>,
    reply: Reply,
    /// Dropped with the task, so that a thread can wait until nothing is left of it.
    _stopped: Option<Sender<()>>,
}

impl Task {
    /// A task with this process. If it could not be started, reports that and returns `None`.
    pub fn new(started: io::Result<Box<dyn ProcessHandle>>, reply: Reply) -> Option<Self> {
        match started {
            Ok(process) => Some(Self {
                process,
                reply,
                _stopped: None,
            }),
            Err(e) => {
                let text = match e.kind() {
                    ErrorKind::NotFound => NOT_FOUND.to_owned(),
                    _ => e.to_string(),
                };
                // The receiver may have given up.
                let _ = reply.send(Err(StartFailure::from_io(&e, text)));
                None
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Kills its process.
    pub fn kill(&self) {
        self.process.signal(Signal::KILL);
    }

    /// Kills its process; `stopped` is dropped when it is gone.
    pub fn stop(&mut self, stopped: &Sender<()>) {
        self.kill();
        self._stopped = Some(stopped.clone());
    }

    /// Its process has ended: reports the result.
    pub fn finish(self, exit: Exit) {
        self.process.kill_group();
        let output = self.process.last_lines();
        let result = match exit {
            Exit::Code(0) => Ok(output),
            _ => Err(StartFailure {
                text: format!("{exit}; its last output:\n{output}"),
                out_of_resources: exit.was_killed(),
            }),
        };
        // The receiver may have given up.
        let _ = self.reply.send(result);
    }
}
