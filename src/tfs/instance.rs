//! One TFS instance as a unit of the supervisor: starts its process, reports its readiness, and keeps the pool up to
//! date.
//!
//! `command.rs` says how the process is started, and `probe.rs` asks it for its status.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::dispatch::pool::Health;
use crate::supervisor::child::{Child, Streams};
use crate::supervisor::handle::{SupervisorHandle, UnitId};
use crate::supervisor::lifecycle::{Limits, Phase};
use crate::supervisor::readiness::Readiness;
use crate::supervisor::unit::{ProcessHandle, StartFailure, Unit};
use crate::tfs::backend::Backend;
use crate::tfs::command::Launch;
use crate::tfs::flags;
use crate::tfs::probe::{Pace, Probe};
use crate::tfs::status::{self, Versions};
use crate::wait;

/// The log target of TFS's output.
pub const LOG_TARGET: &str = "tensorflow_model_server";

/// How often to try a port again that is in use.
const BIND_RETRIES: u32 = 5;
/// The pause before each of these tries.
const BIND_PAUSE: Duration = Duration::from_millis(2);
/// The time limit of `--version`, which loads all of TensorFlow's libraries first.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// One instance of TFS.
pub struct Instance {
    index: usize,
    label: String,
    launch: Launch,
    probe: Probe,
    backend: Arc<Backend>,
    /// The names of its models with a verb, for messages: "model m is".
    models: String,
    created: Instant,
    unit: UnitId,
    supervisor: SupervisorHandle,
    outcome: Arc<OnceLock<FirstOutcome>>,
}

/// How the first start of an instance turned out. Only the first matters: later processes get the same flags, and once
/// the instance serves, a model may print a line that looks like TFS's message about an unknown flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstOutcome {
    /// The instance is ready.
    Ready,
    /// TFS does not know a flag: the start fails, even if TFS becomes AVAILABLE.
    UnknownFlag,
}

impl Instance {
    /// Instance number `index` of `backend`, which serves `models`. `label` identifies it in messages, and `unit` to
    /// the supervisor.
    ///
    /// # Errors
    /// When the thread of the probe cannot be started.
    pub fn new(
        unit: UnitId,
        index: usize,
        label: String,
        launch: Launch,
        backend: Arc<Backend>,
        models: Vec<Versions>,
        supervisor: SupervisorHandle,
    ) -> std::io::Result<Self> {
        let names: Vec<_> = models.iter().map(|model| model.name.as_str()).collect();
        let names = match names.as_slice() {
            [name] => format!("model {name} is"),
            names => format!("models {} are", names.join(", ")),
        };
        let first_outcome = Arc::new(OnceLock::new());
        let (reporter, outcome) = (supervisor.clone(), Arc::clone(&first_outcome));
        let report = move |process, readiness| {
            if readiness == Readiness::Ready {
                outcome.get_or_init(|| FirstOutcome::Ready);
            }
            if outcome.get() != Some(&FirstOutcome::UnknownFlag) {
                reporter.report(unit, process, readiness);
            }
        };
        Ok(Self {
            index,
            label,
            launch,
            probe: Probe::start(index, Arc::clone(&backend), models, report)?,
            backend,
            models: names,
            created: Instant::now(),
            unit,
            supervisor,
            outcome: first_outcome,
        })
    }

    /// A function that gets each line of a process's output, and fails the first start at a line about an unknown flag.
    fn watch_for_unknown_flags(&self, process: u64) -> impl FnMut(&str) + Send + use<> {
        let (supervisor, unit) = (self.supervisor.clone(), self.unit);
        let (program, version) = (self.launch.program.clone(), self.launch.version.clone());
        let outcome = Arc::clone(&self.outcome);
        move |line| {
            let Some(argument) = flags::unknown_argument(line) else {
                return;
            };
            // Before asking for the version, which takes time in which the models may become AVAILABLE.
            if outcome.set(FirstOutcome::UnknownFlag).is_err() {
                return;
            }
            let version = (version.clone()).or_else(|| ask_for_version(&program, &supervisor));
            let readiness = Readiness::Failed {
                reason: flags::refusal(argument, version.as_deref()),
                out_of_resources: false,
            };
            supervisor.report(unit, process, readiness);
        }
    }

    /// The time limits of an instance: `wait_time` to load its models, and `unresponsive` without a good status before
    /// it is killed.
    pub fn limits(wait_time: Duration, unresponsive: Duration) -> Limits {
        let text = format!(
            "not AVAILABLE within {} s (SAGEMAKER_TFS_WAIT_TIME_SECONDS)",
            wait_time.as_secs()
        );
        Limits {
            start: Some((wait_time, text)),
            unresponsive: Some(unresponsive),
        }
    }
}

impl Unit for Instance {
    fn name(&self) -> String {
        format!("instance {}", self.label)
    }

    fn start(&mut self, process: u64) -> Result<Box<dyn ProcessHandle>, StartFailure> {
        let launch = &self.launch;
        for port in [launch.ports.grpc, launch.ports.rest] {
            // If another program listens on the port, TFS could not, and we would send requests to that program.
            if let Err(e) = try_bind(port) {
                return Err(format!(
                    "port {port} for TensorFlow Serving cannot be used: {e}; set SAGEMAKER_SAFE_PORT_RANGE to a \
                     range of free ports"
                )
                .into());
            }
        }
        let mut command = Command::new(&launch.program);
        command
            .args(&launch.args)
            .envs(launch.env.iter().map(|(k, v)| (k, v)));
        let streams = Streams::Log {
            target: LOG_TARGET,
            prefix: format!("{}: ", self.label),
            is_cause: None,
        };
        let program = launch.program.display();
        let watch = self.watch_for_unknown_flags(process);
        let child = Child::start_watched(command, &streams, &[], watch).map_err(|e| {
            let text = match e.kind() {
                ErrorKind::NotFound => format!(
                    "{program} is not found{}; install TensorFlow Serving, or give the path of its program with \
                     --model-server",
                    if launch.program.components().count() == 1 {
                        " on PATH"
                    } else {
                        ""
                    }
                ),
                _ => format!("cannot start {program}: {e}"),
            };
            StartFailure::from_io(&e, text)
        })?;
        log::info!("{}: started {program}, process {}", self.name(), child.pid);
        Ok(Box::new(child))
    }

    fn publish(&mut self, process: u64, phase: &Phase, since: Instant, _: u32) {
        let name = self.name();
        let (health, what) = describe(phase);
        let pace = match phase {
            Phase::Down { .. } | Phase::Ending { .. } => Pace::Off,
            Phase::Starting => Pace::Starting,
            Phase::Ready | Phase::Unresponsive { .. } => Pace::Serving,
        };
        self.probe.set_pace(process, pace);
        match phase {
            Phase::Ready if process == 1 => log::info!(
                "{name}: {} AVAILABLE, {:.2} s after the start",
                self.models,
                self.created.elapsed().as_secs_f64()
            ),
            Phase::Ready => log::info!("{name}: {} AVAILABLE again", self.models),
            Phase::Starting => log::info!("{name}: {what}"),
            Phase::Down { .. } | Phase::Unresponsive { .. } | Phase::Ending { .. } => {
                log::error!("{name}: {what}");
            }
        }
        self.backend.set(self.index, health, what, since);
    }

    fn ran_out_of_resources(&self, output: &str) -> bool {
        status::says_out_of_resources(output)
    }

    fn refusal(&self, reason: &str) -> String {
        format!("TensorFlow Serving did not start: {reason}")
    }
}

/// Asks TFS for its version; `None` when the output names no version, or comes too late.
fn ask_for_version(program: &Path, supervisor: &SupervisorHandle) -> Option<String> {
    let mut command = Command::new(program);
    command.arg("--version");
    let output = supervisor.run_within(VERSION_LIMIT, command, Streams::Captured);
    flags::parse_version(&output.ok()?.ok()?).map(str::to_owned)
}

/// Tries to listen on a port. This may fail for a moment although the port is free: a child that is being started holds
/// a copy of any socket with which another thread tried the port, until the system closes the child's copies.
fn try_bind(port: u16) -> std::io::Result<TcpListener> {
    for _ in 0..BIND_RETRIES {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Err(e) if e.kind() == ErrorKind::AddrInUse => {
                let _ = wait::until(Instant::now() + BIND_PAUSE);
            }
            other => return other,
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

/// The health for the pool and the description for messages.
fn describe(phase: &Phase) -> (Health, String) {
    match phase {
        Phase::Ready => (Health::Ready, phase.to_string()),
        Phase::Unresponsive { .. } => (Health::Unresponsive, phase.to_string()),
        _ => (Health::Coming, phase.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::InstancePorts;

    /// An instance of model `m` with this program on these ports.
    fn instance(program: &str, ports: InstancePorts) -> Instance {
        let limit = Duration::from_secs(1);
        let (supervisor, _) = SupervisorHandle::new();
        let launch = Launch {
            program: program.into(),
            version: Some("2.19.1".to_owned()),
            args: Vec::new(),
            env: Vec::new(),
            ports,
        };
        let models = vec![Versions {
            name: "m".to_owned(),
            numbers: vec![1],
        }];
        Instance::new(
            supervisor.new_id(),
            0,
            "0".to_owned(),
            launch,
            Arc::new(Backend::new(vec![ports], limit, 1, 1)),
            models,
            supervisor,
        )
        .unwrap()
    }

    /// Two ports that are in use as long as the listeners live.
    fn ports() -> (InstancePorts, [TcpListener; 2]) {
        let listeners = [0, 1].map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [grpc, rest] = [0, 1].map(|n: usize| listeners[n].local_addr().unwrap().port());
        (InstancePorts { grpc, rest }, listeners)
    }

    fn failure(instance: &mut Instance) -> String {
        match instance.start(1) {
            Ok(_) => panic!("the instance has started"),
            Err(failure) => failure.text,
        }
    }

    #[test]
    fn an_error_names_a_port_in_use_before_the_program_is_started() {
        let (ports, [grpc, rest]) = ports();
        let mut instance = instance("/no/such/program", ports);
        let text = failure(&mut instance);
        assert!(text.contains(&format!("port {}", ports.grpc)), "{text}");
        assert!(text.contains("SAGEMAKER_SAFE_PORT_RANGE"), "{text}");
        drop(grpc);
        let text = failure(&mut instance);
        assert!(text.contains(&format!("port {}", ports.rest)), "{text}");
        drop(rest);
        let text = failure(&mut instance);
        assert!(text.starts_with("/no/such/program is not found;"), "{text}");
    }

    #[test]
    fn an_error_names_a_program_that_is_not_on_path() {
        let (ports, listeners) = ports();
        drop(listeners);
        let text = failure(&mut instance("no-such-model-server", ports));
        assert!(
            text.contains("no-such-model-server is not found on PATH;"),
            "{text}"
        );
        assert!(text.contains("--model-server"), "{text}");
    }

    #[test]
    fn an_unknown_flag_counts_only_before_the_instance_is_ready() {
        let (ports, _listeners) = ports();
        let starting = instance("program", ports);
        let mut watch = starting.watch_for_unknown_flags(1);
        watch("some other line");
        assert_eq!(starting.outcome.get(), None);
        watch("unknown argument: --new_flag=1");
        assert_eq!(starting.outcome.get(), Some(&FirstOutcome::UnknownFlag));

        let serving = instance("program", ports);
        serving.outcome.set(FirstOutcome::Ready).unwrap();
        serving.watch_for_unknown_flags(1)("unknown argument: --new_flag=1");
        assert_eq!(serving.outcome.get(), Some(&FirstOutcome::Ready));
    }

    #[test]
    fn the_pool_is_ready_only_in_phase_ready() {
        let (ports, _listeners) = ports();
        let mut instance = instance("program", ports);
        let backend = Arc::clone(&instance.backend);
        let now = Instant::now();
        let reason = || "hangs".to_owned();
        for (phase, is_serving) in [
            (Phase::Starting, false),
            (Phase::Ready, true),
            (Phase::Unresponsive { reason: reason() }, false),
            (Phase::Ready, true),
            (Phase::Ending { reason: reason() }, false),
            (
                Phase::Down {
                    retry_at: now,
                    reason: reason(),
                },
                false,
            ),
        ] {
            instance.publish(1, &phase, now, 0);
            assert_eq!(backend.pool.check().is_ok(), is_serving, "{phase}");
        }
        let problem = backend.pool.check().unwrap_err();
        assert!(problem.contains("down (hangs)"), "{problem}");
    }
}
