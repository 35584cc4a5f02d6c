//! The command line and environment of a TFS instance.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::tfs_flags::is_at_least;
use crate::config::{Config, InstancePorts};
use crate::tfs::files::Files;
use crate::tfs::gpu;

/// How to start an instance; used again for each restart.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// The program: a path, or a name on PATH.
    pub program: PathBuf,
    /// The version of TFS, if the settings name it.
    pub version: Option<String>,
    /// The arguments.
    pub args: Vec<OsString>,
    /// Environment variables, in addition to the inherited ones.
    pub env: Vec<(&'static str, String)>,
    /// The ports it listens on.
    pub ports: InstancePorts,
}

/// TFS answers REST requests, including status requests, on a pool of threads. The pool gets more threads than we send
/// requests at once, so that a status request does not wait for predictions.
const SPARE_REST_THREADS: usize = 4;

/// The most requests sent to an instance at once, unless its batches hold more or the job asks for more. Further
/// requests would wait in TFS for a thread and hold up status requests; they wait in this server instead, where that
/// takes no thread. Never more than there are slots.
const MAX_IN_FLIGHT: usize = 256;

/// The most requests sent to one instance at once.
pub fn in_flight(config: &Config) -> usize {
    let batched = config.batching.as_ref().map_or(0, |batching| {
        let batches =
            u64::from(batching.num_batch_threads) + u64::from(batching.max_enqueued_batches);
        let requests = batches.saturating_mul(batching.max_batch_size.into());
        usize::try_from(requests).unwrap_or(usize::MAX)
    });
    let asked = config.max_concurrent_transforms.unwrap_or(0) as usize;
    config
        .model_slots()
        .min(batched.max(asked).max(MAX_IN_FLIGHT))
}

/// TFS looks for new versions every second, which an archive never gets. From this version on, 0 makes it look once, at
/// the start (RELEASE.md of TFS 1.14.0). Before, 0 made it look without a pause, and a negative number not even once.
const LOOKS_ONCE_SINCE: &str = "1.14";

/// How to start each instance; there is one for each pair of `ports`, on a machine with `gpus` GPUs.
pub fn launches(config: &Config, files: &Files, ports: &[InstancePorts], gpus: u32) -> Vec<Launch> {
    let instances = ports.len() as u32;
    let indexed = ports.iter().zip(0..);
    indexed
        .map(|(&ports, index)| {
            let placement = gpu::place(index, instances, gpus, config.gpu_memory_margin);
            launch(config, files, ports, &placement)
        })
        .collect()
}

fn launch(
    config: &Config,
    files: &Files,
    ports: InstancePorts,
    placement: &gpu::Placement,
) -> Launch {
    let mut args: Vec<OsString> = Vec::new();
    let mut flag = |name: &str, value: OsString| {
        let mut arg = OsString::from(format!("--{name}="));
        arg.push(value);
        args.push(arg);
    };
    flag("port", ports.grpc.to_string().into());
    flag("rest_api_port", ports.rest.to_string().into());
    flag("model_config_file", files.models.clone().into());
    // Without this, TFS retries a model that does not load for minutes before it reports the failure.
    flag("max_num_load_retries", "0".into());
    // TFS's default of 30 s would cut our longer deadlines short.
    flag(
        "rest_api_timeout_in_ms",
        config.deadline.as_millis().to_string().into(),
    );
    flag(
        "rest_api_num_threads",
        (in_flight(config) + SPARE_REST_THREADS).to_string().into(),
    );
    if let Some(n) = config.parallelism.intra_op {
        flag("tensorflow_intra_op_parallelism", n.to_string().into());
    }
    if let Some(n) = config.parallelism.inter_op {
        flag("tensorflow_inter_op_parallelism", n.to_string().into());
    }
    if let Some(path) = &files.batching {
        flag("enable_batching", "true".into());
        flag("batching_parameters_file", path.clone().into());
    }
    for (name, value) in tuning_flags(config) {
        flag(name, value.into());
    }
    if let Some(fraction) = placement.memory_fraction {
        flag(
            "per_process_gpu_memory_fraction",
            fraction.to_string().into(),
        );
    }

    args.extend(config.extra_args.iter().map(OsString::from));

    let mut env = vec![("OMP_NUM_THREADS", config.omp_num_threads.clone())];
    if let Some(device) = placement.visible_device {
        env.push(("CUDA_VISIBLE_DEVICES", device.to_string()));
    }
    Launch {
        program: config.model_server.clone(),
        version: config.tfs_version.clone(),
        args,
        env,
        ports,
    }
}

/// The flags that only some settings or versions need.
fn tuning_flags(config: &Config) -> Vec<(&'static str, String)> {
    let yes = |is_on: bool| is_on.then(|| "true".to_owned());
    let number = |n: Option<u32>| n.map(|n| n.to_string());
    let version = config.tfs_version.as_deref();
    let looks_once = version.and_then(|version| is_at_least(version, LOOKS_ONCE_SINCE));
    let per_model = config
        .batching
        .as_ref()
        .is_some_and(|batching| batching.per_model);
    let all = [
        (
            "file_system_poll_wait_seconds",
            (looks_once == Some(true)).then(|| "0".to_owned()),
        ),
        ("enable_per_model_batching_parameters", yes(per_model)),
        (
            "tensorflow_session_parallelism",
            number(config.parallelism.session),
        ),
        (
            "num_request_iterations_for_warmup",
            number(config.warm_up_iterations),
        ),
        ("xla_cpu_compilation_enabled", yes(config.xla_cpu)),
        // Without it, TFS refuses labels at its start, because no version is loaded yet.
        (
            "allow_version_labels_for_unavailable_models",
            yes(!config.version_labels.is_empty()),
        ),
    ];
    let given = all.into_iter();
    given
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Vars;

    #[test]
    fn in_flight_is_a_fixed_number_unless_batches_or_the_job_need_more() {
        let read = |vars: &[(&str, &str)]| {
            let vars = vars
                .iter()
                .map(|&(name, value)| (name.into(), value.into()));
            in_flight(&Config::read(&Vars::from_variables(vars), 1).unwrap())
        };
        assert_eq!(read(&[]), MAX_IN_FLIGHT);
        let batching = |size| {
            read(&[
                ("SAGEMAKER_TFS_ENABLE_BATCHING", "true"),
                ("SAGEMAKER_TFS_NUM_BATCH_THREADS", "2"),
                ("SAGEMAKER_TFS_MAX_ENQUEUED_BATCHES", "4"),
                ("SAGEMAKER_TFS_MAX_BATCH_SIZE", size),
            ])
        };
        assert_eq!(batching("1"), MAX_IN_FLIGHT);
        assert_eq!(batching("50"), 300);
        let all = Config::read(&Vars::from_variables([]), 1).unwrap();
        assert_eq!(batching("1000000"), all.model_slots());
        let asked = read(&[("SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", "1000")]);
        assert_eq!(asked, 1000, "the job asks for it");
    }
}
