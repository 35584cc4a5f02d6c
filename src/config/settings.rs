//! Every setting: its variable, its flag if it has one, its default, what it accepts and what it means.
//!
//! This table is the single source: `config.rs` reads through it, the messages about wrong values quote it,
//! `--help` and `docs/SETTINGS.md` are printed from it.

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Environment variable.
    pub name: &'static str,
    /// Long option of `serve` that overrides the variable, without the dashes.
    pub flag: Option<&'static str>,
    /// The default, in words where it depends on something.
    pub default: &'static str,
    /// What is accepted, as a noun phrase: "a port number from 1 to 65535".
    pub accepts: &'static str,
    /// What it means, one sentence or two.
    pub doc: &'static str,
    /// What the setting belongs to.
    pub group: Group,
}

impl Setting {
    /// Whether its option is a switch: given or not, without a value.
    pub fn is_switch(&self) -> bool {
        self.accepts == BOOL
    }
}

/// Headings of the settings table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Ports, paths, deadlines, logs.
    Server,
    /// TensorFlow Serving.
    ModelServer,
    /// Batch transform, set by SageMaker.
    Batch,
    /// Python handlers.
    Handlers,
    /// Multi-model endpoints.
    MultiModel,
    /// AWS's own variables.
    Aws,
}

impl Group {
    const ALL: [Self; 6] = [
        Self::Server,
        Self::ModelServer,
        Self::Batch,
        Self::Handlers,
        Self::MultiModel,
        Self::Aws,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Server => "Server",
            Self::ModelServer => "TensorFlow Serving",
            Self::Batch => "Batch transform (set by SageMaker)",
            Self::Handlers => "Python handlers",
            Self::MultiModel => "Multi-model endpoints",
            Self::Aws => "AWS (used to download the handler for all models)",
        }
    }
}

const BOOL: &str = "true or false, in any case";
const POSITIVE: &str = "a whole number from 1 to 2147483647";
const NOT_NEGATIVE: &str = "a whole number from 0 to 2147483647";
const SECONDS: &str = "a whole number of seconds from 1 to 86400";

macro_rules! settings {
    ($($ident:ident = $group:ident, $name:literal, $flag:expr, $default:literal, $accepts:expr, $doc:literal;)*) => {
        $(
            #[doc = $doc]
            pub const $ident: &Setting = &Setting {
                name: $name, flag: $flag, default: $default, accepts: $accepts, doc: $doc, group: Group::$group,
            };
        )*
        /// All settings, in the order of the documentation.
        pub const ALL: &[&Setting] = &[$($ident),*];
    };
}

settings! {
    PORT = Server, "SAGEMAKER_BIND_TO_PORT", Some("port"), "8080", "a port number from 1 to 65535",
        "Port the server listens on.";
    MODEL_DIR = Server, "SAGEMAKER_TFS_MODEL_DIR", Some("model-dir"), "/opt/ml/model; /opt/ml/models in multi-model mode", "a directory",
        "Where the models are.";
    LISTEN = Server, "SAGEMAKER_TFS_LISTEN_ADDRESS", Some("listen"), "0.0.0.0", "an IP address",
        "Address the server listens on; 127.0.0.1 keeps it to this machine.";
    DEADLINE = Server, "SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS", None, "60", SECONDS,
        "Deadline of a whole request, from its arrival to its answer. Never below SAGEMAKER_GUNICORN_TIMEOUT_SECONDS: the larger of the two counts.";
    FRONT_LOG_LEVEL = Server, "SAGEMAKER_TFS_NGINX_LOGLEVEL", None, "error", "debug, info, notice, warn, error, crit, alert or emerg",
        "Level of the HTTP front's log; at `info` and below one access line a request.";
    LOG_LEVEL = Server, "SAGEMAKER_GUNICORN_LOGLEVEL", None, "info", "debug, info, warning, error or critical",
        "Level of the server's and the handlers' logs.";
    SINGLE_THREADED = Server, "SAGEMAKER_TFS_SINGLE_THREADED", Some("single-threaded"), "false", BOOL,
        "To debug a handler: one request at a time, one Python process that has the terminal, no deadlines.";
    BODY_MEMORY = Server, "SAGEMAKER_TFS_MAX_BODY_MEMORY_MB", None, "a quarter of the memory of the machine or the container", "a whole number of MB from 1 to 1048576",
        "Memory for all requests in flight together: large heads, bodies, their conversions, and the answers. Requests for which there is no room get 503; one that alone needs more, or a body of more than 1 GiB, gets 413.";
    TMPDIR = Server, "TMPDIR", None, "/tmp", "a directory that can be written to",
        "Where a private directory for the model server's config files is made; it is removed at the end.";

    MODEL_SERVER = ModelServer, "SAGEMAKER_TFS_MODEL_SERVER", Some("model-server"), "tensorflow_model_server", "a program on PATH, or a path to one",
        "The TensorFlow Serving program to start.";
    TFS_VERSION = ModelServer, "SAGEMAKER_TFS_VERSION", None, "set by the images; unset: what the program says with `--version`", "a version, such as 2.19",
        "Version of TensorFlow Serving, for messages about flags that it does not know.";
    DEFAULT_MODEL_NAME = ModelServer, "SAGEMAKER_TFS_DEFAULT_MODEL_NAME", None, "first model found, by name", "the name of a model in the model directory",
        "Model for requests that name none.";
    PORT_RANGE = ModelServer, "SAGEMAKER_SAFE_PORT_RANGE", None, "unset", "LOW-HIGH, two port numbers, with two ports for each instance",
        "Ports for TensorFlow Serving: instance i takes LOW+2i (gRPC) and LOW+2i+1 (REST). Unset: 9000+i and 8501+i. In multi-model mode: the ports of all models' instances; unset: 9000-9999.";
    INSTANCE_COUNT = ModelServer, "SAGEMAKER_TFS_INSTANCE_COUNT", None, "1", "a whole number from 1 to 1000",
        "TensorFlow Serving processes for the models; in multi-model mode, for each model.";
    WAIT_TIME = ModelServer, "SAGEMAKER_TFS_WAIT_TIME_SECONDS", None, "300; 55 for a multi-model load", SECONDS,
        "Time a model may take to become AVAILABLE.";
    INTER_OP = ModelServer, "SAGEMAKER_TFS_INTER_OP_PARALLELISM", None, "unset", NOT_NEGATIVE,
        "Passed on as `--tensorflow_inter_op_parallelism`.";
    INTRA_OP = ModelServer, "SAGEMAKER_TFS_INTRA_OP_PARALLELISM", None, "unset", NOT_NEGATIVE,
        "Passed on as `--tensorflow_intra_op_parallelism`.";
    GPU_MARGIN = ModelServer, "SAGEMAKER_TFS_FRACTIONAL_GPU_MEM_MARGIN", None, "0.2", "a number from 0 up to, not including, 1",
        "With several instances on a machine with GPUs: the share of each GPU's memory that is left free; the rest is divided among the instances on that GPU.";
    BATCHING = ModelServer, "SAGEMAKER_TFS_ENABLE_BATCHING", None, "false", BOOL,
        "Whether TensorFlow Serving merges concurrent requests into batches.";
    MAX_BATCH_SIZE = ModelServer, "SAGEMAKER_TFS_MAX_BATCH_SIZE", None, "8", POSITIVE,
        "Batching: `max_batch_size`.";
    BATCH_TIMEOUT = ModelServer, "SAGEMAKER_TFS_BATCH_TIMEOUT_MICROS", None, "1000", NOT_NEGATIVE,
        "Batching: `batch_timeout_micros`, in microseconds.";
    BATCH_THREADS = ModelServer, "SAGEMAKER_TFS_NUM_BATCH_THREADS", None, "number of CPUs", POSITIVE,
        "Batching: `num_batch_threads`.";
    MAX_ENQUEUED = ModelServer, "SAGEMAKER_TFS_MAX_ENQUEUED_BATCHES", None, "number of CPUs; 100000000 with SAGEMAKER_BATCH", POSITIVE,
        "Batching: `max_enqueued_batches`.";
    OMP_THREADS = ModelServer, "OMP_NUM_THREADS", None, "1", "whole numbers from 1 to 2147483647, separated by commas",
        "Passed to the child processes.";

    BATCH = Batch, "SAGEMAKER_BATCH", None, "false", BOOL,
        "Whether this is a batch transform job: longer deadlines and queues.";
    MAX_CONCURRENT = Batch, "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", None, "unset", "a whole number from 0 to 10000; 0 counts as unset",
        "Concurrent requests of a batch transform job. Raises the number of worker threads when larger than their default, 64; reported by `/execution-parameters`, where 8 is the default.";
    MAX_PAYLOAD = Batch, "SAGEMAKER_MAX_PAYLOAD_IN_MB", None, "unset", NOT_NEGATIVE,
        "Largest payload of a batch transform job in MB; reported by `/execution-parameters`, where 6 is the default.";
    BATCH_STRATEGY = Batch, "SAGEMAKER_BATCH_STRATEGY", None, "unset", "MULTI_RECORD or SINGLE_RECORD",
        "How the job cuts records into requests. Accepted for completeness: both kinds are served alike.";

    WORKERS = Handlers, "SAGEMAKER_GUNICORN_WORKERS", None, "1", "a whole number from 1 to 1000",
        "Python processes that run handlers.";
    THREADS = Handlers, "SAGEMAKER_GUNICORN_THREADS", None, "1", "a whole number from 1 to 1000",
        "Python threads in each of them, for the worker class gthread.";
    WORKER_CLASS = Handlers, "SAGEMAKER_GUNICORN_WORKER_CLASS", None, "gevent", "gevent, sync or gthread",
        "How calls of handlers may overlap: see HANDLERS.md.";
    HANDLER_TIMEOUT = Handlers, "SAGEMAKER_GUNICORN_TIMEOUT_SECONDS", None, "30; 600 with SAGEMAKER_BATCH", SECONDS,
        "Longest time of one handler call; a Python process with a call that takes longer is killed and restarted. Also the lower bound of a request's deadline.";
    PROGRAM = Handlers, "SAGEMAKER_PROGRAM", None, "inference.py", "a file name in the archive's code directory",
        "The handler script.";

    MULTI_MODEL = MultiModel, "SAGEMAKER_MULTI_MODEL", None, "false", BOOL,
        "Multi-model mode: models are loaded and unloaded while the server runs. See MULTI_MODEL.md.";
    UNIVERSAL_BUCKET = MultiModel, "SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET", None, "unset", "the name of an S3 bucket",
        "S3 bucket of a handler for models that have none of their own; it is downloaded at the start.";
    UNIVERSAL_PREFIX = MultiModel, "SAGEMAKER_MULTI_MODEL_UNIVERSAL_PREFIX", None, "unset", "a key prefix, with SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET set",
        "Key prefix of that handler: what follows it in the keys is the path in the handler's folder.";

    AWS_REGION = Aws, "AWS_REGION", None, "AWS_DEFAULT_REGION, else us-east-1", "the name of a region",
        "Region of the bucket.";
    AWS_DEFAULT_REGION = Aws, "AWS_DEFAULT_REGION", None, "unset", "the name of a region",
        "The same, when AWS_REGION is not set.";
    AWS_ENDPOINT_S3 = Aws, "AWS_ENDPOINT_URL_S3", None, "AWS_ENDPOINT_URL, else AWS", "an address such as http://localhost:9000",
        "Address of a store like S3.";
    AWS_ENDPOINT = Aws, "AWS_ENDPOINT_URL", None, "unset", "an address such as http://localhost:9000",
        "The same, when AWS_ENDPOINT_URL_S3 is not set.";
    AWS_ACCESS_KEY = Aws, "AWS_ACCESS_KEY_ID", None, "unset", "an access key, with AWS_SECRET_ACCESS_KEY set",
        "Credentials. Without them the container credentials endpoint is asked, else the instance metadata service (version 2).";
    AWS_SECRET_KEY = Aws, "AWS_SECRET_ACCESS_KEY", None, "unset", "a secret key",
        "Credentials.";
    AWS_SESSION_TOKEN = Aws, "AWS_SESSION_TOKEN", None, "unset", "a session token",
        "Credentials, when they are temporary.";
    AWS_CONTAINER_PATH = Aws, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", None, "unset", "a path",
        "Path on the container credentials endpoint.";
    AWS_CONTAINER_URL = Aws, "AWS_CONTAINER_CREDENTIALS_FULL_URI", None, "unset", "an address",
        "Address of that endpoint, when no path is given.";
    AWS_CONTAINER_TOKEN = Aws, "AWS_CONTAINER_AUTHORIZATION_TOKEN", None, "unset", "a token",
        "What that endpoint is sent as authorization.";
    AWS_CONTAINER_TOKEN_FILE = Aws, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", None, "unset", "a file",
        "A file that has it.";
    AWS_METADATA = Aws, "AWS_EC2_METADATA_SERVICE_ENDPOINT", None, "http://169.254.169.254", "an address",
        "Address of the instance metadata service.";
}

/// The text of `docs/SETTINGS.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Settings\n\n\
         Generated from `src/config/settings.rs`; `SAGEMAKER_TFS_UPDATE_DOCS=1 cargo test settings` writes it anew.\n\n\
         Settings are environment variables, read once at the start. An empty value counts as unset. Some have a\n\
         command-line option of `sagemaker-tfs serve`, which wins over the variable. A wrong value stops the start\n\
         with exit code 2; all wrong values are listed at once, one line each.\n",
    );
    for group in Group::ALL {
        text += &format!(
            "\n## {}\n\n| variable | default | accepts | meaning |\n|---|---|---|---|\n",
            group.title()
        );
        for setting in ALL.iter().filter(|s| s.group == group) {
            let flag = match setting.flag {
                Some(flag) => format!(" or `--{flag}`"),
                None => String::new(),
            };
            text += &format!(
                "| `{}`{flag} | {} | {} | {} |\n",
                setting.name, setting.default, setting.accepts, setting.doc
            );
        }
    }
    text += "\n## Read by handlers\n\n\
        Set for handlers: `TFS_GRPC_PORTS` and `TFS_REST_PORTS` (comma lists, one port an\n\
        instance) and `TFS_DEFAULT_MODEL_NAME`.\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_document_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/SETTINGS.md");
        if std::env::var_os("SAGEMAKER_TFS_UPDATE_DOCS").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        let on_disk = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            on_disk == markdown(),
            "docs/SETTINGS.md is out of date; run: SAGEMAKER_TFS_UPDATE_DOCS=1 cargo test settings"
        );
    }

    #[test]
    fn names_and_flags_are_unique() {
        let mut names: Vec<_> = ALL.iter().map(|s| s.name).collect();
        names.extend(ALL.iter().filter_map(|s| s.flag));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
