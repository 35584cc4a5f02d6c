//! Reads all settings once and turns them into a plain, checked [`Config`].
//!
//! [`Config::read`] touches nothing but the variables it is given: no files, no processes. Every wrong value is
//! collected, so that a person mends them all in one go. Nothing else in the program reads the environment.

mod model_name;
pub mod settings;

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

pub use self::model_name::is_model_name;
use self::settings::Setting;
use crate::error::StartError;
use crate::s3::AwsConfig;

/// Everything that can be set, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Address and port of the HTTP front.
    pub listen: IpAddr,
    /// See `listen`.
    pub port: u16,
    /// Where the models are.
    pub model_dir: PathBuf,
    /// Program to start: a path, or a name looked up on PATH.
    pub model_server: PathBuf,
    /// Its version, where that is set.
    pub tfs_version: Option<String>,
    /// Where the private directory is made.
    pub tmp_dir: PathBuf,
    /// Deadline of a whole request.
    pub deadline: Duration,
    /// Memory for bodies, bytes; `None`: by the memory there is.
    pub body_memory: Option<u64>,
    /// Level of the HTTP front's log.
    pub front_log_level: LevelFilter,
    /// Level of everything else.
    pub log_level: LevelFilter,
    /// One request at a time, handlers at the terminal, no deadlines: to debug a handler.
    pub single_threaded: bool,
    /// Model for requests that name none; `None`: the first found.
    pub default_model_name: Option<String>,
    /// Ports of each TensorFlow Serving instance; as many as there are instances.
    pub instance_ports: Vec<InstancePorts>,
    /// Time a model may take to become AVAILABLE.
    pub wait_time: Duration,
    /// `--tensorflow_inter_op_parallelism`.
    pub inter_op_parallelism: Option<u32>,
    /// `--tensorflow_intra_op_parallelism`.
    pub intra_op_parallelism: Option<u32>,
    /// Share of GPU memory left free, 0 to 1.
    pub gpu_memory_margin: f64,
    /// Batching parameters, when batching is on.
    pub batching: Option<Batching>,
    /// `OMP_NUM_THREADS` for children.
    pub omp_num_threads: String,
    /// Whether this is a batch transform job.
    pub batch_transform: bool,
    /// Concurrent requests of a batch transform job.
    pub max_concurrent_transforms: Option<u32>,
    /// Largest payload of a batch transform job, MB.
    pub max_payload_mb: Option<u32>,
    /// Settings of Python handlers.
    pub handlers: HandlerConfig,
    /// Settings of multi-model mode; `None` when it is off.
    pub multi_model: Option<MultiModelConfig>,
}

/// The two ports of a TensorFlow Serving instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstancePorts {
    /// `--port`.
    pub grpc: u16,
    /// `--rest_api_port`.
    pub rest: u16,
}

/// TensorFlow Serving's batching parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batching {
    /// Requests in a batch.
    pub max_batch_size: u32,
    /// Longest wait for a batch to fill, microseconds.
    pub batch_timeout_micros: u32,
    /// Batches processed at once.
    pub num_batch_threads: u32,
    /// Batches waiting; more are refused.
    pub max_enqueued_batches: u32,
}

/// Settings of Python handlers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerConfig {
    /// Python processes.
    pub workers: u32,
    /// Python threads a process, in the class `gthread`.
    pub threads: u32,
    /// How calls may overlap.
    pub worker_class: WorkerClass,
    /// Longest time of one call; `None`: no limit.
    pub timeout: Option<Duration>,
    /// What `context.timeout` says: the deadline of a request.
    pub context_timeout: Duration,
    /// Python's name of the log level.
    pub log_level: &'static str,
    /// File name in `code/`.
    pub program: String,
    /// Whether it was named, and so must be there.
    pub program_is_named: bool,
}

/// How calls of handlers may overlap; gunicorn's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerClass {
    /// All calls are on the main thread. Those of a pair alternate; those of a single `handler` are greenlets where
    /// gevent is installed.
    Gevent,
    /// One request at a time.
    Sync,
    /// Several threads. A request stays on its own.
    Gthread,
}

impl WorkerClass {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Gevent, Self::Sync, Self::Gthread];

    /// gunicorn's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gevent => "gevent",
            Self::Sync => "sync",
            Self::Gthread => "gthread",
        }
    }

    /// The class of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }
}

/// Settings of multi-model mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultiModelConfig {
    /// Lowest and highest port for models.
    pub ports: (u16, u16),
    /// Model server processes for each model.
    pub instances: u32,
    /// S3 bucket and key prefix of a handler for all models.
    pub universal_handler: Option<(String, String)>,
    /// How to reach S3.
    pub aws: AwsConfig,
}

/// The environment and the command line's options, as given.
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

    /// These variables. What is not UTF-8 is replaced.
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

    /// Sets the option of `setting` as given on the command line.
    pub fn set_flag(&mut self, setting: &'static Setting, value: String) {
        self.flags.insert(setting.name, value);
    }

    /// The value and where it came from.
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

/// Reads settings one by one and collects what is wrong.
struct Reader<'a> {
    vars: &'a Vars,
    problems: Vec<String>,
    /// What was read, for the test that no setting is forgotten.
    seen: BTreeSet<&'static str>,
}

impl Reader<'_> {
    /// The checked value, or `None` when unset or wrong (wrong ones are noted).
    fn read<T>(
        &mut self,
        setting: &'static Setting,
        check: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.seen.insert(setting.name);
        let (origin, value) = self.vars.get(setting)?;
        let checked = check(value.trim());
        if checked.is_none() {
            self.problems.push(format!(
                "{origin} is {value:?}; accepted: {}",
                setting.accepts
            ));
        }
        checked
    }

    fn number(&mut self, setting: &'static Setting, range: RangeInclusive<u32>) -> Option<u32> {
        self.read(setting, |text| {
            whole_number(text).filter(|n| range.contains(n))
        })
    }

    fn boolean(&mut self, setting: &'static Setting) -> bool {
        self.read(setting, |text| match text.to_ascii_lowercase().as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        })
        .unwrap_or(false)
    }

    fn seconds(&mut self, setting: &'static Setting) -> Option<Duration> {
        self.number(setting, 1..=86_400)
            .map(|n| Duration::from_secs(n.into()))
    }

    fn text(&mut self, setting: &'static Setting) -> Option<String> {
        self.read(setting, |text| (!text.is_empty()).then(|| text.to_owned()))
    }
}

/// Decimal digits only: `u32::from_str` alone would also take `+5`.
fn whole_number(text: &str) -> Option<u32> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

fn port(text: &str) -> Option<u16> {
    whole_number(text)
        .and_then(|n| u16::try_from(n).ok())
        .filter(|&n| n > 0)
}

const INT_MAX: u32 = i32::MAX as u32;
/// In place of a deadline, where there must be a number: TensorFlow Serving keeps milliseconds in 31 bits.
const NO_DEADLINE: Duration = Duration::from_secs(7 * 86_400);
/// `max_enqueued_batches` for batch transform: as good as unlimited, for a job retries nothing.
const BATCH_TRANSFORM_MAX_ENQUEUED: u32 = 100_000_000;

impl Config {
    /// Reads and checks everything. `cpus` is the number of CPUs this process may use.
    ///
    /// # Errors
    /// [`StartError::Settings`] with one line for each wrong value.
    pub fn read(vars: &Vars, cpus: u32) -> Result<Self, StartError> {
        let mut reader = Reader {
            vars,
            problems: Vec::new(),
            seen: BTreeSet::new(),
        };
        let config = Self::read_all(&mut reader, cpus);
        debug_assert_eq!(
            reader.seen.len(),
            settings::ALL.len(),
            "a setting is never read"
        );
        if reader.problems.is_empty() {
            Ok(config)
        } else {
            Err(StartError::Settings(reader.problems))
        }
    }

    fn read_all(r: &mut Reader, cpus: u32) -> Self {
        use settings::*;

        let batch_transform = r.boolean(BATCH);
        let handler_timeout = r
            .seconds(HANDLER_TIMEOUT)
            .unwrap_or(Duration::from_secs(if batch_transform { 600 } else { 30 }));
        let deadline = r
            .seconds(DEADLINE)
            .unwrap_or(Duration::from_secs(60))
            .max(handler_timeout);
        let single_threaded = r.boolean(SINGLE_THREADED);
        let (log_level, python_log_level) = r
            .read(LOG_LEVEL, gunicorn_level)
            .unwrap_or((LevelFilter::Info, "INFO"));

        let listen_port = r.read(PORT, port).unwrap_or(8080);
        let instances = r.number(INSTANCE_COUNT, 1..=1000).unwrap_or(1);
        let multi_model_on = r.boolean(MULTI_MODEL);
        let range = r.read(PORT_RANGE, port_range);
        let instance_ports = assign_ports(r, range, instances, listen_port, multi_model_on);

        let batching_on = r.boolean(BATCHING);
        let batching = Batching {
            max_batch_size: r.number(MAX_BATCH_SIZE, 1..=INT_MAX).unwrap_or(8),
            batch_timeout_micros: r.number(BATCH_TIMEOUT, 0..=INT_MAX).unwrap_or(1000),
            num_batch_threads: r.number(BATCH_THREADS, 1..=INT_MAX).unwrap_or(cpus),
            max_enqueued_batches: r.number(MAX_ENQUEUED, 1..=INT_MAX).unwrap_or(
                if batch_transform {
                    BATCH_TRANSFORM_MAX_ENQUEUED
                } else {
                    cpus
                },
            ),
        };

        let bucket = r.text(UNIVERSAL_BUCKET);
        let prefix = r.read(UNIVERSAL_PREFIX, |text| {
            bucket.is_some().then(|| text.to_owned())
        });
        let universal_handler = bucket.map(|b| (b, prefix.unwrap_or_default()));

        // SageMaker's API allows 0 for "not set".
        let max_concurrent_transforms = r.number(MAX_CONCURRENT, 0..=10_000).filter(|&n| n > 0);
        r.read(BATCH_STRATEGY, |text| {
            let text = text.to_ascii_uppercase().replace('_', "");
            (text == "MULTIRECORD" || text == "SINGLERECORD").then_some(())
        });

        let program = r.read(PROGRAM, |text| {
            (!text.contains('/')).then(|| text.to_owned())
        });
        let key = r.text(AWS_ACCESS_KEY);
        let secret = r.text(AWS_SECRET_KEY);
        let session_token = r.text(AWS_SESSION_TOKEN);
        let region = r.text(AWS_REGION);
        let endpoint = r.text(AWS_ENDPOINT_S3);
        let aws = AwsConfig {
            region: r
                .text(AWS_DEFAULT_REGION)
                .filter(|_| region.is_none())
                .or(region),
            endpoint: r
                .text(AWS_ENDPOINT)
                .filter(|_| endpoint.is_none())
                .or(endpoint),
            keys: key
                .zip(secret)
                .map(|(key, secret)| (key, secret, session_token)),
            container_path: r.text(AWS_CONTAINER_PATH),
            container_url: r.text(AWS_CONTAINER_URL),
            container_token: r.text(AWS_CONTAINER_TOKEN),
            container_token_file: r.text(AWS_CONTAINER_TOKEN_FILE),
            metadata_endpoint: r.text(AWS_METADATA),
        };

        Self {
            listen: r
                .read(LISTEN, |text| text.parse().ok())
                .unwrap_or(IpAddr::from([0, 0, 0, 0])),
            port: listen_port,
            model_dir: r
                .text(MODEL_DIR)
                .unwrap_or(
                    if multi_model_on {
                        "/opt/ml/models"
                    } else {
                        "/opt/ml/model"
                    }
                    .into(),
                )
                .into(),
            model_server: r
                .text(MODEL_SERVER)
                .unwrap_or("tensorflow_model_server".into())
                .into(),
            tfs_version: r.text(TFS_VERSION),
            tmp_dir: r.text(TMPDIR).unwrap_or("/tmp".into()).into(),
            deadline: if single_threaded {
                NO_DEADLINE
            } else {
                deadline
            },
            body_memory: r
                .number(BODY_MEMORY, 1..=1 << 20)
                .map(|megabytes| u64::from(megabytes) << 20),
            front_log_level: r
                .read(FRONT_LOG_LEVEL, nginx_level)
                .unwrap_or(LevelFilter::Error),
            log_level,
            single_threaded,
            default_model_name: r.read(DEFAULT_MODEL_NAME, |text| {
                is_model_name(text).then(|| text.to_owned())
            }),
            instance_ports,
            wait_time: r
                .seconds(WAIT_TIME)
                .unwrap_or(Duration::from_secs(if multi_model_on { 55 } else { 300 })),
            inter_op_parallelism: r.number(INTER_OP, 0..=INT_MAX),
            intra_op_parallelism: r.number(INTRA_OP, 0..=INT_MAX),
            gpu_memory_margin: r
                .read(GPU_MARGIN, |text| {
                    text.parse().ok().filter(|n| (0.0..1.0).contains(n))
                })
                .unwrap_or(0.2),
            batching: batching_on.then_some(batching),
            omp_num_threads: r
                .read(OMP_THREADS, |text| {
                    text.split(',')
                        .all(|n| whole_number(n).is_some_and(|n| (1..=INT_MAX).contains(&n)))
                        .then(|| text.to_owned())
                })
                .unwrap_or("1".into()),
            batch_transform,
            max_concurrent_transforms,
            max_payload_mb: r.number(MAX_PAYLOAD, 0..=INT_MAX),
            handlers: HandlerConfig {
                workers: r.number(WORKERS, 1..=1000).unwrap_or(1),
                threads: r.number(THREADS, 1..=1000).unwrap_or(1),
                worker_class: r
                    .read(WORKER_CLASS, WorkerClass::from_name)
                    .unwrap_or(WorkerClass::Gevent),
                timeout: (!single_threaded).then_some(handler_timeout),
                context_timeout: deadline,
                log_level: python_log_level,
                program_is_named: program.is_some(),
                program: program.unwrap_or("inference.py".into()),
            },
            multi_model: multi_model_on.then_some(MultiModelConfig {
                ports: range.unwrap_or(DEFAULT_MULTI_MODEL_PORTS),
                instances,
                universal_handler,
                aws,
            }),
        }
    }
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-')?;
    let (low, high) = (port(low.trim())?, port(high.trim())?);
    (low <= high).then_some((low, high))
}

/// First gRPC and REST port when no range is given; instance i takes these plus i.
const DEFAULT_PORTS: InstancePorts = InstancePorts {
    grpc: 9000,
    rest: 8501,
};

/// Ports for models in multi-model mode when no range is given.
const DEFAULT_MULTI_MODEL_PORTS: (u16, u16) = (9000, 9999);

/// Gives each instance its ports, and notes what does not fit.
fn assign_ports(
    r: &mut Reader,
    range: Option<(u16, u16)>,
    instances: u32,
    listen_port: u16,
    multi_model: bool,
) -> Vec<InstancePorts> {
    if multi_model {
        let (low, high) = range.unwrap_or(DEFAULT_MULTI_MODEL_PORTS);
        // As `PortPool` counts them.
        if u32::from(high - low) / 2 < instances {
            r.problems.push(format!(
                "{} is \"{low}-{high}\", too small for a model with {} = {instances}; accepted: LOW-HIGH with a port \
                 more than two for each instance",
                settings::PORT_RANGE.name,
                settings::INSTANCE_COUNT.name,
            ));
        }
        return Vec::new(); // each model gets its own when it is loaded
    }
    let instances = instances as u16; // checked: at most 1000
    let ports: Vec<InstancePorts> = match range {
        Some((low, high)) => {
            if u32::from(high) < u32::from(low) + 2 * u32::from(instances) - 1 {
                r.problems.push(format!(
                    "{} is \"{low}-{high}\", too small for {} = {instances}; accepted: {}",
                    settings::PORT_RANGE.name,
                    settings::INSTANCE_COUNT.name,
                    settings::PORT_RANGE.accepts
                ));
                return Vec::new();
            }
            (0..instances)
                .map(|i| InstancePorts {
                    grpc: low + 2 * i,
                    rest: low + 2 * i + 1,
                })
                .collect()
        }
        // With 500 instances and more, REST would run into gRPC; nobody runs that many without a range.
        None if instances > 400 => {
            r.problems.push(format!(
                "{} is {instances}: more than 400 instances need {}",
                settings::INSTANCE_COUNT.name,
                settings::PORT_RANGE.name
            ));
            return Vec::new();
        }
        None => (0..instances)
            .map(|i| InstancePorts {
                grpc: DEFAULT_PORTS.grpc + i,
                rest: DEFAULT_PORTS.rest + i,
            })
            .collect(),
    };
    if let Some(i) = ports
        .iter()
        .position(|p| p.grpc == listen_port || p.rest == listen_port)
    {
        r.problems.push(format!(
            "{} is {listen_port}, which TensorFlow Serving instance {i} needs; set {} to other ports",
            settings::PORT.name,
            settings::PORT_RANGE.name
        ));
    }
    ports
}

/// nginx's level names, as its `error_log` directive takes them.
fn nginx_level(text: &str) -> Option<LevelFilter> {
    Some(match text.to_ascii_lowercase().as_str() {
        "debug" => LevelFilter::Debug,
        "info" => LevelFilter::Info,
        // Our log has no level between: what is shown at "notice" must not have the access lines of "info".
        "notice" | "warn" => LevelFilter::Warn,
        "error" | "crit" | "alert" | "emerg" => LevelFilter::Error,
        _ => return None,
    })
}

/// gunicorn's level names: our level, and Python's name.
fn gunicorn_level(text: &str) -> Option<(LevelFilter, &'static str)> {
    Some(match text.to_ascii_lowercase().as_str() {
        "debug" => (LevelFilter::Debug, "DEBUG"),
        "info" => (LevelFilter::Info, "INFO"),
        "warning" => (LevelFilter::Warn, "WARNING"),
        "error" => (LevelFilter::Error, "ERROR"),
        "critical" => (LevelFilter::Error, "CRITICAL"),
        _ => return None,
    })
}

/// Requests worked on at once, when nothing asks for more. Most wait for TensorFlow Serving, so the number has
/// little to do with CPUs; a waiting thread costs some 10 KB.
const DEFAULT_SLOTS: usize = 64;
/// In multi-model mode there are slots for so many models with all the work they can have: requests that wait for one
/// which is down must not keep the others' out.
pub const MODELS_AT_WORK: usize = 8;

impl Config {
    /// Requests worked on at once.
    pub fn slots(&self) -> usize {
        if self.single_threaded {
            return 1;
        }
        match self.multi_model {
            Some(_) => self.model_slots() * MODELS_AT_WORK,
            None => self.model_slots(),
        }
    }

    /// Requests of one model worked on at once.
    pub fn model_slots(&self) -> usize {
        if self.single_threaded {
            return 1;
        }
        let asked = self.max_concurrent_transforms.unwrap_or(0) as usize;
        asked.max(DEFAULT_SLOTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let vars = Vars {
            environment: pairs
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect(),
            flags: HashMap::new(),
        };
        Config::read(&vars, 4).map_err(|e| match e {
            StartError::Settings(problems) => problems,
            other => panic!("{other}"),
        })
    }

    #[test]
    fn defaults() {
        let config = read(&[]).unwrap();
        assert_eq!(config.port, 8080);
        assert_eq!(config.model_dir, PathBuf::from("/opt/ml/model"));
        assert_eq!(
            config.model_server,
            PathBuf::from("tensorflow_model_server")
        );
        assert_eq!(config.deadline, Duration::from_secs(60));
        assert_eq!(config.front_log_level, LevelFilter::Error);
        assert_eq!(config.log_level, LevelFilter::Info);
        assert_eq!(config.instance_ports, [DEFAULT_PORTS]);
        assert_eq!(config.wait_time, Duration::from_secs(300));
        assert_eq!(config.gpu_memory_margin, 0.2);
        assert_eq!(config.batching, None);
        assert_eq!(config.omp_num_threads, "1");
        assert_eq!(config.handlers.workers, 1);
        assert_eq!(config.handlers.threads, 1);
        assert_eq!(config.handlers.worker_class, WorkerClass::Gevent);
        assert_eq!(config.handlers.timeout, Some(Duration::from_secs(30)));
        assert_eq!(config.handlers.program, "inference.py");
        assert_eq!(config.multi_model, None);
        assert_eq!(config.default_model_name, None);
        assert_eq!(config.max_concurrent_transforms, None);
    }

    #[test]
    fn an_empty_value_counts_as_unset() {
        let unset = read(&[]).unwrap();
        let empty: Vec<_> = settings::ALL.iter().map(|s| (s.name, "")).collect();
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
    fn batching_defaults_and_values() {
        let on = ("SAGEMAKER_TFS_ENABLE_BATCHING", "TRUE");
        assert_eq!(
            read(&[on]).unwrap().batching.unwrap(),
            Batching {
                max_batch_size: 8,
                batch_timeout_micros: 1000,
                num_batch_threads: 4,
                max_enqueued_batches: 4,
            }
        );
        let all = read(&[
            on,
            ("SAGEMAKER_TFS_MAX_BATCH_SIZE", "64"),
            ("SAGEMAKER_TFS_BATCH_TIMEOUT_MICROS", "0"),
            ("SAGEMAKER_TFS_NUM_BATCH_THREADS", "2"),
            ("SAGEMAKER_TFS_MAX_ENQUEUED_BATCHES", "3"),
        ]);
        assert_eq!(
            all.unwrap().batching.unwrap(),
            Batching {
                max_batch_size: 64,
                batch_timeout_micros: 0,
                num_batch_threads: 2,
                max_enqueued_batches: 3,
            }
        );
    }

    #[test]
    fn the_deadline_is_never_below_the_handler_timeout() {
        let config = read(&[
            ("SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS", "20"),
            ("SAGEMAKER_GUNICORN_TIMEOUT_SECONDS", "45"),
        ])
        .unwrap();
        assert_eq!(config.deadline, Duration::from_secs(45));
    }

    #[test]
    fn ports_follow_the_range() {
        let config = read(&[
            ("SAGEMAKER_SAFE_PORT_RANGE", "9000-9003"),
            ("SAGEMAKER_TFS_INSTANCE_COUNT", "2"),
        ])
        .unwrap();
        let pairs: Vec<_> = config
            .instance_ports
            .iter()
            .map(|p| (p.grpc, p.rest))
            .collect();
        assert_eq!(pairs, [(9000, 9001), (9002, 9003)]);
    }

    #[test]
    fn ports_without_a_range_follow_the_defaults() {
        let config = read(&[("SAGEMAKER_TFS_INSTANCE_COUNT", "3")]).unwrap();
        let pairs: Vec<_> = config
            .instance_ports
            .iter()
            .map(|p| (p.grpc, p.rest))
            .collect();
        assert_eq!(pairs, [(9000, 8501), (9001, 8502), (9002, 8503)]);
    }

    #[test]
    fn ports_that_do_not_fit_are_problems() {
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
    fn each_wrong_value_is_named_with_what_is_accepted() {
        let wrong = [
            ("SAGEMAKER_BIND_TO_PORT", "0"),
            ("SAGEMAKER_BIND_TO_PORT", "65536"),
            ("SAGEMAKER_TFS_LISTEN_ADDRESS", "localhost"),
            ("SAGEMAKER_SAFE_PORT_RANGE", "9000"),
            ("SAGEMAKER_SAFE_PORT_RANGE", "9999-9000"),
            ("SAGEMAKER_SAFE_PORT_RANGE", "1-70000"),
            ("SAGEMAKER_TFS_DEFAULT_MODEL_NAME", "a/b"),
            ("SAGEMAKER_TFS_INSTANCE_COUNT", "0"),
            ("SAGEMAKER_TFS_WAIT_TIME_SECONDS", "-1"),
            ("SAGEMAKER_TFS_INTER_OP_PARALLELISM", "two"),
            ("SAGEMAKER_TFS_INTRA_OP_PARALLELISM", "1.5"),
            ("SAGEMAKER_TFS_FRACTIONAL_GPU_MEM_MARGIN", "1"),
            ("SAGEMAKER_TFS_FRACTIONAL_GPU_MEM_MARGIN", "nan"),
            ("SAGEMAKER_TFS_ENABLE_BATCHING", "1"),
            ("SAGEMAKER_TFS_MAX_BATCH_SIZE", "0"),
            ("SAGEMAKER_TFS_BATCH_TIMEOUT_MICROS", "-5"),
            ("SAGEMAKER_TFS_NUM_BATCH_THREADS", "+4"),
            ("SAGEMAKER_TFS_MAX_ENQUEUED_BATCHES", "99999999999"),
            ("SAGEMAKER_GUNICORN_WORKERS", "0"),
            ("SAGEMAKER_GUNICORN_THREADS", "x"),
            ("SAGEMAKER_GUNICORN_WORKER_CLASS", "tornado"),
            ("SAGEMAKER_GUNICORN_TIMEOUT_SECONDS", "0"),
            ("SAGEMAKER_GUNICORN_LOGLEVEL", "loud"),
            ("SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS", "60s"),
            ("SAGEMAKER_TFS_NGINX_LOGLEVEL", "warning"),
            ("SAGEMAKER_MULTI_MODEL", "yes"),
            ("SAGEMAKER_MULTI_MODEL_UNIVERSAL_PREFIX", "without/bucket"),
            ("SAGEMAKER_BATCH", "on"),
            ("SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", "many"),
            ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "6MB"),
            ("SAGEMAKER_BATCH_STRATEGY", "ALL"),
            ("SAGEMAKER_PROGRAM", "../x.py"),
            ("OMP_NUM_THREADS", "0"),
        ];
        for (name, value) in wrong {
            let problems = read(&[(name, value)]).unwrap_err();
            assert_eq!(problems.len(), 1, "{name}: {problems:?}");
            let setting = settings::ALL.iter().find(|s| s.name == name).unwrap();
            assert_eq!(
                problems[0],
                format!("{name} is {value:?}; accepted: {}", setting.accepts)
            );
        }
    }

    #[test]
    fn all_problems_come_at_once() {
        let problems = read(&[
            ("SAGEMAKER_BIND_TO_PORT", "x"),
            ("SAGEMAKER_MULTI_MODEL", "x"),
            ("OMP_NUM_THREADS", "x"),
        ]);
        assert_eq!(problems.unwrap_err().len(), 3);
    }

    #[test]
    fn a_flag_wins_and_is_named_when_wrong() {
        let mut vars = Vars::default();
        vars.environment
            .insert("SAGEMAKER_BIND_TO_PORT".into(), "1234".into());
        vars.set_flag(settings::PORT, "4321".into());
        assert_eq!(Config::read(&vars, 1).unwrap().port, 4321);
        vars.set_flag(settings::PORT, "".into());
        let error = Config::read(&vars, 1).unwrap_err().to_string();
        assert_eq!(
            error,
            "--port is \"\"; accepted: a port number from 1 to 65535"
        );
    }

    #[test]
    fn levels() {
        let level = |name, value| read(&[(name, value)]).unwrap();
        let front = |v| level("SAGEMAKER_TFS_NGINX_LOGLEVEL", v).front_log_level;
        assert_eq!(front("debug"), LevelFilter::Debug);
        assert_eq!(front("notice"), LevelFilter::Warn);
        assert_eq!(front("warn"), LevelFilter::Warn);
        assert_eq!(front("crit"), LevelFilter::Error);
        let server = |v| level("SAGEMAKER_GUNICORN_LOGLEVEL", v).log_level;
        assert_eq!(server("warning"), LevelFilter::Warn);
        assert_eq!(server("critical"), LevelFilter::Error);
    }

    #[test]
    fn multi_model_settings() {
        for value in ["true", "True", "TRUE"] {
            let config = read(&[
                ("SAGEMAKER_MULTI_MODEL", value),
                ("SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET", "b"),
                ("SAGEMAKER_MULTI_MODEL_UNIVERSAL_PREFIX", "p/"),
            ])
            .unwrap();
            let universal = config.multi_model.unwrap().universal_handler;
            assert_eq!(universal, Some(("b".into(), "p/".into())));
            assert_eq!(config.wait_time, Duration::from_secs(55));
        }
        assert_eq!(
            read(&[("SAGEMAKER_MULTI_MODEL", "FALSE")])
                .unwrap()
                .multi_model,
            None
        );
    }
}
