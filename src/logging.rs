//! The log: lines on standard error, one level for the HTTP front and one for everything else.
//!
//! What is logged may come from clients, from a model server that repeats what clients sent, or from users' code.
//! None of it can make a line that looks like another part's, nor command the terminal that shows the log.
//!
//! A thread of its own writes. Standard error may be a pipe that nobody reads or a disk that is full, and whoever
//! writes there waits for ever or fails; that must not be a worker or the watchdog. So lines wait for the thread, up
//! to a limit; beyond it they are thrown away and counted. The log never stops service.

use std::borrow::Cow;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, poll};
use simple_logger::SimpleLogger;

use crate::config::Config;
use crate::error::StartError;
use crate::{handlers, tfs};

/// Log target of the HTTP front and its access lines.
pub const FRONT: &str = "sagemaker_tfs::front";

/// Text that waits to be written: what a burst of lines needs while a reader is slow, and little memory.
const MAX_WAITING_BYTES: usize = 4 << 20;
/// What an entry takes beside its text.
const ENTRY_BYTES: usize = 100;
/// At the end, what still waits is given this long.
const LAST_LINES_LIMIT: Duration = Duration::from_secs(1);
/// Name of the thread that writes.
const WRITER: &str = "log";

static WAITING: LazyLock<Waiting> = LazyLock::new(Waiting::new);

/// Starts logging with the levels of `config`.
///
/// # Errors
/// When a logger was set already, which is a mistake of the program.
pub fn start(config: &Config) -> Result<(), StartError> {
    let logger = SimpleLogger::new()
        .with_utc_timestamps()
        .with_level(config.log_level)
        .with_module_level(FRONT, config.front_log_level)
        // Children have levels of their own; what they print is wanted.
        .with_module_level(tfs::instance::LOG_TARGET, LevelFilter::Info)
        .with_module_level(handlers::worker::LOG_TARGET, LevelFilter::Info)
        .with_module_level(handlers::packages::LOG_TARGET, LevelFilter::Info)
        // The libraries' own lines repeat ours, and their debug lines would quote users' data.
        .with_module_level("ureq", LevelFilter::Warn)
        .with_module_level("ureq_proto", LevelFilter::Warn);
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        // The writer panics when standard error is closed; it cannot be told there.
        if thread.name() != Some(WRITER) {
            say(&format!("thread {} {panic}", thread.name().unwrap_or("?")));
            // The program may be about to end by it.
            finish();
        }
    }));
    if !WAITING.has_writer() {
        return Err(StartError::failed("cannot start the thread of the log"));
    }
    log::set_max_level(logger.max_level());
    log::set_boxed_logger(Box::new(Queued(logger)))
        .map_err(|e| StartError::failed(format!("cannot start logging: {e}")))
}

/// Says something whatever the levels are, line by line, under the program's name.
pub fn say(text: &str) {
    let has_writer = WAITING.has_writer();
    for line in text.lines() {
        let said = Entry::Said(printable(line).into_owned());
        match has_writer {
            true => WAITING.queue(said),
            // It ends the program, and is to be read all the same.
            false => write(said),
        }
    }
}

/// Before the program ends: waits until what waits is written, if somebody takes it.
pub fn finish() {
    if !WAITING.has_writer() {
        return;
    }
    let (give, take) = bounded(1);
    WAITING.queue(Entry::Mark(give));
    let _ = take.recv_timeout(LAST_LINES_LIMIT);
}

/// Has each line of a message written with its own time and origin.
struct Queued(SimpleLogger);

impl Log for Queued {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return; // what follows costs
        }
        let text = record.args().to_string();
        for line in text.trim_end_matches('\n').split('\n') {
            WAITING.queue(Entry::Logged {
                level: record.level(),
                target: record.target().to_owned(),
                text: printable(line).into_owned(),
            });
        }
    }

    fn flush(&self) {}
}

/// What waits for the writer.
enum Entry {
    Logged {
        level: Level,
        target: String,
        text: String,
    },
    Said(String),
    /// Somebody waits until the writer comes to this.
    Mark(Sender<()>),
}

impl Entry {
    fn size(&self) -> usize {
        match self {
            Self::Logged { text, .. } | Self::Said(text) => ENTRY_BYTES + text.len(),
            Self::Mark(_) => 0,
        }
    }
}

struct Waiting {
    give: Sender<Entry>,
    take: Receiver<Entry>,
    bytes: AtomicUsize,
    lost_lines: AtomicU64,
    /// Whether the writer's thread could be started.
    writer: OnceLock<bool>,
}

impl Waiting {
    fn new() -> Self {
        let (give, take) = unbounded();
        Self {
            give,
            take,
            bytes: AtomicUsize::new(0),
            lost_lines: AtomicU64::new(0),
            writer: OnceLock::new(),
        }
    }

    /// Starts the writer's thread when first asked.
    fn has_writer(&'static self) -> bool {
        *self.writer.get_or_init(|| {
            let thread = thread::Builder::new().name(WRITER.into());
            thread.spawn(|| self.write_all()).is_ok()
        })
    }

    fn queue(&self, entry: Entry) {
        let size = entry.size();
        if self.bytes.fetch_add(size, Ordering::Relaxed) + size > MAX_WAITING_BYTES && size > 0 {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            self.lost_lines.fetch_add(1, Ordering::Relaxed);
        } else {
            let _ = self.give.send(entry); // we hold the other end, too
        }
    }

    fn write_all(&self) {
        for entry in &self.take {
            self.bytes.fetch_sub(entry.size(), Ordering::Relaxed);
            wait_for_reader();
            // simple_logger panics when standard error is closed.
            let _ = catch_unwind(AssertUnwindSafe(|| write(entry)));
            let lost = self.lost_lines.swap(0, Ordering::Relaxed);
            if lost > 0 {
                log::error!("{lost} lines of the log are lost: nobody took them");
            }
        }
    }
}

/// Waits until standard error takes a line. Somebody who shares it with us may have set it not to wait by itself.
fn wait_for_reader() {
    let stderr = io::stderr();
    // After an error the next write tells.
    let _ = poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None);
}

fn write(entry: Entry) {
    match entry {
        Entry::Logged {
            level,
            target,
            text,
        } => PLAIN.log(
            &Record::builder()
                .level(level)
                .target(&target)
                .args(format_args!("{text}"))
                .build(),
        ),
        Entry::Said(text) => {
            let _ = writeln!(io::stderr(), "sagemaker-tfs: {text}");
        }
        Entry::Mark(waiting) => drop(waiting),
    }
}

/// Writes whatever it gets: levels were looked at before.
static PLAIN: LazyLock<SimpleLogger> = LazyLock::new(|| SimpleLogger::new().with_utc_timestamps());

/// The text with its control characters, and what else ends a line, as escapes. Tabs stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_text = |c: char| c == '\t' || !(c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'));
    if text.chars().all(is_text) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_text(c) {
            true => escaped.push(c),
            false => escaped.extend(c.escape_default()),
        }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_text_is_not() {
        for text in ["", "plain", "a\tb", "\u{e9}\u{1f600} \\u{1b} \"'"] {
            assert_eq!(printable(text), text);
        }
        assert_eq!(
            printable("\u{1b}[31m\r\n\0\u{7f}\u{9b}\u{2028}\u{e9}"),
            "\\u{1b}[31m\\r\\n\\u{0}\\u{7f}\\u{9b}\\u{2028}\u{e9}"
        );
    }

    #[test]
    fn lines_beyond_the_limit_are_counted_and_not_kept() {
        let waiting = Waiting::new();
        let lines = 2 * MAX_WAITING_BYTES / 1000;
        for _ in 0..lines {
            waiting.queue(Entry::Said("x".repeat(1000 - ENTRY_BYTES)));
        }
        let lost = waiting.lost_lines.load(Ordering::Relaxed) as usize;
        assert_eq!(waiting.take.len() + lost, lines);
        assert_eq!(waiting.take.len(), MAX_WAITING_BYTES / 1000);
    }
}
