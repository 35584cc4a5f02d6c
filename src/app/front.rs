//! Opens the port: derives the HTTP server's settings from [`Config`], starts the server, and gives the supervisor a
//! [`Drain`] to stop it with. What routes do is left to `api`.

use std::sync::Arc;
use std::thread;

use crate::api::{Api, Mode};
use crate::app::warm_up::OwnRequest;
use crate::config::{self, Config};
use crate::error::StartError;
use crate::handlers::launch;
use crate::http::{self, Server};
use crate::supervisor::drain::Drain;
use crate::supervisor::handle::SupervisorHandle;
use crate::{descriptors, memory, wait};

/// File descriptors for everything but connections: the log, children, downloads.
const OTHER_FILES: usize = 256;
/// File descriptors that a slot may need: a connection to TensorFlow Serving, and an idle one.
const FILES_PER_SLOT: usize = 2;
/// Maximum number of requests that wait for a slot; each holds its connection and its body.
const MAX_BACKLOG: usize = 1024;

/// Opens the port. From then on, the supervisor drains requests before the program ends, but not the server's own.
///
/// # Errors
/// When the port cannot be opened or a thread cannot be started.
pub fn open(
    config: &Config,
    mode: Mode,
    own: Arc<OwnRequest>,
    supervisor: &SupervisorHandle,
) -> Result<(), StartError> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    wait::start_computing(cpus)
        .map_err(|e| StartError::failed(format!("cannot start a thread: {e}")))?;
    let settings = server_settings(config, &mode, cpus);
    Server::start(&settings, Api::new(config, mode), |server| {
        supervisor.drain_at_end(Box::new(Front { server, own }));
    })?;
    log::info!("listening on {}:{}", config.listen, config.port);
    Ok(())
}

struct Front {
    server: Server<Api>,
    own: Arc<OwnRequest>,
}

impl Drain for Front {
    fn stop_accepting(&self) {
        self.own.stop();
        self.server.stop_accepting();
    }

    fn in_flight(&self) -> usize {
        self.server.in_flight().saturating_sub(self.own.in_flight())
    }

    fn refuse_the_rest(&self) {
        self.server.refuse_the_rest();
    }

    fn finish(&self) {
        self.server.finish();
    }
}

fn server_settings(config: &Config, mode: &Mode, cpus: usize) -> http::Settings {
    let slots = config.slots();
    let files = descriptors::limit();
    let left = files - channel_files(config, mode).min(files / 2);
    let reserved = OTHER_FILES + FILES_PER_SLOT * slots;
    http::Settings {
        listen: (config.listen, config.port),
        workers: match config.workers {
            config::Workers::Coroutines(threads) => http::Workers::Coroutines(threads),
            config::Workers::Threads => http::Workers::Threads(cpus),
        },
        slots,
        backlog: MAX_BACKLOG,
        deadline: config.deadline,
        memory: memory::for_requests(config.body_memory),
        // When descriptors are scarce, connections still get half of those left.
        max_connections: left.saturating_sub(reserved).max(left / 2),
    }
}

/// File descriptors for all channels to Python workers.
fn channel_files(config: &Config, mode: &Mode) -> usize {
    // In multi-model mode, models loaded later may have scripts.
    let scripts = match mode {
        Mode::Fixed(served) => usize::from(served.handlers.is_some()),
        Mode::Registry(_) => config::MODELS_AT_WORK,
    };
    launch::FILES_PER_CHANNEL * scripts * launch::workers(config) * launch::channels(config)
}
