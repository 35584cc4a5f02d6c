//! Opens the port: the settings of the HTTP server, and the server as the supervisor sees it.

use std::thread;

use crate::api::{Api, Mode};
use crate::config::{self, Config};
use crate::error::StartError;
use crate::handlers::launch;
use crate::http::{self, Server};
use crate::supervisor::drain::Drain;
use crate::supervisor::handle::SupervisorHandle;
use crate::{descriptors, memory, wait};

/// File descriptors for everything but connections: the log, children, downloads.
const OTHER_FILES: usize = 256;
/// File descriptors a slot may need: a connection to TensorFlow Serving, and an idle one.
const FILES_A_SLOT: usize = 2;
/// Without anything to go by, memory for requests, bytes.
const DEFAULT_REQUEST_MEMORY: u64 = 1 << 30;
/// The part of all memory that requests may take when nothing is set. TensorFlow Serving needs some for each of them, too.
const REQUEST_MEMORY_PART: u64 = 4;

/// Requests that wait for a slot; each holds its connection and its body.
const MAX_BACKLOG: usize = 1024;

/// Opens the port. From now on the supervisor drains requests when a signal ends the program.
///
/// # Errors
/// When the port cannot be opened, or a thread not be started.
pub fn open(config: &Config, mode: Mode, supervisor: &SupervisorHandle) -> Result<(), StartError> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    wait::start_computing(cpus)
        .map_err(|e| StartError::failed(format!("cannot start a thread: {e}")))?;
    let settings = server_settings(config, &mode, cpus);
    Server::start(&settings, Api::new(config, mode), |server| {
        supervisor.drain_at_end(Box::new(server));
    })?;
    log::info!("listening on {}:{}", config.listen, config.port);
    Ok(())
}

impl Drain for Server<Api> {
    fn stop_accepting(&self) {
        self.stop_accepting();
    }

    fn in_flight(&self) -> usize {
        self.in_flight()
    }

    fn refuse_the_rest(&self) {
        self.refuse_the_rest();
    }

    fn finish(&self) {
        self.finish();
    }
}

fn server_settings(config: &Config, mode: &Mode, cpus: usize) -> http::Settings {
    let memory = config.body_memory.unwrap_or_else(|| {
        memory::total().map_or(DEFAULT_REQUEST_MEMORY, |total| total / REQUEST_MEMORY_PART)
    });
    let slots = config.slots();
    let files = descriptors::limit();
    let left = files - channel_files(config, mode).min(files / 2);
    let reserved = OTHER_FILES + FILES_A_SLOT * slots;
    http::Settings {
        listen: (config.listen, config.port),
        workers: match config.workers {
            config::Workers::Coroutines(threads) => http::Workers::Coroutines(threads),
            config::Workers::Threads => http::Workers::Threads(cpus),
        },
        slots,
        backlog: MAX_BACKLOG,
        deadline: config.deadline,
        memory: usize::try_from(memory).unwrap_or(usize::MAX),
        // With few descriptors they get half of them.
        max_connections: left.saturating_sub(reserved).max(left / 2),
    }
}

/// File descriptors for all channels to Python workers.
fn channel_files(config: &Config, mode: &Mode) -> usize {
    // In multi-model mode models that come later may bring scripts.
    let scripts = match mode {
        Mode::Fixed(served) => usize::from(served.handlers.is_some()),
        Mode::Registry(_) => config::MODELS_AT_WORK,
    };
    launch::FILES_A_CHANNEL * scripts * launch::workers(config) * launch::channels(config)
}
