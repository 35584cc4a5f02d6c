//! The running program, from a checked [`Config`] to the exit code.
//!
//! This file is the outline. `signals.rs` chooses the signals to handle, `startup.rs` takes the steps of the start for
//! both modes, `handler.rs` takes the steps that prepare a handler script, `front.rs` opens the port, and `warm_up.rs`
//! sends the first requests.
//!
//! The start fails in one of two places: in a step in `startup.rs` and below, or in the first start of a process, which
//! the supervisor reports with the text of [`Unit::refusal`](crate::supervisor::unit::Unit::refusal). Both end the
//! supervisor's loop with a [`StartError`], which [`run`] returns and `main.rs` prints.

mod front;
mod handler;
mod signals;
mod startup;
mod warm_up;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use log::LevelFilter;

use crate::config::Config;
use crate::error::StartError;
use crate::supervisor::event_loop::Supervisor;
use crate::supervisor::handle::SupervisorHandle;
use crate::supervisor::inherited;
use crate::tfs::files::Files;
use crate::{descriptors, handlers, logging, tfs};

/// When the program ends during the start, the start has this long to clean up.
const CLEANUP_LIMIT: Duration = Duration::from_secs(1);

/// Serves until a signal ends the program, which is no error, also during the start.
///
/// # Errors
/// Why the start failed, or why the supervisor had to stop.
pub fn run(config: &Config) -> Result<(), StartError> {
    match start_and_serve(config) {
        Err(StartError::Stopped) => Ok(()),
        result => result,
    }
}

fn start_and_serve(config: &Config) -> Result<(), StartError> {
    start_log(config)?;
    log::info!("sagemaker-tfs {}", env!("CARGO_PKG_VERSION"));
    for remark in &config.remarks {
        log::warn!("{remark}");
    }
    inherited::warn();
    descriptors::raise_limit();
    // Before any child exists, so that no signal is missed.
    let mut signals = signals::handle()?;

    // The watchdog runs before any step that takes time, because it ends the start when a signal comes or a step fails.
    let (supervisor, inbox) = SupervisorHandle::new();
    let closer = signals.handle();
    let watchdog = start_thread("watchdog", move || {
        // On a panic, too: otherwise the main thread would wait for signals forever.
        let _close = OnDrop(|| closer.close());
        Supervisor::new(inbox).run()
    })?;
    let files = start_in_background(config, &supervisor);
    for signal in signals.forever() {
        if !supervisor.signal(signal) {
            break;
        }
    }
    let result = watchdog
        .join()
        .unwrap_or_else(|_| Err(StartError::failed("the watchdog thread panicked")));
    // Dropping the files removes the temporary directory. A start that was cut short drops them itself, unless a step
    // blocks.
    drop(files.recv_timeout(CLEANUP_LIMIT));
    result
}

fn start_log(config: &Config) -> Result<(), StartError> {
    let targets = [
        (logging::FRONT, config.front_log_level),
        // Children have log levels of their own, so the log shows everything that they print.
        (tfs::instance::LOG_TARGET, LevelFilter::Info),
        (handlers::worker::LOG_TARGET, LevelFilter::Info),
        (handlers::packages::LOG_TARGET, LevelFilter::Info),
        // The HTTP client's lines repeat the program's own, and its debug lines would quote users' data.
        ("ureq", LevelFilter::Warn),
        ("ureq_proto", LevelFilter::Warn),
    ];
    logging::start(config.log_level, &targets)
}

/// Takes the steps of the start on their own thread, so that a blocked step does not keep signals from being handled.
/// The receiver gets the files that must exist as long as the program runs; it disconnects when the start fails.
fn start_in_background(config: &Config, supervisor: &SupervisorHandle) -> Receiver<Files> {
    let (sender, files) = bounded(1);
    let (config, handle) = (config.clone(), supervisor.clone());
    let start = move || {
        match catch_unwind(AssertUnwindSafe(|| startup::start(&config, &handle))) {
            // Does not block: the channel has room for one message.
            Ok(Ok(files)) => drop(sender.send(files)),
            Ok(Err(error)) => handle.fail(error),
            Err(_) => handle.fail(StartError::failed("the start thread panicked")),
        }
    };
    if let Err(error) = start_thread("start", start) {
        supervisor.fail(error);
    }
    files
}

fn start_thread<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StartError> {
    let thread = thread::Builder::new().name(name.into());
    let started = thread.spawn(run);
    started.map_err(|e| StartError::failed(format!("cannot start the thread {name}: {e}")))
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
