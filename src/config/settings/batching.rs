//! Settings of batching in TensorFlow Serving, which become its file of `BatchingParameters`.
//!
//! The rules between them are those that TensorFlow Serving checks when it loads a model: `batching_session.cc`,
//! `bundle_factory_util.cc` of its sources, and TensorFlow's `shared_batch_scheduler.h`.

use super::format::{BOOL, Format, NOT_NEGATIVE, POSITIVE};
use super::reader::Reader;
use super::{Group, Setting, TypedSetting, setting};

settings! {
    "Batching in TensorFlow Serving":

    /// Whether TensorFlow Serving merges concurrent requests into batches.
    BATCHING: bool = setting("SAGEMAKER_TFS_ENABLE_BATCHING", BOOL).default("false");

    /// Batching parameter `max_batch_size`: maximum number of rows in a batch, and in a request.
    MAX_BATCH_SIZE: u32 = setting("SAGEMAKER_TFS_MAX_BATCH_SIZE", POSITIVE).default("8");

    /// Batching parameter `batch_timeout_micros`: maximum wait for a batch to fill, in microseconds.
    BATCH_TIMEOUT: u32 = setting("SAGEMAKER_TFS_BATCH_TIMEOUT_MICROS", NOT_NEGATIVE).default("1000");

    /// Batching parameter `num_batch_threads`: number of batches processed at once.
    BATCH_THREADS: u32 = setting("SAGEMAKER_TFS_NUM_BATCH_THREADS", POSITIVE).default_cpus(u32::MAX);

    /// Batching parameter `max_enqueued_batches`: maximum number of waiting batches.
    // A batch transform job does not retry a refused request, so its queue is practically unlimited.
    MAX_ENQUEUED: u32 = setting("SAGEMAKER_TFS_MAX_ENQUEUED_BATCHES", POSITIVE)
        .default_cpus(u32::MAX).in_batch_transform("100000000");

    /// Batching parameter `allowed_batch_sizes`: batches are filled up with copies of a row to the next of these sizes,
    /// so that the model sees few different ones. The last one must be SAGEMAKER_TFS_MAX_BATCH_SIZE.
    ALLOWED_SIZES: Vec<u32> = setting("SAGEMAKER_TFS_ALLOWED_BATCH_SIZES", SIZES)
        .unset_means("batches of any size");

    /// Batching parameter `pad_variable_length_inputs`: whether rows of different shapes may share a batch, where shorter
    /// ones are filled up with copies of their first element.
    PAD_INPUTS: bool = setting("SAGEMAKER_TFS_PAD_VARIABLE_LENGTH_INPUTS", BOOL).default("false");

    /// Batching parameter `enable_large_batch_splitting`: whether the rows of one request may be divided among batches.
    SPLITTING: bool = setting("SAGEMAKER_TFS_ENABLE_LARGE_BATCH_SPLITTING", BOOL).default("false");

    /// Batching parameter `max_execution_batch_size`: maximum number of rows in a batch, with
    /// SAGEMAKER_TFS_ENABLE_LARGE_BATCH_SPLITTING. SAGEMAKER_TFS_MAX_BATCH_SIZE is then the maximum of a request only.
    MAX_EXECUTION: u32 = setting("SAGEMAKER_TFS_MAX_EXECUTION_BATCH_SIZE", POSITIVE)
        .unset_means("SAGEMAKER_TFS_MAX_BATCH_SIZE");

    /// Passed on as `--enable_per_model_batching_parameters`, which TensorFlow Serving has from 2.11 on: whether a
    /// version of a model is batched by the file `batching_params.pbtxt` beside its `saved_model.pb`, and not at all
    /// without that file. Only the number of batch threads still comes from these settings.
    PER_MODEL_BATCHING: bool = setting("SAGEMAKER_TFS_ENABLE_PER_MODEL_BATCHING", BOOL).default("false");
}

/// TensorFlow Serving's batching parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batching {
    /// Maximum number of rows in a batch, and in a request.
    pub max_batch_size: u32,
    /// Maximum wait for a batch to fill, microseconds.
    pub batch_timeout_micros: u32,
    /// Number of batches processed at once.
    pub num_batch_threads: u32,
    /// Maximum number of waiting batches; TensorFlow Serving refuses more.
    pub max_enqueued_batches: u32,
    /// The sizes that batches are filled up to, ascending; empty: any size.
    pub allowed_batch_sizes: Vec<u32>,
    /// Whether rows of different shapes may share a batch.
    pub pad_variable_length_inputs: bool,
    /// Whether the rows of a request may be divided among batches, of at most this many rows if there is a number.
    pub splitting: Option<Option<u32>>,
    /// Whether versions of models have files of their own.
    pub per_model: bool,
}

impl Batching {
    /// Reads and checks all batching settings; `None` when batching is off. Also returns the names of the settings that
    /// are given but have no effect.
    pub(in crate::config) fn read(r: &mut Reader) -> (Option<Self>, Vec<&'static str>) {
        let is_on = r.value(&BATCHING);
        let max_execution = r.optional(&MAX_EXECUTION);
        let batching = Self {
            max_batch_size: r.value(&MAX_BATCH_SIZE),
            batch_timeout_micros: r.value(&BATCH_TIMEOUT),
            num_batch_threads: r.value(&BATCH_THREADS),
            max_enqueued_batches: r.value(&MAX_ENQUEUED),
            allowed_batch_sizes: r.optional(&ALLOWED_SIZES).unwrap_or_default(),
            pad_variable_length_inputs: r.value(&PAD_INPUTS),
            splitting: r.value(&SPLITTING).then_some(max_execution),
            per_model: r.value(&PER_MODEL_BATCHING),
        };
        if is_on {
            batching.check(r);
            return (Some(batching), Vec::new());
        }
        let others = GROUP
            .settings
            .iter()
            .filter(|setting| setting.name != BATCHING.name);
        let given = others.filter(|setting| r.is_given(setting));
        (None, given.map(|setting| setting.name).collect())
    }

    fn check(&self, r: &mut Reader) {
        let (most, max) = (self.max_batch_size, MAX_BATCH_SIZE.name);
        let last = self.allowed_batch_sizes.last();
        if let Some(&last) = last.filter(|&&last| last != most) {
            let name = ALLOWED_SIZES.name;
            r.note(format!(
                "{name} ends with {last}, but must end with {max}, which is {most}"
            ));
        }
        let name = MAX_EXECUTION.name;
        match self.splitting {
            None if r.is_given(&MAX_EXECUTION) => {
                let needed: &Setting = &SPLITTING;
                r.note(format!("{name} has no effect without {}=true", needed.name));
            }
            Some(Some(rows)) if rows > most => {
                r.note(format!(
                    "{name} is {rows}, more than {max}, which is {most}"
                ));
            }
            _ => {}
        }
    }
}

const SIZES: Format<Vec<u32>> = Format {
    accepts: "ascending whole numbers from 1 to 2147483647, separated by commas",
    parse: |text| {
        let sizes = text.split(',').map(|size| (POSITIVE.parse)(size.trim()));
        let sizes = sizes.collect::<Option<Vec<_>>>()?;
        sizes.is_sorted_by(|a, b| a < b).then_some(sizes)
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{assert_refuses, read};

    const ON: (&str, &str) = ("SAGEMAKER_TFS_ENABLE_BATCHING", "TRUE");

    #[test]
    fn refuses_wrong_values() {
        assert_refuses(&BATCHING, &["1", "yes"]);
        assert_refuses(&MAX_BATCH_SIZE, &["0"]);
        assert_refuses(&BATCH_TIMEOUT, &["-5", "1.5"]);
        assert_refuses(&BATCH_THREADS, &["+4", "0"]);
        assert_refuses(&MAX_ENQUEUED, &["99999999999", "0"]);
        assert_refuses(&ALLOWED_SIZES, &["0,8", "4,", "8,4", "4,4,8", "4 8"]);
        assert_refuses(&PAD_INPUTS, &["yes"]);
        assert_refuses(&SPLITTING, &["1"]);
        assert_refuses(&MAX_EXECUTION, &["0", "-1"]);
        assert_refuses(&PER_MODEL_BATCHING, &["on"]);
    }

    #[test]
    fn reads_defaults_and_values() {
        let defaults = Batching {
            max_batch_size: 8,
            batch_timeout_micros: 1000,
            num_batch_threads: 4,
            max_enqueued_batches: 4,
            allowed_batch_sizes: Vec::new(),
            pad_variable_length_inputs: false,
            splitting: None,
            per_model: false,
        };
        assert_eq!(read(&[ON]).unwrap().batching.unwrap(), defaults);
        let all = read(&[
            ON,
            ("SAGEMAKER_TFS_MAX_BATCH_SIZE", "64"),
            ("SAGEMAKER_TFS_BATCH_TIMEOUT_MICROS", "0"),
            ("SAGEMAKER_TFS_NUM_BATCH_THREADS", "2"),
            ("SAGEMAKER_TFS_MAX_ENQUEUED_BATCHES", "3"),
            ("SAGEMAKER_TFS_ALLOWED_BATCH_SIZES", "1, 8,64"),
            ("SAGEMAKER_TFS_PAD_VARIABLE_LENGTH_INPUTS", "true"),
            ("SAGEMAKER_TFS_ENABLE_LARGE_BATCH_SPLITTING", "true"),
            ("SAGEMAKER_TFS_MAX_EXECUTION_BATCH_SIZE", "8"),
            ("SAGEMAKER_TFS_ENABLE_PER_MODEL_BATCHING", "true"),
        ]);
        assert_eq!(
            all.unwrap().batching.unwrap(),
            Batching {
                max_batch_size: 64,
                batch_timeout_micros: 0,
                num_batch_threads: 2,
                max_enqueued_batches: 3,
                allowed_batch_sizes: vec![1, 8, 64],
                pad_variable_length_inputs: true,
                splitting: Some(Some(8)),
                per_model: true,
            }
        );
        let split = read(&[ON, ("SAGEMAKER_TFS_ENABLE_LARGE_BATCH_SPLITTING", "true")]);
        assert_eq!(split.unwrap().batching.unwrap().splitting, Some(None));
    }

    #[test]
    fn refuses_what_tensorflow_serving_would_refuse_or_ignore() {
        let sizes = "SAGEMAKER_TFS_ALLOWED_BATCH_SIZES";
        let most = "SAGEMAKER_TFS_MAX_EXECUTION_BATCH_SIZE";
        let split = ("SAGEMAKER_TFS_ENABLE_LARGE_BATCH_SPLITTING", "true");
        for (vars, expected) in [
            (
                vec![(sizes, "1,4")],
                "SAGEMAKER_TFS_ALLOWED_BATCH_SIZES ends with 4, but must end with SAGEMAKER_TFS_MAX_BATCH_SIZE, which is 8",
            ),
            (
                vec![(most, "4")],
                "SAGEMAKER_TFS_MAX_EXECUTION_BATCH_SIZE has no effect without \
                 SAGEMAKER_TFS_ENABLE_LARGE_BATCH_SPLITTING=true",
            ),
            (
                vec![split, (most, "9")],
                "SAGEMAKER_TFS_MAX_EXECUTION_BATCH_SIZE is 9, more than SAGEMAKER_TFS_MAX_BATCH_SIZE, which is 8",
            ),
        ] {
            let vars = [vec![ON], vars].concat();
            assert_eq!(read(&vars).unwrap_err(), [expected]);
        }
    }

    #[test]
    fn without_batching_its_settings_are_listed_as_without_effect() {
        let given = [
            ("SAGEMAKER_TFS_MAX_BATCH_SIZE", "64"),
            ("SAGEMAKER_TFS_ALLOWED_BATCH_SIZES", "4"),
        ];
        let config = read(&given).unwrap();
        assert_eq!(config.batching, None);
        assert_eq!(config.without_effect, given.map(|(name, _)| name));
        assert!(read(&[ON]).unwrap().without_effect.is_empty());
    }
}
