//! `/execution-parameters`: what SageMaker's batch transform asks before it sends a job's requests.
//!
//! The platform accepts a job only if its concurrency times its payload is at most 100 MB, so the default of one depends
//! on the other. Values that the job sets are reported as they are: it is the job's decision.

use crate::config::Config;

/// The default concurrency: enough to keep a model server busy.
const CONCURRENCY: u32 = 8;
/// The default payload, MB: SageMaker's own.
const PAYLOAD_MB: u32 = 6;
/// The most that the platform allows for the product of both, MB.
const MOST_MB: u32 = 100;

/// The body of the response. Warns if the values that the job sets are more than the platform allows.
pub fn of(config: &Config) -> Vec<u8> {
    let (concurrency, payload) = choose(config.max_concurrent_transforms, config.max_payload_mb);
    if u64::from(concurrency) * u64::from(payload) > u64::from(MOST_MB) {
        log::warn!(
            "{concurrency} concurrent transforms (SAGEMAKER_MAX_CONCURRENT_TRANSFORMS) of {payload} MB \
             (SAGEMAKER_MAX_PAYLOAD_IN_MB) are more than the {MOST_MB} MB that SageMaker allows"
        );
    }
    format!("{{\"MaxConcurrentTransforms\": {concurrency}, \"MaxPayloadInMB\": {payload}}}")
        .into_bytes()
}

/// Concurrency and payload, of which the job may set either. A payload of 0 means that it has no limit.
fn choose(concurrency: Option<u32>, payload: Option<u32>) -> (u32, u32) {
    let share = |other: u32| MOST_MB.checked_div(other).unwrap_or(MOST_MB).max(1);
    match (concurrency, payload) {
        (Some(concurrency), Some(payload)) => (concurrency, payload),
        (Some(concurrency), None) => (concurrency, PAYLOAD_MB.min(share(concurrency))),
        (None, Some(payload)) => (CONCURRENCY.min(share(payload)), payload),
        (None, None) => (CONCURRENCY, PAYLOAD_MB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_of_one_follows_the_other() {
        for (concurrency, payload, expected) in [
            (None, None, (8, 6)),
            (None, Some(1), (8, 1)),
            (None, Some(12), (8, 12)),
            (None, Some(13), (7, 13)),
            (None, Some(50), (2, 50)),
            (None, Some(51), (1, 51)),
            (None, Some(100), (1, 100)),
            (None, Some(u32::MAX), (1, u32::MAX)),
            (None, Some(0), (8, 0)),
            (Some(1), None, (1, 6)),
            (Some(16), None, (16, 6)),
            (Some(17), None, (17, 5)),
            (Some(100), None, (100, 1)),
            (Some(10_000), None, (10_000, 1)),
            (Some(100), Some(25), (100, 25)),
            (Some(100), Some(0), (100, 0)),
        ] {
            assert_eq!(
                choose(concurrency, payload),
                expected,
                "{concurrency:?} {payload:?}"
            );
        }
    }
}
