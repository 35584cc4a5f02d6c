//! How Python workers are started: their number, their channels, and the command line of each. Starting and watching
//! the processes is left to `worker.rs`.

use std::ffi::OsString;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::config::{Config, InstancePorts, WorkerClass};
use crate::descriptors;
use crate::handlers::Script;
use crate::handlers::interpreter::Interpreter;
use crate::worker_protocol::record::Record;

/// Maximum number of channels of a worker of the class `gevent`. A request keeps its channel while TensorFlow Serving
/// works on it, so a worker needs many, but each costs two descriptors in the server and one in the worker.
const MAX_CHANNELS: usize = 512;
/// Each worker may have this many channels, however many workers share the requests.
const USUAL_CHANNELS: usize = 64;
/// File descriptors for a channel: the server's end, and during a restart either the new process's end, before that
/// process starts, or the server's end to the old process, which calls hold until they notice that it is gone.
pub const FILES_PER_CHANNEL: usize = 2;

/// How the workers of a script are started.
#[derive(Debug)]
pub struct Launch {
    /// The number of workers.
    pub workers: usize,
    /// The model that the workers belong to, in multi-model mode for a script that serves one model only.
    pub model: Option<String>,
    /// Path of `sagemaker-tfs-python`, or its name on PATH.
    pub program: PathBuf,
    /// The handler script.
    pub script: PathBuf,
    /// The folder `code` that holds it.
    pub code: PathBuf,
    /// The Python that runs the script.
    pub interpreter: Interpreter,
    /// How calls may overlap.
    pub worker_class: WorkerClass,
    /// The number of calls that may be sent to a worker at once.
    pub channels: usize,
    /// Level of Python's root logger, by Python's name.
    pub log_level: &'static str,
    /// The folder with packages that were installed for this script alone.
    pub packages: Option<PathBuf>,
    /// Environment variables in addition to the inherited ones.
    pub env: Vec<(&'static str, String)>,
    /// Working directory; `None`: the server's.
    pub directory: Option<PathBuf>,
    /// Whether the worker has the server's terminal, for debuggers.
    pub has_terminal: bool,
    /// Time limit of one call; `None`: no limit.
    pub timeout: Option<Duration>,
}

/// The second executable: in the folder of this executable, otherwise on PATH.
const PROGRAM: &str = "sagemaker-tfs-python";

impl Launch {
    /// The workers for `script`, which may call the TensorFlow Serving instances on `ports` itself. `writable` is the
    /// working directory if the server's is read-only.
    pub fn new(
        config: &Config,
        script: Script,
        interpreter: Interpreter,
        writable: &Path,
        ports: &[InstancePorts],
        default_model: &str,
    ) -> Self {
        let worker_class = worker_class(config);
        let list = |port: fn(&InstancePorts) -> u16| {
            Vec::from_iter(ports.iter().map(|ports| port(ports).to_string())).join(",")
        };
        let first = |port: fn(&InstancePorts) -> u16| {
            ports
                .first()
                .map(|ports| port(ports).to_string())
                .unwrap_or_default()
        };
        let executable = std::env::current_exe().unwrap_or_default();
        let neighbor = executable.with_file_name(PROGRAM);
        Self {
            workers: workers(config),
            program: if neighbor.is_file() {
                neighbor
            } else {
                PROGRAM.into()
            },
            // Absolute, because the worker may have another working directory.
            script: std::path::absolute(&script.path).unwrap_or(script.path),
            code: std::path::absolute(&script.code).unwrap_or(script.code),
            interpreter,
            packages: None,
            model: None,
            worker_class,
            channels: channels(config),
            log_level: config.handlers.log_level,
            env: vec![
                // Scripts for the oldest images read these.
                ("TFS_GRPC_PORT", first(|ports| ports.grpc)),
                ("TFS_REST_PORT", first(|ports| ports.rest)),
                ("TFS_GRPC_PORTS", list(|ports| ports.grpc)),
                ("TFS_REST_PORTS", list(|ports| ports.rest)),
                ("TFS_DEFAULT_MODEL_NAME", default_model.to_owned()),
                ("OMP_NUM_THREADS", config.omp_num_threads.clone()),
            ],
            directory: (!is_writable(Path::new("."))).then(|| writable.to_owned()),
            has_terminal: config.single_threaded,
            timeout: config.handlers.timeout,
        }
    }
}

fn worker_class(config: &Config) -> WorkerClass {
    match config.single_threaded {
        true => WorkerClass::Sync,
        false => config.handlers.worker_class,
    }
}

/// The number of workers of a script.
pub fn workers(config: &Config) -> usize {
    match config.single_threaded {
        true => 1,
        false => config.handlers.workers as usize,
    }
}

/// The number of channels of each worker: the calls that may be sent to it at once.
pub fn channels(config: &Config) -> usize {
    match worker_class(config) {
        WorkerClass::Gevent => {
            gevent_channels(config.model_slots(), workers(config), descriptors::limit())
        }
        WorkerClass::Sync => 1,
        WorkerClass::Gthread => config.handlers.threads as usize,
    }
}

/// The number of channels of each worker in the class `gevent`. Together the workers have up to twice as many channels
/// as slots, so that requests find a channel while a worker restarts. But all channels take at most half of the `files`
/// that this process may open.
fn gevent_channels(slots: usize, workers: usize, files: usize) -> usize {
    let share = (2 * slots).div_ceil(workers);
    let affordable = files / 2 / FILES_PER_CHANNEL / workers;
    let usual = share.clamp(USUAL_CHANNELS, MAX_CHANNELS).min(slots);
    usual.min(affordable).max(1)
}

impl Launch {
    /// The name of worker `index` in the log.
    pub fn label(&self, index: usize) -> String {
        label(self.model.as_deref(), index)
    }

    /// The command of a worker that inherits this record and these ends of its channels.
    pub fn command(&self, record: &Record, channels: &[UnixStream]) -> Command {
        let mut args: Vec<OsString> = Vec::new();
        let mut arg = |name: &str, value: OsString| args.extend([name.into(), value]);
        arg("--script", self.script.clone().into());
        arg("--code", self.code.clone().into());
        arg("--python", self.interpreter.executable.clone().into());
        arg("--python-version", self.interpreter.version.clone().into());
        arg("--prefix", self.interpreter.prefix.clone().into());
        if let Some(packages) = &self.packages {
            arg("--packages", packages.clone().into());
        }
        arg("--worker-class", self.worker_class.as_str().into());
        arg("--log-level", self.log_level.into());
        arg("--record", record.file().as_raw_fd().to_string().into());
        let numbers: Vec<_> = channels.iter().map(|s| s.as_raw_fd().to_string()).collect();
        arg("--channels", numbers.join(",").into());
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .envs(self.env.iter().map(|(k, v)| (k, v)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }
}

/// The name of a process in the log: its number, after the name of its model if the process serves one of several
/// models.
pub fn label(model: Option<&str>, index: usize) -> String {
    match model {
        Some(model) => format!("{model}/{index}"),
        None => index.to_string(),
    }
}

/// Whether the directory is writable. Existing scripts write to their working directory, which in a read-only container
/// is not writable.
fn is_writable(directory: &Path) -> bool {
    rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_twice_as_many_channels_as_slots() {
        assert_eq!(gevent_channels(64, 1, 1 << 20), 64);
        assert_eq!(gevent_channels(64, 1000, 1 << 20), 64);
        assert_eq!(gevent_channels(512, 1, 1 << 20), 512);
        assert_eq!(gevent_channels(512, 8, 1 << 20), 128);
        assert_eq!(gevent_channels(10_000, 1, 1 << 20), MAX_CHANNELS);
        assert_eq!(gevent_channels(1, 1, 1 << 20), 1, "single-threaded");
        assert_eq!(gevent_channels(512, 2, 400), 50, "few descriptors");
    }
}
