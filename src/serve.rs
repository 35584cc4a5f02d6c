//! Puts everything together: from a checked [`Config`] to the end of the program.

use std::sync::Arc;
use std::thread;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::Config;
use crate::error::StartError;
use crate::front::{self, Front};
use crate::models::{self, Model};
use crate::tfs::backend::Backend;
use crate::tfs::command;
use crate::tfs::files::Files;
use crate::tfs::gpu;
use crate::tfs::instance::Limits;
use crate::watchdog::{Message, Watchdog};
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
    handlers::refuse(&config.model_dir, &config.handlers.program)?;
    let default_model = default_model(config, &models)?;
    let files = Files::write(config, &models)?;

    let slots = front::slots(config);
    let gpus = match config.instance_ports.len() {
        0 | 1 => 0,
        _ => gpu::count(),
    };
    let launches = command::launches(config, &files, gpus, slots);
    let backend = Arc::new(Backend::new(
        launches.iter().map(|l| l.ports.rest).collect(),
        config.deadline,
        slots + launches.len(),
    ));
    let front = Front::start(config, Arc::clone(&backend), default_model.clone())?;
    log::info!("listening on {}:{}", config.listen, config.port);

    let limits = Limits {
        wait_time: config.wait_time,
        unresponsive: config.deadline,
    };
    let (watchdog, messages) = Watchdog::new(launches, limits, backend, front, default_model)?;

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
        if messages.send(Message::Signal(signal)).is_err() {
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
