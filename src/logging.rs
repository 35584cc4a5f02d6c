//! The log: lines on standard error, one level for the HTTP front and one for everything else.
//!
//! What is logged may come from clients, from a model server that repeats what clients sent, or from users' code.
//! None of it can make a line that looks like another part's, nor command the terminal that shows the log.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use log::{LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

use crate::config::Config;
use crate::error::StartError;
use crate::{handlers, tfs};

/// Log target of the HTTP front and its access lines.
pub const FRONT: &str = "sagemaker_tfs::front";

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
        .with_module_level(handlers::host::LOG_TARGET, LevelFilter::Info)
        .with_module_level(handlers::packages::LOG_TARGET, LevelFilter::Info)
        // The libraries' own lines repeat ours, and their debug lines would quote users' data.
        .with_module_level("tiny_http", LevelFilter::Off)
        .with_module_level("ureq", LevelFilter::Warn)
        .with_module_level("ureq_proto", LevelFilter::Warn);
    log::set_max_level(logger.max_level());
    log::set_boxed_logger(Box::new(Careful(logger)))
        .map_err(|e| StartError::failed(format!("cannot start logging: {e}")))
}

/// Writes each line of a message with its own time and origin, and nothing that is not text. simple_logger panics when
/// standard error is closed; serving goes on without a log.
struct Careful(SimpleLogger);

impl Log for Careful {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return; // what follows costs
        }
        let text = record.args().to_string();
        let write = |line| {
            let mut part = Record::builder();
            part.metadata(record.metadata().clone())
                .module_path(record.module_path());
            self.0
                .log(&part.args(format_args!("{}", printable(line))).build());
        };
        let lines = text.trim_end_matches('\n').split('\n');
        let _ = catch_unwind(AssertUnwindSafe(|| lines.for_each(write)));
    }

    fn flush(&self) {
        self.0.flush();
    }
}

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
}
