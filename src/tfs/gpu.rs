//! Dividing GPUs among several TensorFlow Serving instances.
//!
//! One TensorFlow process takes nearly all memory of every GPU it sees. With several instances each gets its
//! share of the memory, and on machines with several GPUs each instance sees only one of them.

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::supervise::child::spawn;

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
pub fn count() -> u32 {
    let mut command = Command::new("nvidia-smi");
    command
        .arg("-L")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let Ok(mut child) = spawn(&mut command, &[]) else {
        return 0;
    };
    let until = Instant::now() + LIMIT;
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(10)),
            Ok(Some(status)) if status.success() => break,
            Ok(Some(_)) => return 0,
            Ok(None) | Err(_) => {
                log::warn!("nvidia-smi does not end: serving as without GPUs");
                let _ = child.kill();
                return 0;
            }
        }
    }
    // A line for each GPU fits into the pipe, so that it could end before this is read.
    let mut text = String::new();
    let mut output = child.stdout.take().expect("it is piped");
    if let Err(e) = output.read_to_string(&mut text) {
        log::warn!("cannot read what nvidia-smi says: {e}");
    }
    let gpus = text.lines().filter(|line| line.starts_with("GPU "));
    gpus.count().try_into().unwrap_or(u32::MAX)
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
