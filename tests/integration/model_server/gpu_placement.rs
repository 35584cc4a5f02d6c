//! How instances share the GPUs that `nvidia-smi` lists.

use crate::support::Setup;

/// `--per_process_gpu_memory_fraction` and CUDA_VISIBLE_DEVICES of each instance.
#[track_caller]
fn placements(setup: Setup, instances: u16) -> Vec<(Option<String>, Option<String>)> {
    let server = setup.instances(instances).launch();
    let mut starts: Vec<_> = (0..instances.into())
        .map(|k| server.wait_for_start(k))
        .collect();
    starts.sort_by_key(|start| start.flag("rest_api_port").map(str::to_owned));
    starts
        .iter()
        .map(|start| {
            (
                start
                    .flag("per_process_gpu_memory_fraction")
                    .map(str::to_owned),
                start.env.get("CUDA_VISIBLE_DEVICES").cloned(),
            )
        })
        .collect()
}

fn with_gpus(count: usize) -> Setup {
    let line = |n| format!("echo 'GPU {n}: NVIDIA A10G (UUID: GPU-{n})'\n");
    Setup::new().script("bin/nvidia-smi", &(0..count).map(line).collect::<String>())
}

fn place(fraction: &str, device: Option<&str>) -> (Option<String>, Option<String>) {
    (Some(fraction.to_owned()), device.map(str::to_owned))
}

#[test]
fn instances_share_the_memory_of_one_gpu() {
    assert_eq!(
        placements(with_gpus(1), 2),
        [place("0.4", None), place("0.4", None)]
    );
}

#[test]
fn instances_take_several_gpus_in_turn() {
    assert_eq!(
        placements(with_gpus(2), 3),
        [
            place("0.4", Some("0")),
            place("0.8", Some("1")),
            place("0.4", Some("0"))
        ]
    );
}

#[test]
fn only_instances_on_the_same_gpu_share_its_memory() {
    let (first, second) = (place("0.4", Some("0")), place("0.4", Some("1")));
    assert_eq!(
        placements(with_gpus(2), 4),
        [first.clone(), second.clone(), first, second]
    );
}

/// The largest machines have sixteen GPUs, and `nvidia-smi` prints a line for each.
#[test]
fn sixteen_gpus_are_counted() {
    let places = placements(with_gpus(16), 3);
    let devices: Vec<_> = places.iter().map(|(_, device)| device.as_deref()).collect();
    assert_eq!(devices, [Some("0"), Some("1"), Some("2")]);
}

#[test]
fn the_memory_margin_is_left_free() {
    for (margin, fraction) in [("0.3", "0.35"), ("0", "0.5"), ("0.999", "0.0005")] {
        let setup = with_gpus(1).var("SAGEMAKER_TFS_FRACTIONAL_GPU_MEM_MARGIN", margin);
        assert_eq!(
            placements(setup, 2),
            [place(fraction, None), place(fraction, None)]
        );
    }
}

#[test]
fn a_single_instance_has_all_gpus() {
    assert_eq!(placements(with_gpus(2), 1), [(None, None)]);
}

#[test]
fn without_working_gpus_instances_get_no_gpu_settings() {
    let failing = Setup::new().script("bin/nvidia-smi", "echo 'GPU 0: broken'\nexit 9");
    for setup in [failing, with_gpus(0)] {
        assert_eq!(placements(setup, 2), [(None, None), (None, None)]);
    }
}
