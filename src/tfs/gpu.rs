//! Divides the GPUs among several TFS instances.
//!
//! A TensorFlow process takes nearly all the memory of every GPU that it sees. So on a machine with several GPUs each
//! of several instances sees only one GPU, and the instances on one GPU share its memory.

use std::process::Command;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;

use crate::error::StartError;
use crate::supervisor::child::Streams;
use crate::supervisor::handle::SupervisorHandle;

/// The GPU and the share of its memory that one instance gets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Placement {
    /// The value of `--per_process_gpu_memory_fraction`.
    pub memory_fraction: Option<f64>,
    /// The value of `CUDA_VISIBLE_DEVICES`.
    pub visible_device: Option<u32>,
}

/// Time limit of `nvidia-smi`, which may never end with a broken driver.
const LIMIT: Duration = Duration::from_secs(10);

/// The number of GPUs, from `nvidia-smi -L`, which prints a line for each. Without that program the number is 0.
///
/// # Errors
/// [`StartError::Failed`] when the system lacks the resources to run `nvidia-smi`, [`StartError::Stopped`] when the
/// server stops first.
pub fn count(supervisor: &SupervisorHandle) -> Result<u32, StartError> {
    let mut command = Command::new("nvidia-smi");
    command.arg("-L");
    match supervisor.run_within(LIMIT, command, Streams::Captured) {
        Ok(Ok(text)) => {
            let gpus = text.lines().filter(|line| line.starts_with("GPU "));
            Ok(gpus.count().try_into().unwrap_or(u32::MAX))
        }
        Ok(Err(failure)) if failure.out_of_resources => Err(StartError::failed(format!(
            "cannot determine the number of GPUs: nvidia-smi: {}",
            failure.text
        ))),
        Ok(Err(failure)) => {
            log::debug!("nvidia-smi: {}", failure.text);
            Ok(0)
        }
        Err(RecvTimeoutError::Timeout) => {
            log::warn!(
                "nvidia-smi did not finish within {} s; continuing as if there were no GPUs",
                LIMIT.as_secs()
            );
            Ok(0)
        }
        Err(RecvTimeoutError::Disconnected) => Err(StartError::Stopped),
    }
}

/// The placement of instance `index` of `instances` on a machine with `gpus` GPUs. The instances take the GPUs in turn,
/// and those on one GPU divide its memory, of which the fraction `margin` stays free.
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

    /// The GPU of each instance and its share of that GPU's memory.
    fn places(instances: u32, gpus: u32) -> Vec<(Option<u32>, f64)> {
        let places = (0..instances).map(|index| place(index, instances, gpus, 0.2));
        places
            .map(|place| (place.visible_device, place.memory_fraction.unwrap()))
            .collect()
    }

    #[test]
    fn one_instance_or_no_gpu_sets_nothing() {
        assert_eq!(place(0, 1, 4, 0.2), Placement::default());
        assert_eq!(place(0, 2, 0, 0.2), Placement::default());
    }

    #[test]
    fn instances_on_one_gpu_share_its_memory() {
        assert_eq!(places(2, 1), [(None, 0.4), (None, 0.4)]);
        assert_eq!(places(3, 1), [(None, 0.2667); 3]);
    }

    #[test]
    fn instances_on_different_gpus_do_not_share() {
        let (first, second) = ((Some(0), 0.4), (Some(1), 0.4));
        assert_eq!(places(4, 2), [first, second, first, second]);
        assert_eq!(places(2, 2), [(Some(0), 0.8), (Some(1), 0.8)]);
    }

    #[test]
    fn shares_depend_on_the_number_of_instances_on_each_gpu() {
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
    fn instances_on_a_gpu_together_leave_the_margin_free() {
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
