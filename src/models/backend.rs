//! What serves the requests of a model: TensorFlow Serving instances, and Python workers if there is a handler script.
//!
//! Used alike by the start and by loads of multi-model mode. Their callers decide what runs when, and what a failure costs.

use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::config::{Config, InstancePorts};
use crate::handlers::invocation::Handlers;
use crate::handlers::launch::{Launch, label};
use crate::handlers::pool::Pool;
use crate::handlers::worker::Worker;
use crate::supervisor::handle::{SupervisorHandle, UnitId};
use crate::supervisor::lifecycle::Limits;
use crate::supervisor::unit::{StartFailure, Unit};
use crate::tfs::backend::Backend;
use crate::tfs::command;
use crate::tfs::files::Files;
use crate::tfs::instance::Instance;
use crate::tfs::model::Model;
use crate::tfs::status::Versions;

/// A model, or several served together, and the processes behind them.
#[derive(Debug)]
pub struct ModelBackend {
    /// TensorFlow Serving.
    pub backend: Arc<Backend>,
    /// When there is a handler script.
    pub handlers: Option<Handlers>,
    /// The model for requests that name none.
    pub default_model: String,
}

impl ModelBackend {
    /// Requests go to `backend`, by way of `workers` if there are any.
    pub fn new(
        backend: &Arc<Backend>,
        workers: Option<&HandlerWorkers>,
        default_model: &str,
        config: &Config,
    ) -> Self {
        Self {
            backend: Arc::clone(backend),
            handlers: workers.map(|workers| workers.handlers(backend, config)),
            default_model: default_model.to_owned(),
        }
    }

    /// Whether requests can be served now.
    ///
    /// # Errors
    /// When not: what is missing, and for how long.
    pub fn check(&self) -> Result<(), String> {
        self.backend.pool.check()?;
        self.handlers
            .as_ref()
            .map_or(Ok(()), |handlers| handlers.pool.check())
    }
}

/// A handler script and the workers that run it.
#[derive(Debug, Clone)]
pub struct HandlerWorkers {
    /// How they are started.
    pub launch: Arc<Launch>,
    /// Who is free.
    pub pool: Arc<Pool>,
}

impl HandlerWorkers {
    /// Workers that have yet to be started.
    pub fn new(launch: Launch) -> Self {
        Self {
            pool: Pool::new(launch.workers),
            launch: Arc::new(launch),
        }
    }

    fn handlers(&self, backend: &Arc<Backend>, config: &Config) -> Handlers {
        Handlers {
            pool: Arc::clone(&self.pool),
            backend: Arc::clone(backend),
            limit: config.deadline,
            timeout: self.launch.timeout.unwrap_or_default(),
            context_timeout: config.handlers.context_timeout.as_secs(),
        }
    }

    /// Starts the workers and returns their units' numbers. `starter` is as for [`start_instances`].
    pub fn start(
        &self,
        supervisor: &SupervisorHandle,
        starter: Option<&Sender<Result<(), StartFailure>>>,
    ) -> Vec<UnitId> {
        let hosts = (0..self.launch.workers).map(|index| {
            let (launch, pool) = (Arc::clone(&self.launch), Arc::clone(&self.pool));
            let id = supervisor.new_id();
            let host = Worker::new(id, index, launch, pool, supervisor.clone());
            // A script may take as long as it needs to load.
            keep(supervisor, id, Box::new(host), Limits::default(), starter);
            id
        });
        hosts.collect()
    }
}

/// A backend for instances with these ports.
pub fn backend(config: &Config, ports: &[InstancePorts]) -> Arc<Backend> {
    let connections = config.model_slots() + ports.len();
    let in_flight = command::in_flight(config);
    Arc::new(Backend::new(
        ports.to_vec(),
        config.deadline,
        in_flight,
        connections,
    ))
}

/// Starts the instances of `backend`, each of which serves `models`, and returns their units' numbers. `starter` gets the
/// result of each start; without it the program ends when one fails.
///
/// # Errors
/// When a thread cannot be started; nothing is left running then.
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
        // In multi-model mode there are instances of several models.
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
                text: format!("cannot start a thread: {e}"),
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
