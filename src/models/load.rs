//! Loading a model in multi-model mode, step by step, and undoing the steps when one fails.
//!
//! A [`Loader`] has what all loads need. Each load takes ports, files and processes as it goes ([`Load`]); until the end
//! they are the load's own and go back when it fails. Which models there are is for the registry to know.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};

use crate::config::{Config, InstancePorts};
use crate::error::RequestError;
use crate::handlers::interpreter::Interpreter;
use crate::handlers::launch::Launch;
use crate::handlers::{self, packages};
use crate::memory;
use crate::models::Model;
use crate::models::backend::{self, HandlerWorkers, ModelBackend};
use crate::models::location::find_model;
use crate::models::ports::PortPool;
use crate::models::semaphore::Semaphore;
use crate::supervisor::child::Streams;
use crate::supervisor::handle::{SupervisorHandle, UnitId};
use crate::supervisor::unit::StartFailure;
use crate::tfs::files::Files;

/// Loads models, and takes what they have away from them again.
pub struct Loader {
    config: Config,
    supervisor: SupervisorHandle,
    ports: PortPool,
    gpus: u32,
    /// For models without a script of their own.
    universal: Option<HandlerWorkers>,
    /// The Python of all scripts that come with models, once one has needed it.
    interpreter: OnceLock<Interpreter>,
}

/// A model that can be used, and everything it has.
pub struct Loaded {
    /// Where it was loaded from.
    pub url: String,
    /// What serves it.
    pub backend: ModelBackend,
    /// One permit for each request that it may work on at once.
    pub permits: Semaphore,
    resources: Resources,
    /// Its config files and packages; removed with it.
    _files: Files,
}

impl Loaded {
    /// The ports of its first instance.
    pub fn ports(&self) -> InstancePorts {
        self.resources.ports[0]
    }
}

/// What a model takes from the program.
#[derive(Default)]
struct Resources {
    ports: Vec<InstancePorts>,
    /// Processes that are kept running, and tasks.
    units: Vec<UnitId>,
}

impl Loader {
    /// `ports` are those for models, `gpus` is the number of GPUs, `universal` runs the handler of models without their own.
    pub fn new(
        config: &Config,
        ports: PortPool,
        supervisor: SupervisorHandle,
        gpus: u32,
        universal: Option<HandlerWorkers>,
    ) -> Self {
        Self {
            config: config.clone(),
            supervisor,
            ports,
            gpus,
            universal,
            interpreter: OnceLock::new(),
        }
    }

    /// Loads the model below `url`. Returns when it can be used.
    ///
    /// # Errors
    /// 400 or 404 when there is not one model, 408 when it takes too long, 507 when something runs out, 500 when it does
    /// not start, 503 when the server stops. Nothing of the model is left then.
    pub fn load(&self, name: &str, url: &str) -> Result<Loaded, RequestError> {
        let load = Load {
            loader: self,
            name,
            deadline: Instant::now() + self.config.wait_time,
            resources: Resources::default(),
            files: None,
        };
        load.run(url)
    }

    /// Stops all that serves a model, waits until it has ended, and frees its ports.
    pub fn dismantle(&self, loaded: &Loaded) {
        loaded.backend.backend.pool.close();
        self.free(&loaded.resources);
    }

    /// Whether the handler for models without their own, if there is one, is ready.
    ///
    /// # Errors
    /// When not: what is missing, and for how long.
    pub fn check(&self) -> Result<(), String> {
        let universal = self.universal.as_ref();
        universal.map_or(Ok(()), |workers| workers.pool.check())
    }

    fn free(&self, resources: &Resources) {
        if !resources.units.is_empty() {
            self.supervisor.release(resources.units.clone());
        }
        // Only now: the processes may have used them until here.
        self.ports.give_back(&resources.ports);
    }
}

/// A load under way. Dropped before its end, it gives back what it took.
struct Load<'a> {
    loader: &'a Loader,
    name: &'a str,
    deadline: Instant,
    resources: Resources,
    /// Removed after the processes that could write there have ended.
    files: Option<Files>,
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.loader.free(&self.resources);
    }
}

/// Why a process that a load waits for did not do its work.
enum StepError {
    Failed(StartFailure),
    /// The load's deadline passed.
    TimedOut,
    /// The server stops.
    Stopping,
}

impl Load<'_> {
    fn run(mut self, url: &str) -> Result<Loaded, RequestError> {
        let config = &self.loader.config;
        let model = find_model(self.name, url)?;
        self.resources.ports = self.take_ports()?;
        let directory = self.write_files(&model)?;
        let backend = backend::backend(config, &self.resources.ports);

        let (starter, started) = unbounded();
        self.resources.units = backend::start_instances(
            config,
            self.files.as_ref().expect("they were just written"),
            &backend,
            std::slice::from_ref(&model),
            self.loader.gpus,
            &self.loader.supervisor,
            Some(&starter),
        )
        .map_err(|failure| load_error(self.name, &failure))?;
        // Packages are installed while the model server loads, but workers start after it: scripts may use the model
        // while they are loaded.
        let workers = self.own_workers(&model, Path::new(url), &directory)?;
        for _ in 0..self.resources.ports.len() {
            self.wait(&started).map_err(|error| self.explain(error))?;
        }
        if let Some(workers) = &workers {
            let units = workers.start(&self.loader.supervisor, Some(&starter));
            self.resources.units.extend(&units);
            for _ in units {
                self.wait(&started).map_err(|error| self.explain(error))?;
            }
        }
        let workers = workers.as_ref().or(self.loader.universal.as_ref());
        Ok(Loaded {
            url: url.to_owned(),
            backend: ModelBackend::new(&backend, workers, self.name, config),
            permits: Semaphore::new(config.model_slots()),
            // From here on they are the model's.
            resources: std::mem::take(&mut self.resources),
            _files: self.files.take().expect("they were just written"),
        })
    }

    fn take_ports(&self) -> Result<Vec<InstancePorts>, RequestError> {
        let multi_model = self.loader.config.multi_model.as_ref();
        let instances = multi_model.map_or(1, |m| m.instances);
        let ports = self.loader.ports.take(instances as usize);
        ports.ok_or_else(|| {
            let text = "Memory exhausted: no available ports to load the model.";
            RequestError::new(507, text)
        })
    }

    /// Writes what the model server reads. Gives the model's own directory.
    fn write_files(&mut self, model: &Model) -> Result<PathBuf, RequestError> {
        let files = Files::write(&self.loader.config, std::slice::from_ref(model))
            .map_err(|e| RequestError::new(507, e.to_string()))?;
        Ok(self.files.insert(files).directory().to_owned())
    }

    /// Workers for the model's own script, if it has one, with the packages that the script asks for.
    fn own_workers(
        &mut self,
        model: &Model,
        url: &Path,
        directory: &Path,
    ) -> Result<Option<HandlerWorkers>, RequestError> {
        // In the folder of the versions, or above it up to the model's folder.
        let folders = model.path.ancestors();
        let folders = folders.take_while(|folder| folder.starts_with(url));
        let config = &self.loader.config;
        let Some(script) = handlers::find_in(folders, &config.handlers.program) else {
            return Ok(None);
        };
        let interpreter = self.interpreter()?;
        let packages = self.install_packages(&script, &interpreter, directory)?;
        let ports = &self.resources.ports;
        let mut launch = Launch::new(config, script, interpreter, directory, ports, self.name);
        launch.model = Some(self.name.to_owned());
        launch.packages = packages;
        Ok(Some(HandlerWorkers::new(launch)))
    }

    /// Installs what the script asks for into a folder of the model's own, if it asks for anything.
    fn install_packages(
        &mut self,
        script: &Path,
        interpreter: &Interpreter,
        directory: &Path,
    ) -> Result<Option<PathBuf>, RequestError> {
        let Some(requirements) = packages::requirements(script) else {
            return Ok(None);
        };
        let target = directory.join("packages");
        let mut command = packages::pip(interpreter, &requirements);
        command.arg("--target").arg(&target);
        // What pip leaves behind when it is killed is removed with the model's files.
        command.env("TMPDIR", directory);
        let streams = packages::streams(&format!("{}: ", self.name));
        match self.run_task(command, streams) {
            Ok(_) => Ok(Some(target)),
            Err(StepError::Failed(failure)) => Err(RequestError {
                text: format!(
                    "The packages in {} cannot be installed: pip: {}",
                    requirements.display(),
                    failure.text
                ),
                ..load_error(self.name, &failure)
            }),
            Err(error) => Err(self.explain(error)),
        }
    }

    fn interpreter(&mut self) -> Result<Interpreter, RequestError> {
        if let Some(interpreter) = self.loader.interpreter.get() {
            return Ok(interpreter.clone());
        }
        let missing = |why: &str| {
            let text = format!("The model's handler needs python3, which does not work: {why}");
            RequestError::new(500, text)
        };
        let streams = packages::streams("python3: ");
        let answer = match self.run_task(Interpreter::question(), streams) {
            Ok(answer) => answer,
            Err(StepError::Failed(failure)) => return Err(missing(&failure.text)),
            Err(error) => return Err(self.explain(error)),
        };
        let interpreter = Interpreter::parse(&answer).ok_or_else(|| missing(&answer))?;
        let interpreter = self.loader.interpreter.get_or_init(|| interpreter);
        Ok(interpreter.clone())
    }

    /// Runs a program once: the last lines of its output.
    fn run_task(&mut self, command: Command, streams: Streams) -> Result<String, StepError> {
        let id = self.loader.supervisor.new_id();
        let end = self.loader.supervisor.run(id, command, streams);
        self.resources.units.push(id);
        self.wait(&end)
    }

    /// Waits for one of the load's processes.
    fn wait<T>(&self, result: &Receiver<Result<T, StartFailure>>) -> Result<T, StepError> {
        match result.recv_deadline(self.deadline) {
            Ok(Ok(value)) => Ok(value),
            // The supervisor's own limit for a start ends just after ours, and on a busy machine its result may come first.
            Ok(Err(_)) if Instant::now() >= self.deadline => Err(StepError::TimedOut),
            Ok(Err(failure)) => Err(StepError::Failed(failure)),
            Err(RecvTimeoutError::Timeout) => Err(StepError::TimedOut),
            Err(RecvTimeoutError::Disconnected) => Err(StepError::Stopping),
        }
    }

    fn explain(&self, error: StepError) -> RequestError {
        let name = self.name;
        match error {
            StepError::Failed(failure) => load_error(name, &failure),
            StepError::Stopping => RequestError::new(503, "The server is stopping."),
            StepError::TimedOut if memory::is_short() => {
                let text = format!("Memory exhausted: model {name} could not be loaded in time.");
                RequestError::new(507, text)
            }
            StepError::TimedOut => {
                let text = format!(
                    "Model {name} could not be loaded within {} s (SAGEMAKER_TFS_WAIT_TIME_SECONDS).",
                    self.loader.config.wait_time.as_secs()
                );
                RequestError::new(408, text)
            }
        }
    }
}

/// 507 when something ran out, which makes SageMaker unload other models; otherwise 500.
fn load_error(name: &str, failure: &StartFailure) -> RequestError {
    match failure.out_of_resources {
        true => RequestError::new(507, format!("Memory exhausted: {}", failure.text)),
        false => RequestError::new(500, format!("Model {name}: {}", failure.text)),
    }
}
