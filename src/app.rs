//! Puts everything together: from a checked [`Config`] to the end of the program.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, select};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::api::{Api, Serving};
use crate::config::{self, Config, InstancePorts, MultiModelConfig};
use crate::error::StartError;
use crate::handlers::interpreter::Interpreter;
use crate::handlers::packages;
use crate::handlers::worker::{self, Launch};
use crate::http::{self, Server, Workers as HttpWorkers};
use crate::models::backend::{self, Served, Workers};
use crate::models::ports::PortPool;
use crate::models::registry::Registry;
use crate::models::{self, Model};
use crate::supervisor::handle::Supervisor;
use crate::supervisor::watchdog::Watchdog;
use crate::supervisor::{Drain, inherited};
use crate::tfs::backend::Backend;
use crate::tfs::files::Files;
use crate::tfs::gpu;
use crate::{handlers, logging, memory, s3, wait};

/// At the end of the program a start that is still under way has this long to clean up.
const START_END_LIMIT: Duration = Duration::from_secs(1);
/// A wait that ends by something else.
const LONG: Duration = Duration::from_secs(3600);

/// Serves until a signal ends it.
///
/// # Errors
/// Why it cannot start, or why TensorFlow Serving did not.
pub fn run(config: &Config) -> Result<(), StartError> {
    match start_and_serve(config) {
        Err(StartError::Stopped) => Ok(()),
        ended => ended,
    }
}

fn start_and_serve(config: &Config) -> Result<(), StartError> {
    logging::start(config)?;
    log::info!("sagemaker-tfs {}", env!("CARGO_PKG_VERSION"));
    inherited::warn();
    // Before any child exists, so that no signal is missed.
    let mut handled = vec![SIGCHLD, SIGTERM, SIGINT, SIGQUIT];
    if !is_ignored(SIGHUP) {
        handled.push(SIGHUP);
    }
    let mut signals = Signals::new(handled)
        .map_err(|e| StartError::failed(format!("cannot handle signals: {e}")))?;

    // Starts before any step that takes time: it ends the start when a signal comes or a step fails.
    let (supervisor, inbox) = Supervisor::new();
    let watchdog = Watchdog::new(inbox);
    let closer = signals.handle();
    let watchdog = start_thread("watchdog", move || {
        // Also when it panics: the main thread must not wait for signals for ever.
        let _close = OnDrop(|| closer.close());
        watchdog.run()
    })?;
    let files = start_aside(config, &supervisor);
    for signal in signals.forever() {
        if !supervisor.signal(signal) {
            break;
        }
    }
    let end = watchdog
        .join()
        .unwrap_or_else(|_| Err(StartError::failed("the watchdog thread panicked")));
    // Removes the temporary directory. A start that was cut short removes it itself, if nothing holds it up.
    drop(files.recv_timeout(START_END_LIMIT));
    end
}

/// Takes the steps of the start on a thread of its own. Whatever holds them up, signals are heard meanwhile. The
/// receiver gets the files that last as long as the program; it is disconnected when the start fails.
fn start_aside(config: &Config, supervisor: &Supervisor) -> Receiver<Files> {
    let (give, files) = bounded(1);
    let (config, starter) = (config.clone(), supervisor.clone());
    let start = move || {
        let steps = AssertUnwindSafe(|| match &config.multi_model {
            None => serve_fixed(&config, &starter),
            Some(multi_model) => serve_registry(&config, multi_model, &starter),
        });
        match catch_unwind(steps) {
            // There is room for it.
            Ok(Ok(files)) => drop(give.send(files)),
            Ok(Err(error)) => starter.fail(error),
            Err(_) => starter.fail(StartError::failed("the start panicked")),
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

/// Serves the models that are there now.
fn serve_fixed(config: &Config, supervisor: &Supervisor) -> Result<Files, StartError> {
    let models = models::discover(&config.model_dir)?;
    let default_model = default_model(config, &models)?;
    let files = Files::write(config, &models)?;
    let ports = &config.instance_ports;
    let workers = find_workers(
        config,
        [config.model_dir.as_path()],
        ports,
        &default_model,
        &files,
        supervisor,
    )?;
    let backend = backend::backend(config, ports);
    let served = Served {
        backend: Arc::clone(&backend),
        handlers: workers
            .as_ref()
            .map(|workers| workers.handlers(&backend, config)),
        default_model: default_model.clone(),
    };
    let gpus = count_gpus(ports.len(), supervisor)?;
    open_front(config, Serving::Fixed(Box::new(served)), supervisor)?;
    backend::start_instances(config, &files, &backend, &models, gpus, supervisor, None)
        .map_err(|failure| StartError::failed(failure.text))?;
    if let Some(workers) = workers {
        start_after(workers, backend, supervisor.clone())?;
    }
    Ok(files)
}

/// The number of GPUs, where instances have to share them.
fn count_gpus(instances: usize, supervisor: &Supervisor) -> Result<u32, StartError> {
    match instances {
        0 | 1 => Ok(0),
        _ => gpu::count(supervisor),
    }
}

/// Opens the port. From now on signals let running requests finish.
fn open_front(
    config: &Config,
    serving: Serving,
    supervisor: &Supervisor,
) -> Result<(), StartError> {
    let settings = server_settings(config, &serving);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    wait::start_computing(threads)
        .map_err(|e| StartError::failed(format!("cannot start a thread: {e}")))?;
    Server::start(&settings, Api::new(config, serving), |server| {
        supervisor.serve(Box::new(Front(server)));
    })?;
    log::info!("listening on {}:{}", config.listen, config.port);
    Ok(())
}

/// The server as the supervisor sees it.
struct Front(Server<Api>);

impl Drain for Front {
    fn stop_accepting(&self) {
        self.0.stop_accepting();
    }

    fn in_flight(&self) -> usize {
        self.0.in_flight()
    }

    fn refuse_the_rest(&self) {
        self.0.refuse_the_rest();
    }

    fn finish(&self) {
        self.0.finish();
    }
}

/// Starts workers once the models are AVAILABLE: scripts may use them while they are loaded.
fn start_after(
    workers: Workers,
    backend: Arc<Backend>,
    supervisor: Supervisor,
) -> Result<(), StartError> {
    let wait = move || {
        while (backend.pool)
            .wait_until_serving(Instant::now() + LONG)
            .is_err()
        {}
        workers.start(&supervisor, None);
    };
    start_thread("handlers", wait).map(drop)
}

/// Serves models as they are loaded.
fn serve_registry(
    config: &Config,
    multi_model: &MultiModelConfig,
    supervisor: &Supervisor,
) -> Result<Files, StartError> {
    let files = Files::write(config, &[])?;
    let (low, high) = multi_model.ports;
    // The script for models that have none of their own.
    let folders = match &multi_model.universal_handler {
        Some((bucket, prefix)) => {
            download_handler(config, multi_model, (bucket, prefix), &files, supervisor)?
        }
        None => config
            .model_dir
            .ancestors()
            .take(2)
            .map(Path::to_owned)
            .collect(),
    };
    let folders = folders.iter().map(PathBuf::as_path);
    let universal = find_workers(config, folders, &[], "", &files, supervisor)?;
    let gpus = count_gpus(multi_model.instances as usize, supervisor)?;
    // The files of models go in there, too: models that are loaded at the end of the program are not dropped.
    let config_of_models = Config {
        tmp_dir: files.directory().to_owned(),
        ..config.clone()
    };
    let registry = Registry::new(
        &config_of_models,
        PortPool::new(low, high, config.port),
        supervisor.clone(),
        gpus,
        universal.clone(),
    );
    open_front(config, Serving::Registry(Box::new(registry)), supervisor)?;
    if let Some(workers) = &universal {
        workers.start(supervisor, None);
    }
    Ok(files)
}

/// Downloads the handler for all models. Gives the folders that may have the script in their folder `code`.
fn download_handler(
    config: &Config,
    multi_model: &MultiModelConfig,
    (bucket, prefix): (&str, &str),
    files: &Files,
    supervisor: &Supervisor,
) -> Result<Vec<PathBuf>, StartError> {
    log::info!("downloading the handler for all models from s3://{bucket}/{prefix}");
    let folder = files.directory().join("universal");
    let code = folder.join("code");
    // On a thread of its own, for it may take minutes to fail, and the end of the program is not to wait for that.
    let (give, take) = bounded(1);
    let (aws, name, keys) = (
        multi_model.aws.clone(),
        bucket.to_owned(),
        prefix.to_owned(),
    );
    let target = code.clone();
    start_thread("download", move || {
        give.send(s3::download(&aws, &name, &keys, &target))
    })?;
    let downloaded = select! {
        recv(take) -> result => result.map_err(|_| StartError::failed("the download panicked"))?,
        recv(supervisor.stopping()) -> _ => return Err(StartError::Stopped),
    };
    let count = downloaded.map_err(StartError::failed)?;
    log::info!("downloaded {count} files");
    // With or without a folder `code` below the prefix.
    let folders = vec![folder, code];
    let program = &config.handlers.program;
    match handlers::find_in(folders.iter().map(PathBuf::as_path), program) {
        Some(_) => Ok(folders),
        None => Err(StartError::failed(format!(
            "s3://{bucket}/{prefix} has no {program}, neither there nor in a folder code below ({count} files were \
             downloaded)"
        ))),
    }
}

/// The workers for the handler script in one of these folders, if there is one; its packages are installed first.
fn find_workers<'a>(
    config: &Config,
    folders: impl IntoIterator<Item = &'a Path>,
    ports: &[InstancePorts],
    default_model: &str,
    files: &Files,
    supervisor: &Supervisor,
) -> Result<Option<Workers>, StartError> {
    let folders = Vec::from_iter(folders);
    let program = &config.handlers.program;
    let Some(script) = handlers::find_in(folders.iter().copied(), program) else {
        // In multi-model mode models may have it.
        if config.handlers.program_is_named && config.multi_model.is_none() {
            return Err(StartError::failed(format!(
                "SAGEMAKER_PROGRAM is {program:?}, but {} is not there",
                config.model_dir.join("code").join(program).display()
            )));
        }
        return Ok(None);
    };
    let interpreter = Interpreter::find(&script, supervisor)?;
    packages::install(&script, &interpreter, supervisor)?;
    let launch = Launch::new(
        config,
        script,
        interpreter,
        files.directory(),
        ports,
        default_model,
    );
    Ok(Some(Workers::new(launch)))
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

/// File descriptors for everything but connections: the log, children, downloads.
const OTHER_FILES: usize = 256;
/// File descriptors a slot may need: a connection to TensorFlow Serving, and an idle one.
const FILES_A_SLOT: usize = 2;
/// File descriptors for a channel to a Python worker: our end, and one more while the worker restarts: the new process's
/// end, or our end to the old process, which calls hold until they notice its end.
const FILES_A_CHANNEL: usize = 2;
/// Without anything to go by, memory for requests, bytes.
const DEFAULT_REQUEST_MEMORY: u64 = 1 << 30;
/// The part of all memory that requests may take when nothing is set. TensorFlow Serving needs some for each of them, too.
const REQUEST_MEMORY_PART: u64 = 4;

fn server_settings(config: &Config, serving: &Serving) -> http::Settings {
    let memory = config.body_memory.unwrap_or_else(|| {
        memory::total().map_or(DEFAULT_REQUEST_MEMORY, |total| total / REQUEST_MEMORY_PART)
    });
    let slots = config.slots();
    let files = raise_file_limit();
    let left = files - channel_files(config, serving).min(files / 2);
    let reserved = OTHER_FILES + FILES_A_SLOT * slots;
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    http::Settings {
        listen: (config.listen, config.port),
        workers: HttpWorkers::Coroutines(cpus),
        slots,
        deadline: config.deadline,
        memory: usize::try_from(memory).unwrap_or(usize::MAX),
        // With few descriptors they get half of them.
        max_connections: left.saturating_sub(reserved).max(left / 2),
    }
}

/// File descriptors for all channels to Python workers.
fn channel_files(config: &Config, serving: &Serving) -> usize {
    // In multi-model mode models that come later may bring scripts.
    let scripts = match serving {
        Serving::Fixed(served) => usize::from(served.handlers.is_some()),
        Serving::Registry(_) => config::MODELS_AT_WORK,
    };
    FILES_A_CHANNEL * scripts * worker::workers(config) * worker::channels(config)
}

/// Raises the number of file descriptors that this process may have: the usual soft limit of 1,024 is for programs that
/// use `select`. Says what it is then.
fn raise_file_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(e) => {
            log::warn!("cannot raise the limit of open files: {e}");
            limit.current
        }
    };
    current.map_or(usize::MAX, |files| files.try_into().unwrap_or(usize::MAX))
}
