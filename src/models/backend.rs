//! The processes that serve a model: TFS instances, and Python workers if there is a handler script.
//!
//! Both startup and the loads of multi-model mode create them here. The callers decide when to start what, and what
//! happens when a start fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;

use crate::config::settings::tuning::WARMUP_REQUEST;
use crate::config::{Config, InstancePorts};
use crate::handlers::invocation::Handlers;
use crate::handlers::launch::{Launch, label};
use crate::handlers::pool::{self, Pool};
use crate::handlers::worker::Worker;
use crate::memory;
use crate::supervisor::handle::{SupervisorHandle, UnitId};
use crate::supervisor::lifecycle::Limits;
use crate::supervisor::unit::{StartFailure, Unit};
use crate::tfs::backend::Backend;
use crate::tfs::command;
use crate::tfs::files::Files;
use crate::tfs::instance::Instance;
use crate::tfs::model::Model;
use crate::tfs::signatures::SignatureTable;
use crate::tfs::status::Versions;

/// What serves a model, or several models together.
#[derive(Debug)]
pub struct ModelBackend {
    /// The TFS instances.
    pub backend: Arc<Backend>,
    /// The Python workers, if there is a handler script.
    pub handlers: Option<Handlers>,
    /// The model for requests that name no model.
    pub default_model: String,
    /// The names of the models towards TFS, by the names of their folders; empty in multi-model mode, where folders do
    /// not count.
    names: BTreeMap<String, String>,
    /// Whether the requests of `SAGEMAKER_TFS_WARMUP_REQUEST` have been answered; set by the start.
    pub is_warm: Arc<AtomicBool>,
}

impl ModelBackend {
    /// A backend that sends requests to `backend`, through the handlers of `workers` if there are any.
    pub fn new(
        backend: &Arc<Backend>,
        workers: Option<&HandlerWorkers>,
        default_model: &str,
        config: &Config,
    ) -> Self {
        Self {
            backend: Arc::clone(backend),
            handlers: workers.map(|workers| workers.handlers(backend, default_model, config)),
            default_model: default_model.to_owned(),
            names: BTreeMap::new(),
            is_warm: Arc::new(AtomicBool::new(config.warm_up_requests.is_empty())),
        }
    }

    /// Makes the names of these models' folders known, which clients may use.
    pub fn set_names(&mut self, models: &[Model]) {
        let pair = |model: &Model| (model.folder_name().to_owned(), model.name.clone());
        self.names = models.iter().map(pair).collect();
    }

    /// The name towards TFS of the model in the folder of this name.
    pub fn name_of(&self, folder: &str) -> Option<&str> {
        self.names.get(folder).map(String::as_str)
    }

    /// Checks that requests can be served now.
    ///
    /// # Errors
    /// What is not ready, and for how long.
    pub fn check(&self) -> Result<(), String> {
        let handlers = self.handlers.as_ref();
        let workers = handlers.map_or(Ok(()), |handlers| handlers.pool.check());
        match (self.backend.pool.check(), workers) {
            (Err(instances), Err(workers)) => return Err(format!("{instances}; {workers}")),
            (instances, workers) => instances.and(workers)?,
        }
        if !self.is_warm.load(Ordering::Acquire) {
            return Err(format!(
                "warming up: {} is not answered yet",
                WARMUP_REQUEST.name
            ));
        }
        Ok(())
    }
}

/// A handler script and the workers that run it.
#[derive(Debug, Clone)]
pub struct HandlerWorkers {
    /// How the workers are started.
    pub launch: Arc<Launch>,
    /// The state of the workers.
    pub pool: Arc<Pool>,
}

impl HandlerWorkers {
    /// Workers that have not been started yet.
    pub fn new(launch: Launch) -> Self {
        Self {
            pool: Pool::new(launch.workers),
            launch: Arc::new(launch),
        }
    }

    fn handlers(&self, backend: &Arc<Backend>, default_model: &str, config: &Config) -> Handlers {
        Handlers {
            pool: Arc::clone(&self.pool),
            backend: Arc::clone(backend),
            limit: config.deadline,
            timeout: self.launch.timeout.unwrap_or_default(),
            context_timeout: config.handlers.context_timeout.as_secs(),
            default_model: default_model.to_owned(),
            formats: config.formats.clone(),
            memory: memory::for_requests(config.body_memory),
            errors: config.handlers.errors,
        }
    }

    /// Shows in `/ping` what the workers, which have not been started, wait for.
    pub fn announce(&self, what: &str) {
        pool::announce(&self.pool, self.launch.workers, what);
    }

    /// Starts the workers and returns the numbers of their units. `starter` is as in [`start_instances`].
    pub fn start(
        &self,
        supervisor: &SupervisorHandle,
        starter: Option<&Sender<Result<(), StartFailure>>>,
    ) -> Vec<UnitId> {
        let ids = (0..self.launch.workers).map(|index| {
            let (launch, pool) = (Arc::clone(&self.launch), Arc::clone(&self.pool));
            let id = supervisor.new_id();
            let worker = Worker::new(id, index, launch, pool, supervisor.clone());
            // No limits: a script may take any time to load.
            keep(supervisor, id, Box::new(worker), Limits::default(), starter);
            id
        });
        ids.collect()
    }
}

/// A backend for instances on these ports, which have not been started yet.
pub fn backend(config: &Config, ports: &[InstancePorts]) -> Arc<Backend> {
    let connections = config.model_slots() + ports.len();
    let in_flight = command::in_flight(config);
    let mut backend = Backend::new(ports.to_vec(), config.deadline, in_flight, connections);
    backend.signatures = SignatureTable::new(config.formats.default_signature.clone());
    Arc::new(backend)
}

/// Starts the instances of `backend`, each of which serves all `models`, and returns the numbers of their units.
/// `starter` gets the result of each first start; without it, the program ends when one fails.
///
/// # Errors
/// When the thread of a probe cannot be started; no instance is left running then.
pub fn start_instances(
    config: &Config,
    files: &Files,
    backend: &Arc<Backend>,
    models: &[Model],
    gpus: u32,
    supervisor: &SupervisorHandle,
    starter: Option<&Sender<Result<(), StartFailure>>>,
) -> Result<Vec<UnitId>, StartFailure> {
    let launches = command::launches(config, files, &backend.ports, gpus);
    let mut ids = Vec::new();
    for (index, launch) in launches.into_iter().enumerate() {
        let (backend, id) = (Arc::clone(backend), supervisor.new_id());
        // In multi-model mode (with a starter), the label includes the model's name.
        let label = label(starter.map(|_| models[0].name.as_str()), index);
        let versions = models.iter().map(Versions::from).collect();
        let instance = Instance::new(
            id,
            index,
            label,
            launch,
            backend,
            versions,
            supervisor.clone(),
        );
        let instance = instance.map_err(|e| {
            supervisor.release(std::mem::take(&mut ids));
            StartFailure {
                text: format!("cannot start the thread probe-{index}: {e}"),
                out_of_resources: true,
            }
        })?;
        let limits = Instance::limits(config.wait_time, config.deadline);
        keep(supervisor, id, Box::new(instance), limits, starter);
        ids.push(id);
    }
    Ok(ids)
}

fn keep(
    supervisor: &SupervisorHandle,
    id: UnitId,
    unit: Box<dyn Unit>,
    limits: Limits,
    starter: Option<&Sender<Result<(), StartFailure>>>,
) {
    match starter {
        Some(starter) => supervisor.keep_for(id, unit, limits, starter.clone()),
        None => supervisor.keep(id, unit, limits),
    }
}
