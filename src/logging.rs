//! The log: a queue in front of simple_logger, which filters by target and writes lines to standard error.
//!
//! Logged text may come from clients, from a model server that repeats what clients sent, or from users' code. Control
//! characters are escaped, so the text can neither forge a line of another module nor control a terminal.
//!
//! Only the thread `log` writes. Standard error may be a full pipe or a file on a full disk, where writing blocks or
//! fails; neither may stop a worker or the watchdog. So lines wait in a queue with a limit; lines beyond the limit are
//! dropped and counted. The caller of [`start`] decides which targets have levels of their own.

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

use crate::error::StartError;

/// Log target of access lines.
pub const FRONT: &str = "sagemaker_tfs::front";

/// Limit of the queue: holds a burst of lines while a reader is slow, and costs little memory.
const MAX_QUEUED_BYTES: usize = 4 << 20;
/// Estimated memory of an entry apart from its text.
const ENTRY_BYTES: usize = 100;
/// Maximum wait for the queue to drain when the program ends.
const LAST_LINES_LIMIT: Duration = Duration::from_secs(1);
/// Name of the thread that writes.
const WRITER: &str = "log";

static QUEUE: LazyLock<Queue> = LazyLock::new(Queue::new);

/// Starts logging at `level`. Targets that begin with a name in `targets` have the level given there.
///
/// # Errors
/// When the log's thread cannot start, or when a logger is already set, which is a bug of the program.
pub fn start(level: LevelFilter, targets: &[(&str, LevelFilter)]) -> Result<(), StartError> {
    let mut logger = SimpleLogger::new().with_utc_timestamps().with_level(level);
    for (target, level) in targets {
        logger = logger.with_module_level(target, *level);
    }
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        // The writer panics when standard error fails, so there is nowhere to report it.
        if thread.name() != Some(WRITER) {
            say(&format!("thread {} {panic}", thread.name().unwrap_or("?")));
            // The panic may end the program before the queue drains.
            finish();
        }
    }));
    if !QUEUE.has_writer() {
        return Err(StartError::failed("cannot start the thread log"));
    }
    log::set_max_level(logger.max_level());
    // The logger lives as long as the program, so leaking it is harmless.
    log::set_boxed_logger(Box::new(Queued(Box::leak(Box::new(logger)))))
        .map_err(|e| StartError::failed(format!("cannot start logging: {e}")))
}

/// Prints text whatever the log level, with the program's name before each line.
pub fn say(text: &str) {
    let has_writer = QUEUE.has_writer();
    for line in text.lines() {
        let said = Entry::Said(printable(line).into_owned());
        match has_writer {
            true => QUEUE.push(said),
            // The program ends without its log thread, and this text is the reason.
            false => said.write(),
        }
    }
}

/// Waits until the queue is written, at most for one second. To be called before the program ends.
pub fn finish() {
    if !QUEUE.has_writer() {
        return;
    }
    let (reached, wait) = bounded(1);
    QUEUE.push(Entry::Mark(reached));
    let _ = wait.recv_timeout(LAST_LINES_LIMIT);
}

/// A logger behind the queue. Each line of a message becomes an entry, so each has a time and an origin.
struct Queued(&'static SimpleLogger);

impl Log for Queued {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return; // before the costly formatting
        }
        let text = record.args().to_string();
        for line in text.trim_end_matches('\n').split('\n') {
            QUEUE.push(Entry::Logged {
                logger: self.0,
                level: record.level(),
                target: record.target().to_owned(),
                text: printable(line).into_owned(),
            });
        }
    }

    fn flush(&self) {}
}

enum Entry {
    Logged {
        logger: &'static SimpleLogger,
        level: Level,
        target: String,
        text: String,
    },
    Said(String),
    /// Tells [`finish`] that the writer has reached this entry: the writer drops the sender.
    Mark(Sender<()>),
}

impl Entry {
    fn size(&self) -> usize {
        match self {
            Self::Logged { text, .. } | Self::Said(text) => ENTRY_BYTES + text.len(),
            Self::Mark(_) => 0,
        }
    }

    /// Writes the entry.
    ///
    /// # Panics
    /// When writing to standard error fails, because simple_logger panics then.
    fn write(self) {
        match self {
            Self::Logged {
                logger,
                level,
                target,
                text,
            } => logger.log(
                &Record::builder()
                    .level(level)
                    .target(&target)
                    .args(format_args!("{text}"))
                    .build(),
            ),
            Self::Said(text) => {
                let _ = writeln!(io::stderr(), "sagemaker-tfs: {text}");
            }
            Self::Mark(reached) => drop(reached),
        }
    }
}

/// Entries from all threads for the thread that writes. Pushing never blocks.
struct Queue {
    sender: Sender<Entry>,
    entries: Receiver<Entry>,
    bytes: AtomicUsize,
    lost_lines: AtomicU64,
    /// Whether the writer's thread started; unset before the first attempt.
    writer: OnceLock<bool>,
}

impl Queue {
    fn new() -> Self {
        let (sender, entries) = unbounded();
        Self {
            sender,
            entries,
            bytes: AtomicUsize::new(0),
            lost_lines: AtomicU64::new(0),
            writer: OnceLock::new(),
        }
    }

    /// Whether a thread writes the queue. The first call starts the thread.
    fn has_writer(&'static self) -> bool {
        *self.writer.get_or_init(|| {
            let thread = thread::Builder::new().name(WRITER.into());
            thread.spawn(|| self.write_all()).is_ok()
        })
    }

    fn push(&self, entry: Entry) {
        let size = entry.size();
        if self.bytes.fetch_add(size, Ordering::Relaxed) + size > MAX_QUEUED_BYTES && size > 0 {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            self.lost_lines.fetch_add(1, Ordering::Relaxed);
        } else {
            let _ = self.sender.send(entry); // cannot fail: `self` holds the receiver
        }
    }

    /// Runs on the writer's thread and never returns. When writing a line fails, the line is lost and the loop goes on.
    fn write_all(&self) {
        let write_entries = || {
            for entry in &self.entries {
                self.bytes.fetch_sub(entry.size(), Ordering::Relaxed);
                wait_until_writable();
                entry.write();
                let lost = self.lost_lines.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    log::error!(
                        "lines of the log lost, because standard error did not take them in time: {lost}"
                    );
                }
            }
        };
        while catch_unwind(AssertUnwindSafe(write_entries)).is_err() {}
    }
}

/// Waits until standard error is writable. A process that shares standard error may have made it non-blocking.
fn wait_until_writable() {
    let stderr = io::stderr();
    // If polling fails, the write reports why.
    let _ = poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None);
}

/// Returns the text with characters escaped that control a terminal, end a line, are invisible, or change the order in
/// which others are shown. Tabs stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_text = |c: char| {
        c == '\t' || c == ' ' || c.is_ascii_graphic() || !(c.is_control() || is_unseen(c))
    };
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

/// Whether a character beyond ASCII separates lines, has no width, or sets the direction of text.
fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_control_characters_and_nothing_more() {
        for text in ["", "plain", "a\tb", "\u{e9}\u{1f600} \\u{1b} \"'"] {
            assert_eq!(printable(text), text);
        }
        for c in [
            '\u{ad}',
            '\u{200b}',
            '\u{202e}',
            '\u{2066}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            let expected = format!("a{}b", c.escape_default());
            assert_eq!(printable(&format!("a{c}b")), expected);
        }
        assert_eq!(
            printable("\u{1b}[31m\r\n\0\u{7f}\u{9b}\u{2028}\u{e9}"),
            "\\u{1b}[31m\\r\\n\\u{0}\\u{7f}\\u{9b}\\u{2028}\u{e9}"
        );
    }

    #[test]
    fn drops_and_counts_lines_beyond_the_limit() {
        let queue = Queue::new();
        let lines = 2 * MAX_QUEUED_BYTES / 1000;
        for _ in 0..lines {
            queue.push(Entry::Said("x".repeat(1000 - ENTRY_BYTES)));
        }
        let lost = queue.lost_lines.load(Ordering::Relaxed) as usize;
        assert_eq!(queue.entries.len() + lost, lines);
        assert_eq!(queue.entries.len(), MAX_QUEUED_BYTES / 1000);
    }
}
