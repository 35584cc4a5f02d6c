//! Settings for tuning TensorFlow Serving: warm-up, parallelism, labels of versions, and any other flag.

use std::path::PathBuf;

use super::format::{BOOL, Format, NOT_NEGATIVE, POSITIVE};
use super::{Group, TypedSetting, setting};
use crate::config::model_name::is_model_name;

settings! {
    "Warm-up, labels and other flags of TensorFlow Serving":

    /// Files with bodies that the server sends to `/invocations` of its own port, handler included, before `/ping`
    /// answers 200: paths in the model directory, or absolute ones. Their endings say of which type they are. If one is
    /// not answered with 200, the server exits. An attempt has the usual deadline of a request; after 503 or 504 there is
    /// another one, until SAGEMAKER_TFS_WAIT_TIME_SECONDS have passed since the models became AVAILABLE. Not in
    /// multi-model mode.
    WARMUP_REQUEST: Vec<PathBuf> = setting("SAGEMAKER_TFS_WARMUP_REQUEST", FILES);

    /// Passed on as `--num_request_iterations_for_warmup`, which TensorFlow Serving has from 2.8 on: how often it sends
    /// each request of a model's warm-up file.
    WARMUP_ITERATIONS: u32 = setting("SAGEMAKER_TFS_WARMUP_ITERATIONS", POSITIVE).unset_means("once");

    /// Passed on as `--tensorflow_session_parallelism`: number of threads for both of the kinds that
    /// SAGEMAKER_TFS_INTER_OP_PARALLELISM and SAGEMAKER_TFS_INTRA_OP_PARALLELISM set one by one; not together with them.
    SESSION_PARALLELISM: u32 = setting("SAGEMAKER_TFS_SESSION_PARALLELISM", NOT_NEGATIVE);

    /// Passed on as `--xla_cpu_compilation_enabled`, which TensorFlow Serving has from 2.5.1 on: whether models are
    /// compiled for the CPU with XLA.
    XLA_CPU: bool = setting("SAGEMAKER_TFS_ENABLE_XLA_CPU", BOOL).default("false");

    /// Names for versions of the default model, or of MODEL, for requests to
    /// `/tfs/v1/models/MODEL/labels/LABEL:predict`. TensorFlow Serving needs to be 1.15 or newer. Not in multi-model mode.
    VERSION_LABELS: Vec<VersionLabel> = setting("SAGEMAKER_TFS_VERSION_LABELS", LABELS);

    /// More flags for TensorFlow Serving, for all its processes. Flags that the server sets itself, and flags that
    /// TensorFlow Serving or the version in SAGEMAKER_TFS_VERSION does not have, are refused.
    EXTRA_ARGS: Vec<String> = setting("SAGEMAKER_TFS_EXTRA_ARGS", WORDS);
}

/// A name for a version of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionLabel {
    /// The model; `None`: the default model.
    pub model: Option<String>,
    /// The name.
    pub label: String,
    /// The version.
    pub version: u64,
}

const FILES: Format<Vec<PathBuf>> = Format {
    accepts: "paths of files, separated by commas",
    parse: |text| {
        let paths = text.split(',').map(str::trim);
        paths
            .map(|path| (!path.is_empty()).then(|| path.into()))
            .collect()
    },
};

const LABELS: Format<Vec<VersionLabel>> = Format {
    accepts: "LABEL=VERSION or MODEL:LABEL=VERSION, separated by commas, each label of a model once",
    parse: |text| {
        let labels = text.split(',').map(|label| parse_label(label.trim()));
        let labels = labels.collect::<Option<Vec<_>>>()?;
        let mut names: Vec<_> = labels.iter().map(|l| (&l.model, &l.label)).collect();
        names.sort_unstable();
        names
            .windows(2)
            .all(|pair| pair[0] != pair[1])
            .then_some(labels)
    },
};

fn parse_label(text: &str) -> Option<VersionLabel> {
    let (name, version) = text.split_once('=')?;
    let (model, label) = match name.split_once(':') {
        Some((model, label)) => (Some(model.trim()), label.trim()),
        None => (None, name.trim()),
    };
    let version = version.trim();
    let is_number = version.bytes().all(|digit| digit.is_ascii_digit());
    // TensorFlow Serving holds versions in 63 bits.
    let version = version
        .parse()
        .ok()
        .filter(|&v: &u64| is_number && i64::try_from(v).is_ok())?;
    let names_are_good = is_model_name(label) && model.is_none_or(is_model_name);
    names_are_good.then(|| VersionLabel {
        model: model.map(str::to_owned),
        label: label.to_owned(),
        version,
    })
}

/// `config/extra_args.rs` checks the words.
const WORDS: Format<Vec<String>> = Format {
    accepts: "flags such as --flag=value, separated by spaces and quoted as in a shell",
    parse: |text| {
        // A `#` begins no comment here: what follows would be ignored in silence. A variable cannot hold the zero byte.
        let words = shlex::split(&text.replace('#', "\0"))?;
        Some(words.iter().map(|word| word.replace('\0', "#")).collect())
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{assert_refuses, read};

    #[test]
    fn refuses_wrong_values() {
        assert_refuses(&WARMUP_REQUEST, &[",", "a.json,", " "]);
        assert_refuses(&WARMUP_ITERATIONS, &["0", "two"]);
        assert_refuses(&SESSION_PARALLELISM, &["-1", "2147483648"]);
        assert_refuses(&XLA_CPU, &["1"]);
        assert_refuses(
            &VERSION_LABELS,
            &[
                "stable",
                "=1",
                "stable=",
                "stable=x",
                "stable=+1",
                "a b=1",
                "m:=1",
                ":a=1",
                "a=1,",
                "a=1,a=2",
                "m:a=1, m:a=1",
                "a/b=1",
                "a=9223372036854775808",
                "a:b:c=1",
            ],
        );
        assert_refuses(&EXTRA_ARGS, &["'", "--a=\"", "--a=\\"]);
    }

    #[test]
    fn reads_labels_and_files() {
        let label = |model: Option<&str>, label: &str, version| VersionLabel {
            model: model.map(str::to_owned),
            label: label.to_owned(),
            version,
        };
        assert_eq!(
            VERSION_LABELS.parse("stable=1, canary=002,m:stable = 9223372036854775807"),
            Some(vec![
                label(None, "stable", 1),
                label(None, "canary", 2),
                label(Some("m"), "stable", 9_223_372_036_854_775_807),
            ])
        );
        assert_eq!(
            WARMUP_REQUEST.parse("a.json, /b/c d.csv"),
            Some(vec!["a.json".into(), "/b/c d.csv".into()])
        );
    }

    #[test]
    fn refuses_settings_that_contradict_each_other() {
        let on = ("SAGEMAKER_MULTI_MODEL", "true");
        let session = ("SAGEMAKER_TFS_SESSION_PARALLELISM", "2");
        for (vars, expected) in [
            (
                [on, ("SAGEMAKER_TFS_WARMUP_REQUEST", "a.json")],
                "SAGEMAKER_TFS_WARMUP_REQUEST cannot be used in multi-model mode, where clients load models later; put warm-up files into the models instead",
            ),
            (
                [on, ("SAGEMAKER_TFS_VERSION_LABELS", "a=1")],
                "SAGEMAKER_TFS_VERSION_LABELS cannot be used in multi-model mode, where clients load models later",
            ),
            (
                [session, ("SAGEMAKER_TFS_INTER_OP_PARALLELISM", "1")],
                "SAGEMAKER_TFS_SESSION_PARALLELISM and SAGEMAKER_TFS_INTER_OP_PARALLELISM exclude each other",
            ),
            (
                [session, ("SAGEMAKER_TFS_INTRA_OP_PARALLELISM", "1")],
                "SAGEMAKER_TFS_SESSION_PARALLELISM and SAGEMAKER_TFS_INTRA_OP_PARALLELISM exclude each other",
            ),
        ] {
            assert_eq!(read(&vars).unwrap_err(), [expected]);
        }
    }
}
