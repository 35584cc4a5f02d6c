//! Tasks: programs that run once, for their output or their effect.

use std::io::{self, ErrorKind};

use crossbeam_channel::Sender;
use rustix::process::{Pid, Signal};

use crate::supervisor::handle::NOT_FOUND;
use crate::supervisor::reaper::Exit;
use crate::supervisor::unit::{ProcessHandle, StartFailure};

/// Receives the result of a task: the last lines of its output, or why it failed.
pub type Reply = Sender<Result<String, StartFailure>>;

/// A running task.
pub struct Task {
    process: Box<dyn ProcessHandle>,
    reply: Reply,
    /// Dropped together with the task, so that another thread can wait for its end.
    _stopped: Option<Sender<()>>,
}

impl Task {
    /// A task with this process. If the process did not start, reports why and returns `None`.
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
                // The receiver may be gone.
                let _ = reply.send(Err(StartFailure::from_io(&e, text)));
                None
            }
        }
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Kills the process.
    pub fn kill(&self) {
        self.process.signal(Signal::KILL);
    }

    /// Kills the process. The clone of `stopped` is dropped when the process is gone.
    pub fn stop(&mut self, stopped: &Sender<()>) {
        self.kill();
        self._stopped = Some(stopped.clone());
    }

    /// Reports the result of the process, which has ended and been reaped.
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
        // The receiver may be gone.
        let _ = self.reply.send(result);
    }
}
