//! Puts everything together: from a checked [`Config`] to the end of the program.

use std::sync::Arc;
use std::thread;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::Config;
use crate::error::StartError;
use crate::front::{self, Front};
use crate::handlers::host::{Host, Launch};
use crate::handlers::interpreter::Interpreter;
use crate::handlers::invocation::Handlers;
use crate::handlers::packages::{self, Installed};
use crate::handlers::pool::Pool;
use crate::models::{self, Model};
use crate::supervise::lifecycle::Limits;
use crate::supervise::supervisor::Supervisor;
use crate::supervise::watchdog::Watchdog;
use crate::tfs::backend::Backend;
use crate::tfs::command;
use crate::tfs::files::Files;
use crate::tfs::gpu;
use crate::tfs::instance::Instance;
use crate::{handlers, logging};

/// Serves until a signal ends it.
///
/// # Errors
/// Why it cannot start, or why TensorFlow Serving did not.
pub fn run(config: &Config) -> Result<(), StartError> {
    if config.multi_model.is_some() {
        return Err(StartError::failed(
            "SAGEMAKER_MULTI_MODEL is true, but this version has no multi-model mode yet; unset it",
        ));
    }
    logging::start(config)?;
    log::info!("sagemaker-tfs {}", env!("CARGO_PKG_VERSION"));
    // Before any child exists, so that no signal is missed.
    let mut handled = vec![SIGCHLD, SIGTERM, SIGINT, SIGQUIT];
    if !is_ignored(SIGHUP) {
        handled.push(SIGHUP);
    }
    let mut signals = Signals::new(handled)
        .map_err(|e| StartError::failed(format!("cannot handle signals: {e}")))?;

    let models = models::discover(&config.model_dir)?;
    let default_model = default_model(config, &models)?;
    let files = Files::write(config, &models)?;
    let slots = front::slots(config);
    let workers = match handlers::find(&config.model_dir, &config.handlers.program) {
        None => None,
        Some(script) => {
            let interpreter = Interpreter::find(&script)?;
            if packages::install(&script, &interpreter, &mut signals)? == Installed::Stopped {
                return Ok(());
            }
            let launch = Launch::new(config, script, interpreter, &files, slots, &default_model);
            Some(Arc::new(launch))
        }
    };

    let gpus = match config.instance_ports.len() {
        0 | 1 => 0,
        _ => gpu::count(),
    };
    let launches = command::launches(config, &files, gpus, slots);
    let backend = Arc::new(Backend::new(
        launches.iter().map(|launch| launch.ports).collect(),
        config.deadline,
        slots + launches.len(),
    ));
    let handlers = workers.as_ref().map(|launch| Handlers {
        pool: Arc::new(Pool::new(launch.workers, config.deadline)),
        backend: Arc::clone(&backend),
        limit: config.deadline,
        timeout: launch.timeout.unwrap_or_default(),
        context_timeout: config.handlers.context_timeout.as_secs(),
    });
    let pool = handlers.as_ref().map(|handlers| Arc::clone(&handlers.pool));
    let front = Front::start(
        config,
        Arc::clone(&backend),
        handlers,
        default_model.clone(),
    )?;
    log::info!("listening on {}:{}", config.listen, config.port);

    let (supervisor, inbox) = Supervisor::new();
    for (index, launch) in launches.into_iter().enumerate() {
        let (backend, model) = (Arc::clone(&backend), default_model.clone());
        let id = supervisor.new_id();
        let instance = Instance::new(id, index, launch, backend, model, supervisor.clone())
            .map_err(|e| StartError::failed(format!("cannot start a thread: {e}")))?;
        let limits = Instance::limits(config.wait_time, config.deadline);
        supervisor.keep(id, Box::new(instance), limits);
    }
    if let (Some(launch), Some(pool)) = (workers, pool) {
        for index in 0..launch.workers {
            let (launch, pool) = (Arc::clone(&launch), Arc::clone(&pool));
            let id = supervisor.new_id();
            let host = Host::new(id, index, launch, pool, supervisor.clone());
            // A script may take as long as it needs to load.
            supervisor.keep(id, Box::new(host), Limits::default());
        }
    }
    let watchdog = Watchdog::new(front, inbox);

    let closer = signals.handle();
    let watchdog = thread::Builder::new()
        .name("watchdog".into())
        .spawn(move || {
            // Also when it panics: the main thread must not wait for signals for ever.
            let _close = OnDrop(|| closer.close());
            watchdog.run()
        })
        .map_err(|e| StartError::failed(format!("cannot start a thread: {e}")))?;
    for signal in signals.forever() {
        if !supervisor.signal(signal) {
            break;
        }
    }
    watchdog
        .join()
        .unwrap_or_else(|_| Err(StartError::failed("the watchdog thread panicked")))
}

/// Whether a signal was ignored when we were started, as `nohup` does with SIGHUP.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The model for requests that name none.
fn default_model(config: &Config, models: &[Model]) -> Result<String, StartError> {
    for model in models {
        log::info!(
            "model {}, versions {:?}, in {}",
            model.name,
            model.versions,
            model.path.display()
        );
    }
    match &config.default_model_name {
        None => Ok(models[0].name.clone()),
        Some(name) if models.iter().any(|m| m.name == *name) => Ok(name.clone()),
        Some(name) => {
            let names: Vec<_> = models.iter().map(|m| m.name.as_str()).collect();
            Err(StartError::failed(format!(
                "SAGEMAKER_TFS_DEFAULT_MODEL_NAME is {name:?}, but the models found are: {}",
                names.join(", ")
            )))
        }
    }
}
