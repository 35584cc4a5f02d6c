//! The running program: from a checked [`Config`] to the exit code.
//!
//! This file is the outline. `signals.rs` chooses the signals that are handled, `startup.rs` takes the steps of the start,
//! the same for both modes, `handler.rs` those of them that prepare a handler script, `front.rs` opens the port.
//!
//! Two places produce the message of a failed start: a step in `startup.rs` and below fails, or the first start of a
//! process does, which the supervisor reports (`Unit::refusal` of TensorFlow Serving and of Python workers). Both end the
//! supervisor's loop with a [`StartError`], which [`run`] returns and `main.rs` prints.

mod front;
mod handler;
mod signals;
mod startup;

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

/// When the program ends, a start that is still under way has this long to clean up.
const CLEANUP_LIMIT: Duration = Duration::from_secs(1);

/// Serves until a signal ends it.
///
/// # Errors
/// Why the start failed.
pub fn run(config: &Config) -> Result<(), StartError> {
    match start_and_serve(config) {
        Err(StartError::Stopped) => Ok(()),
        result => result,
    }
}

fn start_and_serve(config: &Config) -> Result<(), StartError> {
    start_log(config)?;
    log::info!("sagemaker-tfs {}", env!("CARGO_PKG_VERSION"));
    inherited::warn();
    descriptors::raise_limit();
    // Before any child exists, so that no signal is missed.
    let mut signals = signals::handle()?;

    // Starts before any step that takes time: it ends the start when a signal comes or a step fails.
    let (supervisor, inbox) = SupervisorHandle::new();
    let closer = signals.handle();
    let watchdog = start_thread("watchdog", move || {
        // Even if it panics: the main thread must not wait for signals forever.
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
    // Removes the temporary directory. A start that was cut short removes it itself, unless something blocks it.
    drop(files.recv_timeout(CLEANUP_LIMIT));
    result
}

fn start_log(config: &Config) -> Result<(), StartError> {
    let targets = [
        (logging::FRONT, config.front_log_level),
        // Children have log levels of their own: everything they print is wanted.
        (tfs::instance::LOG_TARGET, LevelFilter::Info),
        (handlers::worker::LOG_TARGET, LevelFilter::Info),
        (handlers::packages::LOG_TARGET, LevelFilter::Info),
        // The HTTP client's own lines repeat ours, and its debug lines would quote users' data.
        ("ureq", LevelFilter::Warn),
        ("ureq_proto", LevelFilter::Warn),
    ];
    logging::start(config.log_level, &targets)
}

/// Takes the steps of the start on a thread of its own, so that signals are handled whatever blocks a step. The receiver
/// gets the files that must last as long as the program; it disconnects when the start fails.
fn start_in_background(config: &Config, supervisor: &SupervisorHandle) -> Receiver<Files> {
    let (sender, files) = bounded(1);
    let (config, handle) = (config.clone(), supervisor.clone());
    let start = move || {
        match catch_unwind(AssertUnwindSafe(|| startup::start(&config, &handle))) {
            // The channel has room for them.
            Ok(Ok(files)) => drop(sender.send(files)),
            Ok(Err(error)) => handle.fail(error),
            Err(_) => handle.fail(StartError::failed("the start panicked")),
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
