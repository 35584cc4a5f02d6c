//! How Python workers are started: how many, with how many channels, and the command line of each.

use std::ffi::OsString;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::config::{Config, InstancePorts, WorkerClass};
use crate::descriptors;
use crate::handlers::interpreter::Interpreter;
use crate::worker_protocol::record::Record;

/// Channels of a worker of the class `gevent`, at most. A request keeps one while TensorFlow Serving works on it, so there
/// are many, but each costs two descriptors here and one there.
const MAX_CHANNELS: usize = 512;
/// Each worker may have this many, however many workers share the requests.
const USUAL_CHANNELS: usize = 64;
/// File descriptors for a channel: our end, and one more while the worker restarts: the new process's end, or our end to
/// the old process, which calls hold until they notice its end.
pub const FILES_PER_CHANNEL: usize = 2;
/// How workers are started.
#[derive(Debug)]
pub struct Launch {
    /// How many.
    pub workers: usize,
    /// The model they belong to, where there are several with workers of their own.
    pub model: Option<String>,
    /// `sagemaker-tfs-python`.
    pub program: PathBuf,
    /// The handler script.
    pub script: PathBuf,
    /// The Python it runs in.
    pub interpreter: Interpreter,
    /// How calls may overlap.
    pub worker_class: WorkerClass,
    /// Calls a worker may be given at once.
    pub channels: usize,
    /// Python's name of the log level.
    pub log_level: &'static str,
    /// Where packages were installed for this script alone.
    pub packages: Option<PathBuf>,
    /// Variables set beside the inherited ones.
    pub env: Vec<(&'static str, String)>,
    /// Where it runs; `None`: where we do.
    pub directory: Option<PathBuf>,
    /// Whether it gets the terminal.
    pub has_terminal: bool,
    /// Longest time of one call; `None`: no limit.
    pub timeout: Option<Duration>,
}

/// The second executable: beside this one, else on PATH.
const PROGRAM: &str = "sagemaker-tfs-python";

impl Launch {
    /// Workers for `script`, which may ask the model servers on `ports` itself. `writable` is a folder to write in.
    pub fn new(
        config: &Config,
        script: PathBuf,
        interpreter: Interpreter,
        writable: &Path,
        ports: &[InstancePorts],
        default_model: &str,
    ) -> Self {
        let worker_class = worker_class(config);
        let list = |port: fn(&InstancePorts) -> u16| {
            Vec::from_iter(ports.iter().map(|ports| port(ports).to_string())).join(",")
        };
        let executable = std::env::current_exe().unwrap_or_default();
        let beside = executable.with_file_name(PROGRAM);
        Self {
            workers: workers(config),
            program: if beside.is_file() {
                beside
            } else {
                PROGRAM.into()
            },
            // The path is for another process, which may run elsewhere.
            script: std::path::absolute(&script).unwrap_or(script),
            interpreter,
            packages: None,
            model: None,
            worker_class,
            channels: channels(config),
            log_level: config.handlers.log_level,
            env: vec![
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

/// Workers of a script.
pub fn workers(config: &Config) -> usize {
    match config.single_threaded {
        true => 1,
        false => config.handlers.workers as usize,
    }
}

/// Channels of each worker: calls that it may be sent at once.
pub fn channels(config: &Config) -> usize {
    match worker_class(config) {
        WorkerClass::Gevent => {
            gevent_channels(config.model_slots(), workers(config), descriptors::limit())
        }
        WorkerClass::Sync => 1,
        WorkerClass::Gthread => config.handlers.threads as usize,
    }
}

/// Twice as many in all as requests are worked on, so that requests find room while a worker restarts; but all together
/// take no more than half of the `files` that this process may have open.
fn gevent_channels(slots: usize, workers: usize, files: usize) -> usize {
    let share = (2 * slots).div_ceil(workers);
    let affordable = files / 2 / FILES_PER_CHANNEL / workers;
    let usual = share.clamp(USUAL_CHANNELS, MAX_CHANNELS).min(slots);
    usual.min(affordable).max(1)
}

impl Launch {
    /// What worker `index` is called.
    pub fn label(&self, index: usize) -> String {
        label(self.model.as_deref(), index)
    }

    /// The command of a process with this record and these ends of its channels, which it inherits.
    pub fn command(&self, record: &Record, channels: &[UnixStream]) -> Command {
        let mut args: Vec<OsString> = Vec::new();
        let mut arg = |name: &str, value: OsString| args.extend([name.into(), value]);
        arg("--script", self.script.clone().into());
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

/// What one of several processes is called: its number, after its model where there are several.
pub fn label(model: Option<&str>, index: usize) -> String {
    match model {
        Some(model) => format!("{model}/{index}"),
        None => index.to_string(),
    }
}

/// Scripts may write where they run, for they always could. A read-only container has no such place at first.
fn is_writable(directory: &Path) -> bool {
    rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_channels_for_all_requests_and_some_more() {
        assert_eq!(gevent_channels(64, 1, 1 << 20), 64);
        assert_eq!(gevent_channels(64, 1000, 1 << 20), 64);
        assert_eq!(gevent_channels(512, 1, 1 << 20), 512);
        assert_eq!(gevent_channels(512, 8, 1 << 20), 128);
        assert_eq!(gevent_channels(10_000, 1, 1 << 20), MAX_CHANNELS);
        assert_eq!(gevent_channels(1, 1, 1 << 20), 1, "single-threaded");
        assert_eq!(gevent_channels(512, 2, 400), 50, "few descriptors");
    }
}
