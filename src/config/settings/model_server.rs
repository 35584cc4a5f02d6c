//! Settings of TensorFlow Serving: its program, its instances and their ports, and the values passed on to it.

use std::path::PathBuf;
use std::time::Duration;

use super::format::{self, BOOL, Format, NOT_NEGATIVE, POSITIVE, SECONDS, UP_TO_1000, text};
use super::reader::Reader;
use super::{Group, TypedSetting, setting};

settings! {
    "TensorFlow Serving":

    /// TensorFlow Serving program to start.
    MODEL_SERVER: PathBuf = setting("SAGEMAKER_TFS_MODEL_SERVER", text("a program on PATH, or a path to one"))
        .flag("model-server").default("tensorflow_model_server");

    /// Version of TensorFlow Serving, for messages about flags that this version does not know. The images set it.
    TFS_VERSION: String = setting("SAGEMAKER_TFS_VERSION", text("a version, such as 2.19"))
        .unset_means("version that the program prints with `--version`");

    /// Model for requests that name no model.
    DEFAULT_MODEL_NAME: String = setting("SAGEMAKER_TFS_DEFAULT_MODEL_NAME", MODEL_NAME)
        .unset_means("first model found, by name");

    /// Ports for TensorFlow Serving: instance i takes LOW+2i (gRPC) and LOW+2i+1 (REST); without a range, 9000+i and
    /// 8501+i. In multi-model mode the range is for the instances of all models.
    PORT_RANGE: (u16, u16) = setting("SAGEMAKER_SAFE_PORT_RANGE", RANGE).in_multi_model("9000-9999");

    /// Number of TensorFlow Serving processes; in multi-model mode, for each model.
    INSTANCE_COUNT: u32 = setting("SAGEMAKER_TFS_INSTANCE_COUNT", UP_TO_1000).default("1");

    /// Time limit for a model to become AVAILABLE.
    WAIT_TIME: Duration = setting("SAGEMAKER_TFS_WAIT_TIME_SECONDS", SECONDS).default("300").in_multi_model("55");

    /// Passed on as `--tensorflow_inter_op_parallelism`.
    INTER_OP: u32 = setting("SAGEMAKER_TFS_INTER_OP_PARALLELISM", NOT_NEGATIVE);

    /// Passed on as `--tensorflow_intra_op_parallelism`.
    INTRA_OP: u32 = setting("SAGEMAKER_TFS_INTRA_OP_PARALLELISM", NOT_NEGATIVE);

    /// Share of each GPU's memory that stays free when several instances run on a machine with GPUs. The instances on a
    /// GPU divide the rest among them.
    GPU_MARGIN: f64 = setting("SAGEMAKER_TFS_FRACTIONAL_GPU_MEM_MARGIN", FRACTION).default("0.2");

    /// Whether TensorFlow Serving merges concurrent requests into batches.
    BATCHING: bool = setting("SAGEMAKER_TFS_ENABLE_BATCHING", BOOL).default("false");

    /// Batching parameter `max_batch_size`: maximum number of requests in a batch.
    MAX_BATCH_SIZE: u32 = setting("SAGEMAKER_TFS_MAX_BATCH_SIZE", POSITIVE).default("8");

    /// Batching parameter `batch_timeout_micros`: maximum wait for a batch to fill, in microseconds.
    BATCH_TIMEOUT: u32 = setting("SAGEMAKER_TFS_BATCH_TIMEOUT_MICROS", NOT_NEGATIVE).default("1000");

    /// Batching parameter `num_batch_threads`: number of batches processed at once.
    BATCH_THREADS: u32 = setting("SAGEMAKER_TFS_NUM_BATCH_THREADS", POSITIVE).default_cpus(u32::MAX);

    /// Batching parameter `max_enqueued_batches`: maximum number of waiting batches.
    // A batch transform job does not retry a refused request, so its queue is practically unlimited.
    MAX_ENQUEUED: u32 = setting("SAGEMAKER_TFS_MAX_ENQUEUED_BATCHES", POSITIVE)
        .default_cpus(u32::MAX).in_batch_transform("100000000");

    /// Number of OpenMP threads; passed on to TensorFlow Serving and to handlers.
    OMP_THREADS: String = setting("OMP_NUM_THREADS", NUMBERS).default("1");
}

/// TensorFlow Serving's batching parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batching {
    /// Maximum number of requests in a batch.
    pub max_batch_size: u32,
    /// Maximum wait for a batch to fill, microseconds.
    pub batch_timeout_micros: u32,
    /// Number of batches processed at once.
    pub num_batch_threads: u32,
    /// Maximum number of waiting batches; TensorFlow Serving refuses more.
    pub max_enqueued_batches: u32,
}

impl Batching {
    /// Reads and checks all batching settings; `None` when batching is off.
    pub(in crate::config) fn read(r: &mut Reader) -> Option<Self> {
        let is_on = r.value(&BATCHING);
        let batching = Self {
            max_batch_size: r.value(&MAX_BATCH_SIZE),
            batch_timeout_micros: r.value(&BATCH_TIMEOUT),
            num_batch_threads: r.value(&BATCH_THREADS),
            max_enqueued_batches: r.value(&MAX_ENQUEUED),
        };
        is_on.then_some(batching)
    }
}

const MODEL_NAME: Format<String> = Format {
    accepts: "the name of a model in the model directory",
    parse: |text| (!text.contains('/')).then(|| text.to_owned()),
};

const RANGE: Format<(u16, u16)> = Format {
    accepts: "LOW-HIGH, a range of ports with two ports for each instance",
    parse: |text| {
        let (low, high) = text.split_once('-')?;
        let port = |text: &str| (format::PORT.parse)(text.trim());
        let (low, high) = (port(low)?, port(high)?);
        (low <= high).then_some((low, high))
    },
};

const FRACTION: Format<f64> = Format {
    accepts: "a number from 0 up to, not including, 1",
    parse: |text| text.parse().ok().filter(|n| (0.0..1.0).contains(n)),
};

/// OpenMP accepts one number for each level of nested parallel regions (OpenMP 5.0, section 6.2).
const NUMBERS: Format<String> = Format {
    accepts: "whole numbers from 1 to 2147483647, separated by commas",
    parse: |text| {
        text.split(',')
            .all(|number| (POSITIVE.parse)(number).is_some())
            .then(|| text.to_owned())
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{assert_refuses, read};

    #[test]
    fn reads_defaults() {
        let config = read(&[]).unwrap();
        assert_eq!(
            config.model_server,
            PathBuf::from("tensorflow_model_server")
        );
        assert_eq!(config.tfs_version, None);
        assert_eq!(config.default_model_name, None);
        assert_eq!(config.instance_ports.len(), 1);
        assert_eq!(config.wait_time, Duration::from_secs(300));
        assert_eq!(config.inter_op_parallelism, None);
        assert_eq!(config.intra_op_parallelism, None);
        assert_eq!(config.gpu_memory_margin, 0.2);
        assert_eq!(config.batching, None);
        assert_eq!(config.omp_num_threads, "1");
    }

    #[test]
    fn refuses_wrong_values() {
        assert_refuses(&MODEL_SERVER, &[" "]);
        assert_refuses(&TFS_VERSION, &[" "]);
        assert_refuses(&DEFAULT_MODEL_NAME, &["a/b"]);
        assert_refuses(
            &PORT_RANGE,
            &[
                "9000",
                "9999-9000",
                "1-70000",
                "0-10",
                "9000-+9001",
                "9000-9001-9002",
            ],
        );
        assert_refuses(&INSTANCE_COUNT, &["0", "1001"]);
        assert_refuses(&WAIT_TIME, &["-1", "5m"]);
        assert_refuses(&INTER_OP, &["two", "-1"]);
        assert_refuses(&INTRA_OP, &["1.5", "2147483648"]);
        assert_refuses(&GPU_MARGIN, &["1", "-0.1", "nan", "20%"]);
        assert_refuses(&BATCHING, &["1", "yes"]);
        assert_refuses(&MAX_BATCH_SIZE, &["0"]);
        assert_refuses(&BATCH_TIMEOUT, &["-5", "1.5"]);
        assert_refuses(&BATCH_THREADS, &["+4", "0"]);
        assert_refuses(&MAX_ENQUEUED, &["99999999999", "0"]);
        assert_refuses(&OMP_THREADS, &["0", "4,", "4, 2"]);
    }

    #[test]
    fn parses_ranges_fractions_lists_and_names() {
        assert_eq!(PORT_RANGE.parse("9000 - 9001"), Some((9000, 9001)));
        assert_eq!(PORT_RANGE.parse("9000-9000"), Some((9000, 9000)));
        assert_eq!(GPU_MARGIN.parse("0"), Some(0.0));
        assert_eq!(OMP_THREADS.parse("4,2").as_deref(), Some("4,2"));
        assert_eq!(DEFAULT_MODEL_NAME.parse("a.b").as_deref(), Some("a.b"));
    }

    #[test]
    fn reads_batching_defaults_and_values() {
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
}
