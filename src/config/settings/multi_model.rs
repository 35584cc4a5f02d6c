//! Settings of multi-model endpoints. The ports and the number of instances of each model are settings of TensorFlow
//! Serving.

use super::aws::AwsConfig;
use super::format::{BOOL, Format, text};
use super::reader::Reader;
use super::{Group, TypedSetting, setting};

settings! {
    "Multi-model endpoints":

    /// Whether multi-model mode is on, in which clients load and unload models while the server runs. See
    /// MULTI_MODEL.md.
    MULTI_MODEL: bool = setting("SAGEMAKER_MULTI_MODEL", BOOL).default("false");

    /// S3 bucket with a handler for models that have no handler of their own. The server downloads it when it starts.
    UNIVERSAL_BUCKET: String = setting("SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET", text("the name of an S3 bucket"));

    /// Key prefix of that handler. The part of a key after the prefix is the path in the handler's folder.
    UNIVERSAL_PREFIX: String = setting("SAGEMAKER_MULTI_MODEL_UNIVERSAL_PREFIX", KEY_PREFIX);
}

/// Settings of multi-model mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultiModelConfig {
    /// Lowest and highest port for models.
    pub ports: (u16, u16),
    /// Number of TensorFlow Serving processes per model.
    pub instances: u32,
    /// S3 bucket and key prefix of the handler for all models.
    pub universal_handler: Option<(String, String)>,
    /// How to reach S3.
    pub aws: AwsConfig,
}

impl MultiModelConfig {
    /// Reads the settings; `None` when the mode is off. `ports` is the range for models, which has a default in this
    /// mode.
    pub(in crate::config) fn read(
        r: &mut Reader,
        ports: Option<(u16, u16)>,
        instances: u32,
    ) -> Option<Self> {
        let bucket = r.optional(&UNIVERSAL_BUCKET);
        let prefix = r.optional(&UNIVERSAL_PREFIX);
        if bucket.is_none() {
            r.refuse(&UNIVERSAL_PREFIX);
        }
        let aws = AwsConfig::read(r);
        let ports = ports.filter(|_| r.circumstances.multi_model)?;
        Some(Self {
            ports,
            instances,
            universal_handler: bucket.map(|bucket| (bucket, prefix.unwrap_or_default())),
            aws,
        })
    }
}

/// Any text, which may be empty.
const KEY_PREFIX: Format<String> = Format {
    accepts: "a key prefix, with SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET set",
    parse: |text| Some(text.to_owned()),
};

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::testing::{assert_refuses, read};

    const ON: (&str, &str) = ("SAGEMAKER_MULTI_MODEL", "true");

    #[test]
    fn mode_is_off_by_default() {
        assert_eq!(read(&[]).unwrap().multi_model, None);
        let off = read(&[("SAGEMAKER_MULTI_MODEL", "FALSE")]);
        assert_eq!(off.unwrap().multi_model, None);
    }

    #[test]
    fn mode_changes_defaults() {
        for value in ["true", "True", "TRUE"] {
            let config = read(&[(ON.0, value)]).unwrap();
            assert_eq!(config.wait_time, Duration::from_secs(55));
            assert_eq!(config.model_dir.to_str(), Some("/opt/ml/models"));
            assert!(config.instance_ports.is_empty());
            let multi_model = config.multi_model.unwrap();
            assert_eq!(multi_model.ports, (9000, 9999));
            assert_eq!(multi_model.instances, 1);
            assert_eq!(multi_model.universal_handler, None);
        }
    }

    #[test]
    fn refuses_wrong_values() {
        assert_refuses(&MULTI_MODEL, &["yes", "1"]);
        assert_refuses(&UNIVERSAL_BUCKET, &[" "]);
        assert_refuses(&UNIVERSAL_PREFIX, &["without/bucket"]);
    }

    #[test]
    fn handler_for_all_models_needs_a_bucket_but_no_prefix() {
        let bucket = ("SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET", "b");
        let prefix = ("SAGEMAKER_MULTI_MODEL_UNIVERSAL_PREFIX", "p/");
        for (pairs, expected) in [(&[ON, bucket][..], ""), (&[ON, bucket, prefix], "p/")] {
            let multi_model = read(pairs).unwrap().multi_model.unwrap();
            let universal = multi_model.universal_handler.unwrap();
            assert_eq!(universal, ("b".to_owned(), expected.to_owned()));
        }
    }
}
