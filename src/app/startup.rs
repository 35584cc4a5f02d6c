//! The start, step by step and for both modes: models, files, the handler script, GPUs, the port, processes, and what the
//! script needs.
//!
//! A step that runs another program or may block is a task of the supervisor, so a signal or a failure elsewhere can
//! end the start at any moment ([`StartError::Stopped`]). Loading a model in multi-model mode, while a client waits, is
//! left to `models/load.rs`; both build on `models/backend.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::Mode;
use crate::app::warm_up::{OwnRequest, WarmUp};
use crate::app::{front, handler, start_thread};
use crate::config::settings::batching::BATCHING;
use crate::config::settings::model_server::DEFAULT_MODEL_NAME;
use crate::config::{Config, MultiModelConfig};
use crate::error::StartError;
use crate::models::backend::{self, HandlerWorkers, ModelBackend};
use crate::models::load::Loader;
use crate::models::ports::PortPool;
use crate::models::registry::Registry;
use crate::models::{self, Found, Model, labels, remarks};
use crate::supervisor::handle::SupervisorHandle;
use crate::tfs::backend::Backend;
use crate::tfs::files::{self, Files};
use crate::tfs::gpu;

/// The deadline of one round of a wait without a limit.
const WAIT_ROUND: Duration = Duration::from_secs(3600);

/// What the steps before the opening of the port have found or made.
struct Prepared<'a> {
    config: &'a Config,
    supervisor: &'a SupervisorHandle,
    files: &'a Files,
    /// The workers of the handler script, if there is a script.
    workers: Option<HandlerWorkers>,
    gpus: u32,
}

/// Takes all steps. Returns the files that must exist as long as the program runs.
///
/// # Errors
/// Why a step failed; [`StartError::Stopped`] when the supervisor stops.
pub fn start(config: &Config, supervisor: &SupervisorHandle) -> Result<Files, StartError> {
    // In multi-model mode, clients load models later.
    let models = match config.multi_model {
        None => find_models(config)?,
        Some(_) => Vec::new(),
    };
    let default_model = default_model(config, &models)?;
    let labels = labels::by_model(&config.version_labels, &models, &default_model)?;
    let warm_up = WarmUp::new(config)?;
    report_settings(config);
    let files = Files::write(config, &models, &labels)?;
    let workers = handler::find(config, &default_model, &files, supervisor)?;
    let gpus = count_gpus(config, supervisor)?;
    let prepared = Prepared {
        config,
        supervisor,
        files: &files,
        workers,
        gpus,
    };
    match &config.multi_model {
        None => prepared.serve_models(&models, &default_model, warm_up)?,
        Some(multi_model) => prepared.serve_registry(multi_model)?,
    }
    Ok(files)
}

/// Finds the models, and warns about scripts that have no effect.
fn find_models(config: &Config) -> Result<Vec<Model>, StartError> {
    let found = models::discover(&config.model_dir, None)?;
    let Found { models, search, .. } = found;
    let program = &config.handlers.program;
    remarks::warn("", remarks::about_names(&models));
    remarks::warn("", found.left_out);
    let about_scripts = remarks::about_scripts(&search, &[&search.root], program);
    remarks::warn("", about_scripts);
    Ok(models)
}

/// The model for requests that name no model; empty without models.
fn default_model(config: &Config, models: &[Model]) -> Result<String, StartError> {
    for model in models {
        log::info!(
            "model {}, versions {:?}, in {}",
            model.name,
            model.versions,
            model.path.display()
        );
    }
    let Some(first) = models.first() else {
        return Ok(String::new());
    };
    match &config.default_model_name {
        None => Ok(first.name.clone()),
        Some(name) => {
            if let Some(model) = models.iter().find(|model| model.is_named(name)) {
                return Ok(model.name.clone());
            }
            let names: Vec<_> = models.iter().map(|m| m.folder_name()).collect();
            Err(StartError::failed(format!(
                "SAGEMAKER_TFS_DEFAULT_MODEL_NAME is {name:?}, but the models found are: {}",
                names.join(", ")
            )))
        }
    }
}

/// Logs what follows from several settings together, and which have no effect.
fn report_settings(config: &Config) {
    if let Some(batching) = &config.batching {
        let parameters = files::batching_parameters(batching);
        log::info!(
            "batching parameters: {}",
            parameters.trim_end().replace('\n', ", ")
        );
    }
    if !config.without_effect.is_empty() {
        let names = config.without_effect.join(", ");
        log::warn!("{names}: no effect without {}=true", BATCHING.name);
    }
    if config.multi_model.is_some() && config.default_model_name.is_some() {
        log::warn!(
            "{}: no effect in multi-model mode, where each request names its model",
            DEFAULT_MODEL_NAME.name
        );
    }
}

/// The number of GPUs if several instances share them; otherwise 0, because a single instance needs no share.
fn count_gpus(config: &Config, supervisor: &SupervisorHandle) -> Result<u32, StartError> {
    let instances = match &config.multi_model {
        None => config.instance_ports.len(),
        Some(multi_model) => multi_model.instances as usize,
    };
    match instances {
        0 | 1 => Ok(0),
        _ => gpu::count(supervisor),
    }
}

impl Prepared<'_> {
    /// Opens the port and starts the processes for these models.
    fn serve_models(
        self,
        models: &[Model],
        default_model: &str,
        warm_up: WarmUp,
    ) -> Result<(), StartError> {
        let (config, supervisor) = (self.config, self.supervisor);
        let backend = backend::backend(config, &config.instance_ports);
        let mut served = ModelBackend::new(&backend, self.workers.as_ref(), default_model, config);
        served.set_names(models);
        let is_warm = Arc::clone(&served.is_warm);
        let own = Arc::new(OwnRequest::default());
        let mode = Mode::Fixed(Box::new(served));
        front::open(config, mode, Arc::clone(&own), supervisor)?;
        backend::start_instances(
            config, self.files, &backend, models, self.gpus, supervisor, None,
        )
        .map_err(|failure| StartError::failed(failure.text))?;
        let instances = Arc::clone(&backend.pool);
        let workers = self
            .workers
            .as_ref()
            .map(|workers| Arc::clone(&workers.pool));
        let is_serving = move || {
            until(|deadline| instances.wait_until_serving(deadline).is_ok());
            if let Some(workers) = workers {
                until(|deadline| workers.wait_until_serving(deadline).is_ok());
            }
        };
        warm_up.start(is_serving, is_warm, own, supervisor.clone())?;
        let Some(workers) = self.workers else {
            return Ok(());
        };
        // While TFS loads the models.
        handler::complete(config, &workers, self.files, supervisor)?;
        start_when_available(workers, backend, supervisor.clone())
    }

    /// Opens the port for clients that load models.
    fn serve_registry(self, multi_model: &MultiModelConfig) -> Result<(), StartError> {
        let (config, supervisor) = (self.config, self.supervisor);
        let (low, high) = multi_model.ports;
        let ports = PortPool::new(low, high, config.port);
        // Models' files go below the program's directory: models still loaded when the program ends are never dropped,
        // so they do not remove their files themselves.
        let config_of_models = Config {
            tmp_dir: self.files.directory().to_owned(),
            ..config.clone()
        };
        let handle = supervisor.clone();
        let loader = Loader::new(
            &config_of_models,
            ports,
            handle,
            self.gpus,
            self.workers.clone(),
        );
        let registry = Registry::new(config, loader);
        let mode = Mode::Registry(Box::new(registry));
        front::open(config, mode, Arc::default(), supervisor)?;
        if let Some(workers) = self.workers {
            handler::complete(config, &workers, self.files, supervisor)?;
            workers.start(supervisor, None);
        }
        Ok(())
    }
}

/// Waits without a limit, in rounds. `wait` waits up to a deadline and returns whether the wait is over.
fn until(wait: impl Fn(Instant) -> bool) {
    while !wait(Instant::now() + WAIT_ROUND) {}
}

/// Starts workers once the models are AVAILABLE, because a script may use the models while it is being loaded.
fn start_when_available(
    workers: HandlerWorkers,
    backend: Arc<Backend>,
    supervisor: SupervisorHandle,
) -> Result<(), StartError> {
    let wait = move || {
        until(|deadline| backend.pool.wait_until_serving(deadline).is_ok());
        workers.start(&supervisor, None);
    };
    start_thread("handlers", wait).map(drop)
}
