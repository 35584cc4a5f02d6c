//! Loads a model in multi-model mode, step by step, and undoes the steps when one fails.
//!
//! A [`Loader`] has what all loads share. Each load, a `Load`, acquires ports, files and processes; it owns them until
//! it succeeds, and releases them if it fails. `registry.rs` keeps track of the loaded models.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, at, bounded, select, unbounded};

use crate::config::{Config, InstancePorts};
use crate::error::RequestError;
use crate::handlers::interpreter::Interpreter;
use crate::handlers::launch::Launch;
use crate::handlers::{self, packages};
use crate::memory;
use crate::models::backend::{self, HandlerWorkers, ModelBackend};
use crate::models::location::find_model;
use crate::models::ports::PortPool;
use crate::models::remarks;
use crate::models::semaphore::Semaphore;
use crate::models::{Found, Model};
use crate::supervisor::child::Streams;
use crate::supervisor::handle::{SupervisorHandle, UnitId};
use crate::supervisor::unit::StartFailure;
use crate::tfs::files::Files;
use crate::tfs::model::Labels;

/// Loads models, and releases their resources again.
pub struct Loader {
    config: Config,
    supervisor: SupervisorHandle,
    ports: PortPool,
    gpus: u32,
    /// The workers of the universal script, for models without a script of their own.
    universal: Option<HandlerWorkers>,
    /// The Python interpreter for the scripts of models; set when the first script needs it.
    interpreter: OnceLock<Interpreter>,
}

/// A loaded model with all its resources.
pub struct Loaded {
    /// Where the model was loaded from.
    pub url: String,
    /// What serves it.
    pub backend: ModelBackend,
    /// One permit for each request that the model may work on at once.
    pub permits: Semaphore,
    resources: Resources,
    /// The model's config files and packages, which are removed when this is dropped.
    _files: Files,
}

impl Loaded {
    /// The ports of the first instance.
    pub fn ports(&self) -> InstancePorts {
        self.resources.ports[0]
    }
}

/// The ports and processes of a model.
#[derive(Default)]
struct Resources {
    ports: Vec<InstancePorts>,
    /// The numbers of its units and tasks.
    units: Vec<UnitId>,
}

impl Loader {
    /// A loader. `ports` are the ports for models, `gpus` is the number of GPUs, and `universal` runs the script for
    /// models without a script of their own.
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

    /// Loads the model below `url`. Returns when the model can be used.
    ///
    /// # Errors
    /// 400 or 404 when the folder does not hold exactly one model, 408 when the load takes too long, 507 when memory,
    /// ports or another resource run out, 500 when a process does not start, 503 when the server stops. Nothing of the
    /// model is left then.
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

    /// Stops the processes of a model, waits until they have ended, and frees the model's ports.
    pub fn dismantle(&self, loaded: &Loaded) {
        loaded.backend.backend.pool.close();
        self.free(&loaded.resources);
    }

    /// Checks that the universal script, if there is one, is ready.
    ///
    /// # Errors
    /// What is not ready, and for how long.
    pub fn check(&self) -> Result<(), String> {
        let universal = self.universal.as_ref();
        universal.map_or(Ok(()), |workers| workers.pool.check())
    }

    fn free(&self, resources: &Resources) {
        if !resources.units.is_empty() {
            self.supervisor.release(resources.units.clone());
        }
        // Not before the processes have ended: they listen on these ports.
        self.ports.give_back(&resources.ports);
    }
}

/// A load in progress. Dropping it releases its resources, unless the load has succeeded and passed them on.
struct Load<'a> {
    loader: &'a Loader,
    name: &'a str,
    deadline: Instant,
    resources: Resources,
    /// Dropped, and so removed, only after the processes that could write there have ended.
    files: Option<Files>,
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.loader.free(&self.resources);
    }
}

/// Why a step that waits for a process failed.
enum StepError {
    /// The process did not start, or its task failed.
    Failed(StartFailure),
    /// The load's deadline passed.
    TimedOut,
    /// The server is stopping.
    Stopping,
}

impl Load<'_> {
    fn run(mut self, url: &str) -> Result<Loaded, RequestError> {
        let config = &self.loader.config;
        let mut found = self.find(url)?;
        remarks::warn(&self.log_prefix(), std::mem::take(&mut found.left_out));
        let model = &found.models[0];
        self.resources.ports = self.take_ports()?;
        let directory = self.write_files(model)?;
        let backend = backend::backend(config, &self.resources.ports);

        let (starter, started) = unbounded();
        self.resources.units = backend::start_instances(
            config,
            self.files.as_ref().expect("written above"),
            &backend,
            &found.models,
            self.loader.gpus,
            &self.loader.supervisor,
            Some(&starter),
        )
        .map_err(|failure| load_error(self.name, &failure))?;
        // Packages are installed while TFS loads the model. But workers start only when it is loaded, because a script
        // may send requests to the model at import.
        let workers = self.own_workers(&found, Path::new(url), &directory)?;
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
            // The model owns them from here on.
            resources: std::mem::take(&mut self.resources),
            _files: self.files.take().expect("written above"),
        })
    }

    /// Finds the model on a thread of its own, which is left alone when the load ends first: a file system may not answer.
    fn find(&self, url: &str) -> Result<Found, RequestError> {
        let (sender, result) = bounded(1);
        let (name, url, deadline) = (self.name.to_owned(), url.to_owned(), self.deadline);
        let search = thread::Builder::new().name("search".into());
        search
            .spawn(move || drop(sender.send(find_model(&name, &url, deadline))))
            .map_err(|e| {
                let text = format!("Memory exhausted: cannot start a thread: {e}");
                RequestError::new(507, text)
            })?;
        let found = select! {
            recv(result) -> found => {
                found.unwrap_or_else(|_| Err(RequestError::new(500, "The search for the model panicked.")))
            }
            recv(self.loader.supervisor.stopping()) -> _ => Err(self.explain(StepError::Stopping)),
            recv(at(self.deadline)) -> _ => Err(self.explain(StepError::TimedOut)),
        };
        match found {
            // The search noticed the deadline first.
            Err(_) if Instant::now() >= self.deadline => Err(self.explain(StepError::TimedOut)),
            found => found,
        }
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

    /// Writes TFS's config files. Returns the private directory of the model.
    fn write_files(&mut self, model: &Model) -> Result<PathBuf, RequestError> {
        let tmp_dir = &self.loader.config.tmp_dir;
        Files::check_path(model, tmp_dir).map_err(|e| RequestError::new(500, e.to_string()))?;
        let files = Files::write(
            &self.loader.config,
            std::slice::from_ref(model),
            &Labels::new(),
        )
        .map_err(|e| RequestError::new(507, e.to_string()))?;
        Ok(self.files.insert(files).directory().to_owned())
    }

    /// Prepares workers for the model's own script, if it has one, and installs the packages that the script requires.
    fn own_workers(
        &mut self,
        found: &Found,
        url: &Path,
        directory: &Path,
    ) -> Result<Option<HandlerWorkers>, RequestError> {
        // The script is in the folder of the versions, or in a folder above that up to `url`.
        let folders = found.models[0].path.ancestors();
        let folders = Vec::from_iter(folders.take_while(|folder| folder.starts_with(url)));
        let config = &self.loader.config;
        let program = &config.handlers.program;
        let about_scripts = remarks::about_scripts(&found.search, &folders, program);
        remarks::warn(&self.log_prefix(), about_scripts);
        let script = handlers::find_in(folders, program).map_err(|why| self.unusable(&why))?;
        let Some(script) = script else {
            return Ok(None);
        };
        let interpreter = self.interpreter()?;
        let packages = self.install_packages(&script.code, &interpreter, directory)?;
        let ports = &self.resources.ports;
        let mut launch = Launch::new(config, script, interpreter, directory, ports, self.name);
        launch.model = Some(self.name.to_owned());
        launch.packages = packages;
        Ok(Some(HandlerWorkers::new(launch)))
    }

    /// Installs the packages that the script requires, if any, into a folder of this model.
    fn install_packages(
        &mut self,
        code: &Path,
        interpreter: &Interpreter,
        directory: &Path,
    ) -> Result<Option<PathBuf>, RequestError> {
        let requirements = packages::requirements(code, &self.log_prefix());
        let Some(requirements) = requirements.map_err(|why| self.unusable(&why))? else {
            return Ok(None);
        };
        let target = directory.join("packages");
        let mut command = packages::pip(interpreter, &requirements);
        command.arg("--target").arg(&target);
        // Temporary files of a killed pip are then removed with the model's files.
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

    /// What the log's lines about the archive begin with.
    fn log_prefix(&self) -> String {
        format!("model {}: ", self.name)
    }

    fn unusable(&self, why: &str) -> RequestError {
        RequestError::new(500, format!("Model {}: {why}", self.name))
    }

    fn interpreter(&mut self) -> Result<Interpreter, RequestError> {
        if let Some(interpreter) = self.loader.interpreter.get() {
            return Ok(interpreter.clone());
        }
        let missing = |why: &str| {
            let text = format!("The model's handler needs python3, which does not work: {why}");
            RequestError::new(500, text)
        };
        let output = match self.run_task(Interpreter::question(), Streams::Captured) {
            Ok(output) => output,
            Err(StepError::Failed(failure)) => return Err(missing(&failure.text)),
            Err(error) => return Err(self.explain(error)),
        };
        let interpreter = Interpreter::parse(&output).ok_or_else(|| missing(&output))?;
        let interpreter = self.loader.interpreter.get_or_init(|| interpreter);
        Ok(interpreter.clone())
    }

    /// Runs a program once. Returns the last lines of its output.
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
            // The supervisor's limit for a start ends just after this one; on a busy machine its result may come first.
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

/// The error of a load: 507 if a resource ran out, which makes SageMaker unload other models; otherwise 500.
fn load_error(name: &str, failure: &StartFailure) -> RequestError {
    match failure.out_of_resources {
        true => RequestError::new(507, format!("Memory exhausted: {}", failure.text)),
        false => RequestError::new(500, format!("Model {name}: {}", failure.text)),
    }
}
