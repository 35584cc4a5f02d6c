//! A child process: starting it, its output into our log, and signals to it.
//!
//! Waiting for its end is the watchdog's work, which reaps all children in one place.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, PipeReader, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::allocator;

/// This many last lines are kept for the message when the process ends.
const KEPT_LINES: usize = 10;
/// The same of the answer to a question: `nvidia-smi` has a line for each GPU.
const KEPT_ANSWER_LINES: usize = 256;
/// Longer lines are cut, so that a process that writes no line ends cannot fill the memory.
const MAX_LINE_BYTES: u64 = 16 * 1024;
/// After the process ended its last output is waited for this long; a process it left behind may hold the pipe.
const LAST_OUTPUT_WAIT: Duration = Duration::from_millis(500);

/// Where a child reads and writes.
#[derive(Debug, Clone)]
pub enum Streams {
    /// Nothing to read; what it writes goes line by line into our log, with this target and this prefix.
    Log {
        /// Log target: the name of the program.
        target: &'static str,
        /// Which of several, such as `0: `.
        prefix: String,
    },
    /// Nothing to read; what it writes is the answer to a question, and not for the log.
    Answer,
    /// The terminal, or whatever else our own standard streams are. Such a child is in our process group, or the
    /// terminal would not let it read.
    Inherited,
}

/// A running process.
#[derive(Debug)]
pub struct Child {
    /// Its process id, until it is reaped.
    pub pid: Pid,
    has_own_group: bool,
    output: Option<Output>,
}

#[derive(Debug)]
struct Output {
    lines: Arc<Mutex<VecDeque<String>>>,
    ended: Receiver<()>,
}

impl Child {
    /// Starts `command`. Of our open files it gets its standard streams and `inherited`, nothing else.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        command: Command,
        streams: &Streams,
        inherited: &[BorrowedFd],
    ) -> io::Result<Self> {
        Self::start_watched(command, streams, inherited, |_| {})
    }

    /// The same; `watch` sees each line of its output, unless its streams are inherited.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_watched(
        mut command: Command,
        streams: &Streams,
        inherited: &[BorrowedFd],
        watch: impl FnMut(&str) + Send + 'static,
    ) -> io::Result<Self> {
        let mut output = None;
        if !matches!(streams, Streams::Inherited) {
            let (reader, writer) = io::pipe()?;
            command.stdin(Stdio::null());
            command.stdout(writer.try_clone()?).stderr(writer);
            // A group of its own: Ctrl-C in a terminal is for us, who then stop it in good order.
            command.process_group(0);
            output = Some(Output::collect(reader, streams.clone(), watch)?);
        }
        let spawned = spawn(&mut command, inherited)?;
        Ok(Self {
            pid: Pid::from_child(&spawned),
            has_own_group: output.is_some(),
            output,
        })
    }

    /// Sends a signal to it and whatever it started: its program may be a script that starts the real one. Only to
    /// be called while it is not reaped: its id could belong to another then.
    pub fn signal(&self, signal: Signal) {
        let to_group = self.has_own_group && kill_process_group(self.pid, signal).is_ok();
        // It may have left its group.
        if !to_group && let Err(e) = kill_process(self.pid, signal) {
            log::warn!("cannot send {signal:?} to process {}: {e}", self.pid);
        }
    }

    /// Kills what is left of its group, just after it was reaped.
    pub fn kill_group(&self) {
        if self.has_own_group {
            // Mostly nothing is left, which is an error here.
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }

    /// Its last lines of output, after its end.
    pub fn last_lines(&self) -> String {
        let Some(output) = &self.output else {
            return String::new();
        };
        let _ = output.ended.recv_timeout(LAST_OUTPUT_WAIT);
        let lines = output.lines.lock().unwrap_or_else(PoisonError::into_inner);
        Vec::from_iter(lines.iter().map(String::as_str)).join("\n")
    }
}

/// Starts `command` with `inherited` open beside its standard streams. Files are closed in children unless said
/// otherwise, and it can only be said for all children that are started at that time: so whoever starts one does it
/// here, one after the other.
///
/// # Errors
/// When it cannot be started.
pub fn spawn(command: &mut Command, inherited: &[BorrowedFd]) -> io::Result<std::process::Child> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    allocator::keep_from(command);
    let set = |flags| {
        inherited
            .iter()
            .try_for_each(|file| fcntl_setfd(file, flags))
    };
    set(FdFlags::empty())?;
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    let spawned = command.spawn();
    set(FdFlags::CLOEXEC)?;
    spawned
}

impl Output {
    fn collect(
        reader: PipeReader,
        streams: Streams,
        watch: impl FnMut(&str) + Send + 'static,
    ) -> io::Result<Self> {
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let (end, ended) = bounded(1);
        let kept = Arc::clone(&lines);
        let label = match &streams {
            Streams::Log { prefix, .. } => prefix.trim_end_matches(": "),
            _ => "answer",
        };
        thread::Builder::new()
            .name(format!("log-{label}"))
            .spawn(move || {
                if let Err(e) = collect(reader, &streams, &kept, watch) {
                    log::warn!("the output of a child process cannot be read: {e}");
                }
                let _ = end.send(());
            })?;
        Ok(Self { lines, ended })
    }
}

/// Copies lines to where they go, and keeps the last ones.
fn collect(
    output: PipeReader,
    streams: &Streams,
    kept: &Mutex<VecDeque<String>>,
    mut watch: impl FnMut(&str),
) -> io::Result<()> {
    let most = match streams {
        Streams::Answer => KEPT_ANSWER_LINES,
        _ => KEPT_LINES,
    };
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut piece = output.by_ref().take(MAX_LINE_BYTES);
        if piece.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if let Streams::Log { target, prefix } = streams {
            log::info!(target: target, "{prefix}{text}");
        }
        let mut lines = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == most {
            lines.pop_front();
        }
        lines.push_back(text.clone());
        drop(lines);
        watch(&text);
    }
}
