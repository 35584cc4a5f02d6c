//! Child processes: starts them, copies their output into our log, and sends them signals.
//!
//! The event loop waits for their end: it reaps all children in one place.

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
use crate::supervisor::unit::ProcessHandle;

/// The number of last lines kept for the message about the end of a process.
const KEPT_LINES: usize = 10;
/// The same for a program that we run for its output, which may have a line for each device.
const KEPT_CAPTURED_LINES: usize = 256;
/// The number of lines kept that say why the process failed.
const KEPT_CAUSES: usize = 5;
/// Longer lines are split, so that a process that writes no line breaks cannot exhaust our memory.
const MAX_LINE_BYTES: u64 = 16 * 1024;
/// How long to wait for the last output of a process that has ended. A process that it left behind may keep the pipe
/// open.
const LAST_OUTPUT_WAIT: Duration = Duration::from_millis(500);

/// Where the standard streams of a child lead.
#[derive(Debug, Clone)]
pub enum Streams {
    /// No input; each line of output is logged with this target and prefix.
    Log {
        /// The log target: the name of the program.
        target: &'static str,
        /// Tells processes of the same program apart, for example `0: `.
        prefix: String,
        /// Whether a line says why the program fails. The first of these lines are kept for the message about its end,
        /// however many lines follow.
        is_cause: Option<fn(&str) -> bool>,
    },
    /// No input; the last lines of output are kept for the caller and not logged.
    Captured,
    /// Our own standard streams. The child stays in our process group; otherwise a terminal would not let it read.
    Inherited,
}

/// A running process.
#[derive(Debug)]
pub struct Child {
    /// The process id, valid until the process is reaped.
    pub pid: Pid,
    has_own_group: bool,
    output: Option<Output>,
}

#[derive(Debug)]
struct Output {
    lines: Arc<Mutex<Kept>>,
    ended: Receiver<()>,
}

/// The lines that are kept for the message about the end of a process.
#[derive(Debug, Default)]
struct Kept {
    /// The first lines that say why it failed, unless they are among the last lines.
    causes: Vec<String>,
    last: VecDeque<String>,
}

impl Child {
    /// Starts `command`. Of our open files the child gets its standard streams and `inherited`, no others.
    ///
    /// # Errors
    /// The system's, when it cannot start the process.
    pub fn start(
        command: Command,
        streams: &Streams,
        inherited: &[BorrowedFd],
    ) -> io::Result<Self> {
        Self::start_watched(command, streams, inherited, |_| {})
    }

    /// Like [`Child::start`], and calls `watch` with each line of output, unless the streams are inherited.
    ///
    /// # Errors
    /// The system's, when it cannot start the process.
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
            // In its own process group the child does not get the SIGINT of Ctrl-C; we stop it after draining.
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
}

impl ProcessHandle for Child {
    fn pid(&self) -> Pid {
        self.pid
    }

    fn signal(&self, signal: Signal) {
        // The program may be a script that starts the real one, so we signal the whole group.
        let to_group = self.has_own_group && kill_process_group(self.pid, signal).is_ok();
        // The process may have left its group.
        if !to_group && let Err(e) = kill_process(self.pid, signal) {
            log::warn!("cannot send {signal:?} to process {}: {e}", self.pid);
        }
    }

    fn kill_group(&self) {
        if self.has_own_group {
            // Usually no process is left in the group, which the system reports as an error.
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }

    fn last_lines(&self) -> String {
        let Some(output) = &self.output else {
            return String::new();
        };
        let _ = output.ended.recv_timeout(LAST_OUTPUT_WAIT);
        let lines = output.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let all = lines.causes.iter().chain(&lines.last);
        Vec::from_iter(all.map(String::as_str)).join("\n")
    }
}

/// Starts `command` with its standard streams and `inherited` open. All our files are closed in children
/// (`FD_CLOEXEC`). Clearing that flag for the files in `inherited` affects every child that starts at that moment;
/// therefore this function starts all children, one at a time.
///
/// # Errors
/// The system's, when it cannot start the process.
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
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that starts children"
    )]
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
        let lines = Arc::new(Mutex::new(Kept::default()));
        let (end, ended) = bounded(1);
        let kept = Arc::clone(&lines);
        let label = match &streams {
            Streams::Log { prefix, .. } => prefix.trim_end_matches(": "),
            _ => "output",
        };
        thread::Builder::new()
            .name(format!("log-{label}"))
            .spawn(move || {
                if let Err(e) = collect(reader, &streams, &kept, watch) {
                    log::warn!("cannot read the output of a child process: {e}");
                }
                let _ = end.send(());
            })?;
        Ok(Self { lines, ended })
    }
}

/// Copies each line to the log and to `watch`, and keeps the last lines.
fn collect(
    output: PipeReader,
    streams: &Streams,
    kept: &Mutex<Kept>,
    mut watch: impl FnMut(&str),
) -> io::Result<()> {
    let (limit, is_cause) = match streams {
        Streams::Captured => (KEPT_CAPTURED_LINES, None),
        Streams::Log { is_cause, .. } => (KEPT_LINES, *is_cause),
        Streams::Inherited => (KEPT_LINES, None),
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
        if let Streams::Log { target, prefix, .. } = streams {
            log::info!(target: target, "{prefix}{text}");
        }
        let mut lines = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.last.len() == limit
            && let Some(line) = lines.last.pop_front()
            && lines.causes.len() < KEPT_CAUSES
            && is_cause.is_some_and(|is_cause| is_cause(&line))
        {
            lines.causes.push(line);
        }
        lines.last.push_back(text.clone());
        drop(lines);
        watch(&text);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::{AsFd, AsRawFd};

    use rustix::io::fcntl_getfd;
    use rustix::process::{WaitOptions, waitpid};

    use super::*;
    use crate::supervisor::reaper::Exit;

    /// The limit for waits that usually end at once.
    const LIMIT: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn log() -> Streams {
        Streams::Log {
            target: "test",
            prefix: "0: ".into(),
            is_cause: Some(|line| line.starts_with("why")),
        }
    }

    fn start(script: &str, streams: &Streams) -> Child {
        Child::start(shell(script), streams, &[]).expect("it starts")
    }

    /// Waits for this child alone: other tests have children too.
    fn reap(child: &Child) -> Exit {
        let ended = waitpid(Some(child.pid), WaitOptions::empty());
        let (_, status) = ended.expect("it is our child").expect("it has ended");
        status.into()
    }

    /// Waits until every process has closed its end of the pipe.
    fn wait_for_output(child: &Child) {
        let output = child.output.as_ref().expect("it has output");
        output
            .ended
            .recv_timeout(LIMIT)
            .expect("the pipe is closed");
    }

    fn end(child: &Child) -> Exit {
        let exit = reap(child);
        wait_for_output(child);
        exit
    }

    #[test]
    fn an_exit_is_described_with_its_code_or_signal() {
        for (script, text) in [
            ("exit 0", "its process exited with code 0"),
            ("exit 3", "its process exited with code 3"),
            ("kill -9 $$", "its process was terminated by signal 9"),
            ("kill -15 $$", "its process was terminated by signal 15"),
        ] {
            let exit = end(&start(script, &Streams::Captured));
            assert_eq!(exit.to_string(), text);
            assert_eq!(exit.was_killed(), script.contains("-9"), "{script}");
        }
    }

    #[test]
    fn both_output_streams_are_read_and_the_input_is_empty() {
        let child = start(
            "cat; echo out; echo err >&2; printf end",
            &Streams::Captured,
        );
        assert_eq!(end(&child), Exit::Code(0));
        assert_eq!(child.last_lines(), "out\nerr\nend");
    }

    #[test]
    fn the_last_lines_are_kept() {
        let script = "for i in $(seq 300); do echo $i; done";
        for (streams, kept) in [
            (log(), KEPT_LINES),
            (Streams::Captured, KEPT_CAPTURED_LINES),
        ] {
            let child = start(script, &streams);
            end(&child);
            let expected = (301 - kept..=300).map(|i| i.to_string());
            assert_eq!(child.last_lines(), Vec::from_iter(expected).join("\n"));
        }
    }

    #[test]
    fn watch_gets_each_line_without_trailing_spaces() {
        let (sender, lines) = crossbeam_channel::unbounded();
        let watch = move |line: &str| sender.send(line.to_owned()).expect("the test listens");
        let command = shell("echo one; echo; echo 'three  '");
        let child = Child::start_watched(command, &log(), &[], watch).expect("it starts");
        end(&child);
        assert_eq!(Vec::from_iter(lines), ["one", "", "three"]);
    }

    #[test]
    fn long_lines_are_split_and_invalid_characters_replaced() {
        let script = "head -c 20000 /dev/zero | tr '\\0' x; printf '\\377\\n'";
        let child = start(script, &Streams::Captured);
        end(&child);
        let lines = child.last_lines();
        let lengths = Vec::from_iter(lines.lines().map(|line| line.chars().count()));
        let limit = usize::try_from(MAX_LINE_BYTES).expect("it is small");
        assert_eq!(lengths, [limit, 20_001 - limit]);
        assert!(lines.ends_with("x\u{fffd}"));
    }

    #[test]
    fn signals_reach_the_processes_that_the_child_started() {
        let (sender, lines) = crossbeam_channel::unbounded();
        let watch = move |_: &str| sender.send(()).expect("the test listens");
        let command = shell("sleep 1000 & echo up; wait");
        let child = Child::start_watched(command, &log(), &[], watch).expect("it starts");
        lines
            .recv_timeout(LIMIT)
            .expect("the child starts a process");
        child.signal(Signal::TERM);
        // The output ends only when both have ended.
        assert_eq!(end(&child), Exit::Signal(Signal::TERM.as_raw()));
    }

    #[test]
    fn processes_that_a_child_left_behind_are_killed() {
        let child = start("sleep 1000 & exit 0", &Streams::Captured);
        assert_eq!(reap(&child), Exit::Code(0));
        child.kill_group();
        wait_for_output(&child);
    }

    #[test]
    fn a_child_with_our_streams_stays_in_our_process_group() {
        let child = start("exec sleep 1000", &Streams::Inherited);
        let group = rustix::process::getpgid(Some(child.pid)).expect("it runs");
        assert_eq!(group, rustix::process::getpgrp());
        // This must not reach our group.
        child.kill_group();
        child.signal(Signal::TERM);
        assert_eq!(reap(&child), Exit::Signal(Signal::TERM.as_raw()));
        assert_eq!(child.last_lines(), "");
    }

    #[test]
    fn a_child_inherits_the_given_files_and_no_others() {
        let mut file = tempfile::tempfile().expect("the disk has room");
        file.write_all(b"given\n").expect("the disk has room");
        let script = format!("cat /proc/self/fd/{}", file.as_raw_fd());
        let child = Child::start(shell(&script), &Streams::Captured, &[]).expect("it starts");
        assert_ne!(end(&child), Exit::Code(0), "{}", child.last_lines());
        let given = [file.as_fd()];
        let child = Child::start(shell(&script), &Streams::Captured, &given).expect("it starts");
        assert_eq!(end(&child), Exit::Code(0));
        assert_eq!(child.last_lines(), "given");
        let flags = fcntl_getfd(&file).expect("it is open");
        assert_eq!(flags, FdFlags::CLOEXEC, "later children do not get it");
    }

    #[test]
    fn returns_not_found_for_a_program_that_does_not_exist() {
        let command = Command::new("/no/such/program");
        let error = Child::start(command, &Streams::Captured, &[]).expect_err("it cannot start");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
