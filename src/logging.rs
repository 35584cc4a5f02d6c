//! The log: lines on standard error, one level for the HTTP front and one for everything else.

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
        .with_module_level("ureq", LevelFilter::Warn)
        .with_module_level("ureq_proto", LevelFilter::Warn);
    log::set_max_level(logger.max_level());
    log::set_boxed_logger(Box::new(Unfailing(logger)))
        .map_err(|e| StartError::failed(format!("cannot start logging: {e}")))
}

/// simple_logger panics when standard error is closed. Serving goes on without a log.
struct Unfailing(SimpleLogger);

impl Log for Unfailing {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.0.log(record)));
    }

    fn flush(&self) {
        self.0.flush();
    }
}
