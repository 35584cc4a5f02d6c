//! Reads all settings once and turns them into a plain, checked [`Config`].
//!
//! [`Config::read`] looks at nothing but the variables that it gets: no files, no processes. It collects every wrong
//! value, so that an operator can correct all of them at once. Apart from this, only `allocator.rs` reads the
//! environment. The settings are declared in [`settings`]; this file checks them against each other and derives numbers
//! from them.

mod extra_args;
mod model_name;
mod ports;
pub mod settings;
#[cfg(test)]
mod testing;
pub mod tfs_flags;
mod unknown;

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

pub use self::model_name::is_model_name;
pub use self::ports::InstancePorts;
use self::settings::Setting;
pub use self::settings::aws::AwsConfig;
pub use self::settings::batching::Batching;
pub use self::settings::formats::{CsvHeader, CsvRow, DEFAULT_ACCEPT_TYPES, FormatConfig};
pub use self::settings::handlers::{HandlerConfig, HandlerErrors, WorkerClass};
pub use self::settings::multi_model::MultiModelConfig;
use self::settings::reader::Reader;
pub use self::settings::server::Workers;
pub use self::settings::tuning::VersionLabel;
use self::settings::{batch_transform, model_server, multi_model, server, tuning};
use crate::error::StartError;

/// All settings, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Address that the HTTP server listens on.
    pub listen: IpAddr,
    /// Port that the HTTP server listens on.
    pub port: u16,
    /// The directory that contains the models.
    pub model_dir: PathBuf,
    /// TensorFlow Serving's program: a path, or a name to look up on PATH.
    pub model_server: PathBuf,
    /// TensorFlow Serving's version, if a setting gives it; otherwise the program is asked.
    pub tfs_version: Option<String>,
    /// The directory in which the program makes its private directory.
    pub tmp_dir: PathBuf,
    /// Deadline of a whole request, from the end of its head.
    pub deadline: Duration,
    /// Memory for all requests in flight, bytes; `None`: derived from the memory of the machine or container.
    pub body_memory: Option<u64>,
    /// Log level of the HTTP server.
    pub front_log_level: LevelFilter,
    /// Log level of everything except the HTTP server.
    pub log_level: LevelFilter,
    /// Threads that serve requests.
    pub workers: Workers,
    /// For debugging a handler: one request at a time, a Python process with the terminal, no deadlines.
    pub single_threaded: bool,
    /// Model for requests that name no model; `None`: the first model found.
    pub default_model_name: Option<String>,
    /// Ports of each TensorFlow Serving instance that starts with the server; empty in multi-model mode.
    pub instance_ports: Vec<InstancePorts>,
    /// Time limit for a model to become AVAILABLE.
    pub wait_time: Duration,
    /// Numbers of TensorFlow's threads.
    pub parallelism: Parallelism,
    /// Share of each GPU's memory that stays free, from 0 up to, not including, 1.
    pub gpu_memory_margin: f64,
    /// Batching parameters; `None`: batching is off.
    pub batching: Option<Batching>,
    /// The names of settings that are given but have no effect.
    pub without_effect: Vec<&'static str>,
    /// Files with requests to send before `/ping` answers 200; relative ones are in the model directory.
    pub warm_up_requests: Vec<PathBuf>,
    /// Value of `--num_request_iterations_for_warmup`.
    pub warm_up_iterations: Option<u32>,
    /// Whether TensorFlow Serving compiles models for the CPU with XLA.
    pub xla_cpu: bool,
    /// Names for versions of models.
    pub version_labels: Vec<VersionLabel>,
    /// More flags for TensorFlow Serving, one word each.
    pub extra_args: Vec<String>,
    /// Value of `OMP_NUM_THREADS` for child processes.
    pub omp_num_threads: String,
    /// Whether this is a batch transform job.
    pub batch_transform: bool,
    /// Concurrent requests of a batch transform job.
    pub max_concurrent_transforms: Option<u32>,
    /// Largest payload of a batch transform job, MB.
    pub max_payload_mb: Option<u32>,
    /// Settings of the formats of requests and responses.
    pub formats: FormatConfig,
    /// Settings of Python handlers.
    pub handlers: HandlerConfig,
    /// Settings of multi-model mode; `None`: the mode is off.
    pub multi_model: Option<MultiModelConfig>,
    /// Sentences about variables that have no effect.
    pub remarks: Vec<String>,
}

/// The environment variables and command-line options, not parsed yet.
#[derive(Debug, Default, Clone)]
pub struct Vars {
    environment: HashMap<String, String>,
    flags: HashMap<&'static str, String>,
}

impl Vars {
    /// The variables of this process.
    pub fn from_process() -> Self {
        Self::from_variables(std::env::vars_os())
    }

    /// The given variables. Bytes that are not UTF-8 become replacement characters.
    pub fn from_variables(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let text = |s: OsString| s.to_string_lossy().into_owned();
        Self {
            environment: variables
                .into_iter()
                .map(|(k, v)| (text(k), text(v)))
                .collect(),
            flags: HashMap::new(),
        }
    }

    /// Stores the value that the command line gives for `setting`.
    pub fn set_flag(&mut self, setting: &Setting, value: String) {
        self.flags.insert(setting.name, value);
    }

    /// Where the value comes from (an option or a variable, for messages), and the value.
    fn get(&self, setting: &Setting) -> Option<(String, &str)> {
        let from_flag = self.flags.get(setting.name);
        let from_environment = || self.environment.get(setting.name).filter(|v| !v.is_empty());
        match (from_flag, setting.flag) {
            (Some(value), Some(_)) => Some((format!("--{}", setting.flag?), value)),
            _ => from_environment().map(|value| (setting.name.to_owned(), value)),
        }
        .map(|(origin, value)| (origin, value.as_str()))
    }
}

/// Stands for "no deadline". Not longer, because TensorFlow Serving holds milliseconds in 31 bits.
const NO_DEADLINE: Duration = Duration::from_secs(7 * 86_400);
/// Requests at work at once, unless a batch transform job asks for more. Most of them wait for TensorFlow Serving, so
/// the number does not depend on the CPUs. A waiting coroutine costs some 20 KB, and its connection 16 KB.
const DEFAULT_SLOTS: usize = 512;
/// The same, where each request at work holds a thread.
const DEFAULT_SLOTS_ON_THREADS: usize = 64;
/// Multi-model mode has slots for this many models with all slots of each in use, so that requests which wait for a
/// model that is down do not keep out those of other models.
pub const MODELS_AT_WORK: usize = 8;

impl Config {
    /// Reads and checks all settings. `cpus` is the number of CPUs that this process may use.
    ///
    /// # Errors
    /// [`StartError::Settings`] with one line for each wrong value.
    pub fn read(vars: &Vars, cpus: u32) -> Result<Self, StartError> {
        let mut reader = Reader::new(vars, cpus);
        let mut config = Self::read_all(&mut reader);
        config.remarks = unknown::remarks(vars.environment.iter(), &config.model_dir);
        let problems = reader.finish();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(StartError::Settings(problems))
        }
    }

    fn read_all(r: &mut Reader) -> Self {
        // Read first, because defaults of other settings depend on the two modes.
        r.circumstances.batch_transform = r.value(&batch_transform::BATCH);
        r.circumstances.multi_model = r.value(&multi_model::MULTI_MODEL);
        r.optional(&batch_transform::STRATEGY);

        let single_threaded = r.value(&server::SINGLE_THREADED);
        let deadline = r.value(&server::DEADLINE);
        let tfs_version = r.optional(&model_server::TFS_VERSION);
        let model_dir = r.value(&server::MODEL_DIR);
        let handlers = HandlerConfig::read(
            r,
            &model_dir,
            deadline,
            single_threaded,
            tfs_version.as_deref(),
        );

        let port = r.value(&server::PORT);
        let instances = r.value(&model_server::INSTANCE_COUNT);
        let range = r.optional(&model_server::PORT_RANGE);
        let multi_model = MultiModelConfig::read(r, range, instances);
        let instance_ports = instance_ports(r, multi_model.as_ref(), range, instances, port);
        let extra_args = extra_args::read(r, tfs_version.as_deref(), instances);
        let (batching, without_effect) = Batching::read(r);
        refuse_in_multi_model_mode(r);

        Self {
            listen: r.value(&server::LISTEN),
            port,
            model_dir,
            model_server: r.value(&model_server::MODEL_SERVER),
            tfs_version,
            tmp_dir: r.value(&server::TMPDIR),
            deadline: match single_threaded {
                true => NO_DEADLINE,
                false => handlers.context_timeout,
            },
            body_memory: r.optional(&server::BODY_MEMORY).map(mebibytes),
            front_log_level: r.value(&server::FRONT_LOG_LEVEL),
            log_level: r.value(&server::LOG_LEVEL),
            workers: r.value(&server::WORKERS),
            single_threaded,
            default_model_name: r.optional(&model_server::DEFAULT_MODEL_NAME),
            instance_ports,
            wait_time: r.value(&model_server::WAIT_TIME),
            parallelism: Parallelism::read(r),
            gpu_memory_margin: r.value(&model_server::GPU_MARGIN),
            batching,
            without_effect,
            warm_up_requests: r.optional(&tuning::WARMUP_REQUEST).unwrap_or_default(),
            warm_up_iterations: r.optional(&tuning::WARMUP_ITERATIONS),
            xla_cpu: r.value(&tuning::XLA_CPU),
            version_labels: r.optional(&tuning::VERSION_LABELS).unwrap_or_default(),
            extra_args,
            omp_num_threads: r.value(&model_server::OMP_THREADS),
            batch_transform: r.circumstances.batch_transform,
            // SageMaker's API allows 0 to mean "not set".
            max_concurrent_transforms: r
                .optional(&batch_transform::MAX_CONCURRENT)
                .filter(|&n| n > 0),
            max_payload_mb: r.optional(&batch_transform::MAX_PAYLOAD),
            formats: FormatConfig::read(r),
            handlers,
            multi_model,
            remarks: Vec::new(),
        }
    }

    /// The number of requests that may be at work at once.
    pub fn slots(&self) -> usize {
        if self.single_threaded {
            return 1;
        }
        match self.multi_model {
            Some(_) => self.model_slots() * MODELS_AT_WORK,
            None => self.model_slots(),
        }
    }

    /// The number of requests of one model that may be at work at once.
    pub fn model_slots(&self) -> usize {
        if self.single_threaded {
            return 1;
        }
        let transforms = self.max_concurrent_transforms.unwrap_or(0) as usize;
        transforms.max(match self.workers {
            Workers::Coroutines(_) => DEFAULT_SLOTS,
            Workers::Threads => DEFAULT_SLOTS_ON_THREADS,
        })
    }
}

/// The ports of the instances that start with the server; notes a problem if there are too few.
fn instance_ports(
    r: &mut Reader,
    multi_model: Option<&MultiModelConfig>,
    range: Option<(u16, u16)>,
    instances: u32,
    port: u16,
) -> Vec<InstancePorts> {
    let ports = match multi_model {
        // Each model gets its ports when it is loaded.
        Some(mode) => ports::check_for_models(mode.ports, instances).map(|()| Vec::new()),
        None => ports::assign(range, instances, port),
    };
    ports.unwrap_or_else(|problem| {
        r.note(problem);
        Vec::new()
    })
}

/// Numbers of TensorFlow's threads: for both kinds of work together, or for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parallelism {
    /// Value of `--tensorflow_session_parallelism`.
    pub session: Option<u32>,
    /// Value of `--tensorflow_inter_op_parallelism`.
    pub inter_op: Option<u32>,
    /// Value of `--tensorflow_intra_op_parallelism`.
    pub intra_op: Option<u32>,
}

impl Parallelism {
    /// Reads the settings. Those of the two kinds exclude the one for both.
    fn read(r: &mut Reader) -> Self {
        let session = r.optional(&tuning::SESSION_PARALLELISM);
        let others = [&model_server::INTER_OP, &model_server::INTRA_OP];
        let [inter_op, intra_op] = others.map(|setting| {
            let value = r.optional(setting);
            if session.is_some() && value.is_some() {
                let (session, name) = (tuning::SESSION_PARALLELISM.name, setting.name);
                r.note(format!("{session} and {name} exclude each other"));
            }
            value
        });
        Self {
            session,
            inter_op,
            intra_op,
        }
    }
}

fn mebibytes(number: u32) -> u64 {
    u64::from(number) << 20
}

/// Notes a problem for each setting that has no effect in this mode.
fn refuse_in_multi_model_mode(r: &mut Reader) {
    if r.circumstances.multi_model {
        let later = "cannot be used in multi-model mode, where clients load models later";
        for (setting, instead) in [
            (
                &tuning::WARMUP_REQUEST.setting,
                "; put warm-up files into the models instead",
            ),
            (&tuning::VERSION_LABELS.setting, ""),
        ] {
            if r.is_given(setting) {
                r.note(format!("{} {later}{instead}", setting.name));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::read;
    use super::*;

    #[test]
    fn empty_value_counts_as_unset() {
        let unset = read(&[]).unwrap();
        let empty: Vec<_> = Setting::all().map(|s| (s.name, "")).collect();
        assert_eq!(read(&empty).unwrap(), unset);
    }

    #[test]
    fn batch_transform_changes_defaults() {
        for value in ["true", "True"] {
            let config = read(&[
                ("SAGEMAKER_BATCH", value),
                ("SAGEMAKER_TFS_ENABLE_BATCHING", "true"),
            ])
            .unwrap();
            assert!(config.batch_transform);
            assert_eq!(config.handlers.timeout, Some(Duration::from_secs(600)));
            assert_eq!(config.deadline, Duration::from_secs(600));
            assert_eq!(config.batching.unwrap().max_enqueued_batches, 100_000_000);
        }
    }

    #[test]
    fn deadline_is_never_below_the_handler_timeout() {
        let config = read(&[
            ("SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS", "20"),
            ("SAGEMAKER_GUNICORN_TIMEOUT_SECONDS", "45"),
        ])
        .unwrap();
        assert_eq!(config.deadline, Duration::from_secs(45));
    }

    #[test]
    fn single_threaded_mode_has_one_slot_and_no_deadline() {
        let config = read(&[
            ("SAGEMAKER_TFS_SINGLE_THREADED", "true"),
            ("SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", "100"),
        ])
        .unwrap();
        assert_eq!((config.slots(), config.model_slots()), (1, 1));
        assert_eq!(config.deadline, NO_DEADLINE);
        assert_eq!(config.handlers.timeout, None);
        assert_eq!(config.handlers.context_timeout, Duration::from_secs(60));
    }

    #[test]
    fn batch_transform_job_raises_the_slots_but_never_lowers_them() {
        for (workers, slots) in [("2", DEFAULT_SLOTS), ("threads", DEFAULT_SLOTS_ON_THREADS)] {
            for (transforms, expected) in [("", slots), ("1", slots), ("10000", 10_000)] {
                let slots = |more: &[(&str, &str)]| {
                    let pairs = [
                        ("SAGEMAKER_TFS_WORKERS", workers),
                        ("SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", transforms),
                    ];
                    let config = read(&[&pairs, more].concat()).unwrap();
                    (config.slots(), config.model_slots())
                };
                assert_eq!(slots(&[]), (expected, expected));
                let of_all = expected * MODELS_AT_WORK;
                assert_eq!(
                    slots(&[("SAGEMAKER_MULTI_MODEL", "true")]),
                    (of_all, expected)
                );
            }
        }
        let documented = format!("above {DEFAULT_SLOTS},");
        assert!(batch_transform::MAX_CONCURRENT.doc.contains(&documented));
    }

    #[test]
    fn refuses_ports_that_do_not_fit() {
        for pairs in [
            &[
                ("SAGEMAKER_SAFE_PORT_RANGE", "9000-9002"),
                ("SAGEMAKER_TFS_INSTANCE_COUNT", "2"),
            ][..],
            &[("SAGEMAKER_SAFE_PORT_RANGE", "9000-9000")],
            &[
                ("SAGEMAKER_SAFE_PORT_RANGE", "8080-8090"),
                ("SAGEMAKER_BIND_TO_PORT", "8081"),
            ],
            &[("SAGEMAKER_BIND_TO_PORT", "8501")],
            &[
                ("SAGEMAKER_SAFE_PORT_RANGE", "9000-9001"),
                ("SAGEMAKER_MULTI_MODEL", "true"),
            ],
            &[
                ("SAGEMAKER_TFS_INSTANCE_COUNT", "500"),
                ("SAGEMAKER_MULTI_MODEL", "true"),
            ],
        ] {
            assert_eq!(read(pairs).unwrap_err().len(), 1, "{pairs:?}");
        }
    }

    #[test]
    fn reports_all_problems_at_once() {
        let problems = read(&[
            ("SAGEMAKER_BIND_TO_PORT", "x"),
            ("SAGEMAKER_MULTI_MODEL", "x"),
            ("OMP_NUM_THREADS", "x"),
        ]);
        assert_eq!(problems.unwrap_err().len(), 3);
    }

    #[test]
    fn flag_overrides_its_variable_and_is_named_when_wrong() {
        let mut vars = Vars::default();
        vars.environment
            .insert("SAGEMAKER_BIND_TO_PORT".into(), "1234".into());
        vars.set_flag(&server::PORT, "4321".into());
        assert_eq!(Config::read(&vars, 1).unwrap().port, 4321);
        vars.set_flag(&server::PORT, "".into());
        let error = Config::read(&vars, 1).unwrap_err().to_string();
        assert_eq!(
            error,
            "--port is \"\"; accepted: a port number from 1 to 65535"
        );
    }
}
