//! Dividing GPUs among several TensorFlow Serving instances.
//!
//! One TensorFlow process takes nearly all memory of every GPU it sees. With several instances each gets its
//! share of the memory, and on machines with several GPUs each instance sees only one of them.

use std::process::{Command, Stdio};

/// What one instance gets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Placement {
    /// For `--per_process_gpu_memory_fraction`.
    pub memory_fraction: Option<f64>,
    /// For `CUDA_VISIBLE_DEVICES`.
    pub visible_device: Option<u32>,
}

/// The number of GPUs, from `nvidia-smi -L`, which prints a line for each. 0 without that program.
pub fn count() -> u32 {
    let output = Command::new("nvidia-smi")
        .arg("-L")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|line| line.starts_with("GPU "))
            .count()
            .try_into()
            .unwrap_or(u32::MAX),
        _ => 0,
    }
}

/// What instance number `index` of `instances` gets on a machine with `gpus`.
pub fn place(index: u32, instances: u32, gpus: u32, margin: f64) -> Placement {
    if instances < 2 || gpus == 0 {
        return Placement::default();
    }
    let fraction = (1.0 - margin) / f64::from(instances);
    Placement {
        memory_fraction: Some((fraction * 10_000.0).round() / 10_000.0),
        visible_device: (gpus > 1).then_some(index % gpus),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_instance_or_no_gpu_changes_nothing() {
        assert_eq!(place(0, 1, 4, 0.2), Placement::default());
        assert_eq!(place(0, 2, 0, 0.2), Placement::default());
    }

    #[test]
    fn instances_share_memory_and_take_gpus_in_turn() {
        assert_eq!(
            place(0, 2, 1, 0.2),
            Placement {
                memory_fraction: Some(0.4),
                visible_device: None
            }
        );
        let devices: Vec<_> = (0..4)
            .map(|i| place(i, 4, 3, 0.2).visible_device.unwrap())
            .collect();
        assert_eq!(devices, [0, 1, 2, 0]);
        assert_eq!(place(0, 3, 1, 0.2).memory_fraction, Some(0.2667));
    }
}
