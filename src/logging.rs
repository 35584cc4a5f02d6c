//! The log: lines on standard error, one level for the HTTP front and one for everything else.
//!
//! A thread of its own writes them. Standard error may be a pipe that nobody reads or a disk that is full, and
//! whoever writes there waits for ever or fails; that must not be a worker or the watchdog. So lines wait for the
//! thread, up to a limit; beyond it they are thrown away and counted. The log never stops service.

use std::io::{self, ErrorKind, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use env_logger::{Builder, Target};
use log::LevelFilter;
use rustix::event::{PollFd, PollFlags, poll};

use crate::config::Config;
use crate::error::StartError;
use crate::{handlers, tfs};

/// Log target of the HTTP front and its access lines.
pub const FRONT: &str = "sagemaker_tfs::front";

/// Text that waits to be written: what a burst of lines needs while a reader is slow, and little memory.
const MAX_WAITING_BYTES: usize = 4 << 20;
/// At the end, what still waits is given this long.
const LAST_LINES_LIMIT: Duration = Duration::from_secs(1);

static WAITING: Waiting = Waiting {
    state: Mutex::new(State {
        text: Vec::new(),
        lost_lines: 0,
        is_writing: false,
        has_writer: false,
    }),
    changed: Condvar::new(),
};

/// Starts logging with the levels of `config`.
///
/// # Errors
/// When no thread can be started, or a logger was set already, which is a mistake of the program.
pub fn start(config: &Config) -> Result<(), StartError> {
    let failed = |e: String| StartError::failed(format!("cannot start logging: {e}"));
    WAITING.start_writer().map_err(|e| failed(e.to_string()))?;
    std::panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        say(&format!("thread {} {panic}", thread.name().unwrap_or("?")));
        // The program may be about to end by it.
        WAITING.finish(Instant::now() + LAST_LINES_LIMIT);
    }));
    Builder::new()
        .filter_level(config.log_level)
        .filter_module(FRONT, config.front_log_level)
        // Children have levels of their own; what they print is wanted.
        .filter_module(tfs::instance::LOG_TARGET, LevelFilter::Info)
        .filter_module(handlers::host::LOG_TARGET, LevelFilter::Info)
        .filter_module(handlers::packages::LOG_TARGET, LevelFilter::Info)
        // The libraries' own lines repeat ours, and their debug lines would quote users' data.
        .filter_module("tiny_http", LevelFilter::Off)
        .filter_module("ureq", LevelFilter::Warn)
        .filter_module("ureq_proto", LevelFilter::Warn)
        .format(|line, record| {
            let (time, level) = (line.timestamp_millis(), record.level());
            writeln!(
                line,
                "{time} {level:<5} [{}] {}",
                record.target(),
                record.args()
            )
        })
        .target(Target::Pipe(Box::new(Lines)))
        .try_init()
        .map_err(|e| failed(e.to_string()))
}

/// Says something whatever the levels are, line by line, under the program's name.
pub fn say(text: &str) {
    for line in text.lines() {
        WAITING.add(format!("sagemaker-tfs: {line}\n").as_bytes());
    }
}

/// Before the program ends: writes what still waits, if somebody takes it.
pub fn finish() {
    match WAITING.start_writer() {
        Ok(()) => WAITING.finish(Instant::now() + LAST_LINES_LIMIT),
        Err(_) => write_out(&WAITING.lock().text),
    }
}

/// Where the logger writes: each call is one line.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        WAITING.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What waits to be written.
struct Waiting {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    text: Vec<u8>,
    lost_lines: u64,
    is_writing: bool,
    has_writer: bool,
}

impl State {
    fn add(&mut self, line: &[u8]) {
        if self.text.len() + line.len() <= MAX_WAITING_BYTES {
            self.text.extend_from_slice(line);
        } else {
            self.lost_lines += 1;
        }
    }
}

impl Waiting {
    fn add(&self, line: &[u8]) {
        self.lock().add(line);
        self.changed.notify_all();
    }

    /// Starts the thread that writes, once.
    fn start_writer(&'static self) -> io::Result<()> {
        let mut state = self.lock();
        if !state.has_writer {
            let thread = thread::Builder::new().name("log".into());
            thread.spawn(|| self.write_all())?;
            state.has_writer = true;
        }
        Ok(())
    }

    fn write_all(&self) {
        let mut state = self.lock();
        loop {
            let text = std::mem::take(&mut state.text);
            let lost = std::mem::take(&mut state.lost_lines);
            if text.is_empty() && lost == 0 {
                state.is_writing = false;
                self.changed.notify_all();
                state = self.wait(state, None);
                continue;
            }
            state.is_writing = true;
            drop(state);
            write_out(&text);
            if lost > 0 {
                log::error!("{lost} lines of the log are lost: nobody took them");
            }
            state = self.lock();
        }
    }

    /// Waits until all is written, but not longer than until `limit`.
    fn finish(&self, limit: Instant) {
        let mut state = self.lock();
        while (state.is_writing || !state.text.is_empty()) && Instant::now() < limit {
            state = self.wait(state, Some(limit));
        }
    }

    fn wait<'s>(
        &self,
        state: MutexGuard<'s, State>,
        limit: Option<Instant>,
    ) -> MutexGuard<'s, State> {
        let Some(limit) = limit else {
            let waited = self.changed.wait(state);
            return waited.unwrap_or_else(PoisonError::into_inner);
        };
        let timeout = limit.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout(state, timeout);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes to standard error, and waits for whoever reads there. What cannot be written is lost.
fn write_out(mut text: &[u8]) {
    let mut stderr = io::stderr().lock();
    while !text.is_empty() {
        match stderr.write(text) {
            Ok(0) => return,
            Ok(written) => text = &text[written..],
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // Somebody who shares it with us has set it so.
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                let mut files = [PollFd::new(&stderr, PollFlags::OUT)];
                // After an error the next write tells.
                let _ = poll(&mut files, None);
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_limit_are_counted_and_not_kept() {
        let mut state = State {
            text: Vec::new(),
            lost_lines: 0,
            is_writing: false,
            has_writer: false,
        };
        let line = [b'x'; 1000];
        for _ in 0..2 * MAX_WAITING_BYTES / line.len() {
            state.add(&line);
        }
        assert!(state.text.len() <= MAX_WAITING_BYTES);
        assert!(state.text.len() > MAX_WAITING_BYTES - line.len());
        assert!(state.lost_lines as usize >= MAX_WAITING_BYTES / line.len());
    }
}
