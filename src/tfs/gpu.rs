//! Dividing GPUs among several TensorFlow Serving instances.
//!
//! One TensorFlow process takes nearly all memory of every GPU it sees. On machines with several GPUs each of several
//! instances sees only one of them, and the instances on one GPU share its memory.

use std::process::Command;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;

use crate::error::StartError;
use crate::supervisor::child::Streams;
use crate::supervisor::handle::SupervisorHandle;

/// What one instance gets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Placement {
    /// For `--per_process_gpu_memory_fraction`.
    pub memory_fraction: Option<f64>,
    /// For `CUDA_VISIBLE_DEVICES`.
    pub visible_device: Option<u32>,
}

/// With a broken driver `nvidia-smi` may never end.
const LIMIT: Duration = Duration::from_secs(10);

/// The number of GPUs, from `nvidia-smi -L`, which prints a line for each. 0 without that program.
///
/// # Errors
/// When nothing can be started; [`StartError::Stopped`] when the server stops meanwhile.
pub fn count(supervisor: &SupervisorHandle) -> Result<u32, StartError> {
    let mut command = Command::new("nvidia-smi");
    command.arg("-L");
    match supervisor.run_within(LIMIT, command, Streams::Answer) {
        Ok(Ok(text)) => {
            let gpus = text.lines().filter(|line| line.starts_with("GPU "));
            Ok(gpus.count().try_into().unwrap_or(u32::MAX))
        }
        Ok(Err(failure)) if failure.out_of_resources => Err(StartError::failed(format!(
            "the number of GPUs cannot be found out: nvidia-smi: {}",
            failure.text
        ))),
        Ok(Err(failure)) => {
            log::debug!("nvidia-smi: {}", failure.text);
            Ok(0)
        }
        Err(RecvTimeoutError::Timeout) => {
            log::warn!("nvidia-smi does not end: serving as without GPUs");
            Ok(0)
        }
        Err(RecvTimeoutError::Disconnected) => Err(StartError::Stopped),
    }
}

/// What instance number `index` of `instances` gets on a machine with `gpus`: they take the GPUs in turn, and those on
/// one GPU divide what the margin leaves of its memory.
pub fn place(index: u32, instances: u32, gpus: u32, margin: f64) -> Placement {
    if instances < 2 || gpus == 0 {
        return Placement::default();
    }
    let device = index % gpus;
    let sharing = (instances - device).div_ceil(gpus);
    let fraction = (1.0 - margin) / f64::from(sharing);
    Placement {
        memory_fraction: Some((fraction * 10_000.0).round() / 10_000.0),
        visible_device: (gpus > 1).then_some(device),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GPU and share of its memory of each of so many instances.
    fn places(instances: u32, gpus: u32) -> Vec<(Option<u32>, f64)> {
        let places = (0..instances).map(|index| place(index, instances, gpus, 0.2));
        places
            .map(|place| (place.visible_device, place.memory_fraction.unwrap()))
            .collect()
    }

    #[test]
    fn one_instance_or_no_gpu_changes_nothing() {
        assert_eq!(place(0, 1, 4, 0.2), Placement::default());
        assert_eq!(place(0, 2, 0, 0.2), Placement::default());
    }

    #[test]
    fn instances_on_one_gpu_share_its_memory() {
        assert_eq!(places(2, 1), [(None, 0.4), (None, 0.4)]);
        assert_eq!(places(3, 1), [(None, 0.2667); 3]);
    }

    #[test]
    fn only_instances_on_the_same_gpu_share() {
        let (first, second) = ((Some(0), 0.4), (Some(1), 0.4));
        assert_eq!(places(4, 2), [first, second, first, second]);
        assert_eq!(places(2, 2), [(Some(0), 0.8), (Some(1), 0.8)]);
    }

    #[test]
    fn uneven_numbers_share_by_gpu() {
        let (three, two) = ((Some(0), 0.2667), (Some(1), 0.4));
        assert_eq!(places(5, 2), [three, two, three, two, three]);
        assert_eq!(
            places(4, 3),
            [
                (Some(0), 0.4),
                (Some(1), 0.8),
                (Some(2), 0.8),
                (Some(0), 0.4)
            ]
        );
        assert_eq!(places(2, 4), [(Some(0), 0.8), (Some(1), 0.8)]);
    }

    #[test]
    fn no_gpu_is_shared_beyond_what_the_margin_leaves() {
        for (instances, gpus) in (2..12).flat_map(|n| (1..9).map(move |gpus| (n, gpus))) {
            let mut used = vec![0.0; gpus as usize];
            for (device, fraction) in places(instances, gpus) {
                used[device.unwrap_or(0) as usize] += fraction;
            }
            for share in used.into_iter().filter(|&share| share > 0.0) {
                assert!(
                    (share - 0.8).abs() < 0.001,
                    "{instances} on {gpus}: {share}"
                );
            }
        }
    }
}
