//! Settings of TensorFlow Serving: its program, its instances and their ports, threads and GPUs.

use std::path::PathBuf;
use std::time::Duration;

use super::format::{self, Format, NOT_NEGATIVE, POSITIVE, SECONDS, UP_TO_1000, text};
use super::{Group, TypedSetting, setting};

settings! {
    "TensorFlow Serving":

    /// TensorFlow Serving program to start.
    MODEL_SERVER: PathBuf = setting("SAGEMAKER_TFS_MODEL_SERVER", text("a program on PATH, or a path to one"))
        .flag("model-server").default("tensorflow_model_server");

    /// Version of TensorFlow Serving. It decides which flags SAGEMAKER_TFS_EXTRA_ARGS may have, and whether the server
    /// makes TensorFlow Serving look for models only once (from 1.14 on). The images set it.
    TFS_VERSION: String = setting("SAGEMAKER_TFS_VERSION", text("a version, such as 2.19"))
        .unset_means("unknown; for messages, what the program prints with `--version`");

    /// Model for requests that name no model. It has no effect in multi-model mode, where each request names its model.
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

    /// Number of OpenMP threads; passed on to TensorFlow Serving and to handlers.
    OMP_THREADS: String = setting("OMP_NUM_THREADS", NUMBERS).default("1");
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
        assert_eq!(config.parallelism.inter_op, None);
        assert_eq!(config.parallelism.intra_op, None);
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
}
