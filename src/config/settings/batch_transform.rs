//! Settings with which SageMaker describes a batch transform job.

use super::format::{BOOL, Format, NOT_NEGATIVE, whole};
use super::{Group, TypedSetting, setting};

settings! {
    "Batch transform (set by SageMaker)":

    /// Whether this is a batch transform job, which has longer deadlines and queues.
    BATCH: bool = setting("SAGEMAKER_BATCH", BOOL).default("false");

    /// Concurrent requests of a batch transform job. A value above 512, the usual number of requests at work at once
    /// (64 with threads), raises that number. `/execution-parameters` reports the value; when it is unset, 8, or fewer
    /// if the payload is set, so that both together are at most 100 MB, the most that SageMaker allows.
    MAX_CONCURRENT: u32 = setting(
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", whole!("a whole number", 0..=10000, "; 0 counts as unset"));

    /// Largest payload of a batch transform job, in MB; 0 means no limit. `/execution-parameters` reports the value;
    /// when it is unset, 6, or less if the number of concurrent requests is set.
    MAX_PAYLOAD: u32 = setting("SAGEMAKER_MAX_PAYLOAD_IN_MB", NOT_NEGATIVE);

    /// How the job distributes records among requests. The server checks the value, but treats both strategies alike.
    STRATEGY: () = setting("SAGEMAKER_BATCH_STRATEGY", STRATEGY_NAME);
}

/// SageMaker's documents spell the strategies in several ways.
const STRATEGY_NAME: Format<()> = Format {
    accepts: "MULTI_RECORD or SINGLE_RECORD",
    parse: |text| {
        let name = text.to_ascii_uppercase().replace('_', "");
        matches!(name.as_str(), "MULTIRECORD" | "SINGLERECORD").then_some(())
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{assert_accepts_words, assert_refuses, read};

    #[test]
    fn reads_defaults() {
        let config = read(&[]).unwrap();
        assert!(!config.batch_transform);
        assert_eq!(config.max_concurrent_transforms, None);
        assert_eq!(config.max_payload_mb, None);
    }

    #[test]
    fn refuses_wrong_values() {
        assert_refuses(&BATCH, &["on"]);
        assert_refuses(&MAX_CONCURRENT, &["many", "10001", "-1"]);
        assert_refuses(&MAX_PAYLOAD, &["6MB", "-1"]);
        assert_refuses(&STRATEGY, &["ALL"]);
    }

    #[test]
    fn accepts_strategies_in_any_spelling() {
        assert_accepts_words(&STRATEGY);
        assert_eq!(STRATEGY.parse("MultiRecord"), Some(()));
    }

    #[test]
    fn zero_concurrent_transforms_counts_as_unset() {
        let read = |value| read(&[("SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", value)]).unwrap();
        assert_eq!(read("0").max_concurrent_transforms, None);
        assert_eq!(read("100").max_concurrent_transforms, Some(100));
    }
}
