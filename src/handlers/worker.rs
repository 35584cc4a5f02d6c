//! One Python worker as a [`Unit`] of the supervisor: starts the process, waits until its script is loaded, tells the
//! pool about its state, and has the process killed when a call takes too long. Calls themselves are left to
//! `channels.rs`.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::config::WorkerClass;
use crate::dispatch::pool::Health;
use crate::handlers::abandoned_calls;
use crate::handlers::channels::WorkerChannels;
use crate::handlers::launch::Launch;
use crate::handlers::pool::{Channels, Pool};
use crate::supervisor::child::{Child, Streams};
use crate::supervisor::handle::{SupervisorHandle, UnitId};
use crate::supervisor::lifecycle::Phase;
use crate::supervisor::readiness::Readiness;
use crate::supervisor::unit::{Ended, ProcessHandle, StartFailure, Unit};
use crate::worker_protocol::frame::Shape;
use crate::worker_protocol::record::{self, Record};

/// Log target of workers' output.
pub const LOG_TARGET: &str = "python";
/// How often the log mentions a script that takes long to load.
const LOADING_REPORT: Duration = Duration::from_secs(10);
/// A worker that fails this many times in a row without an answer in between counts as failing, and requests do not
/// wait for it.
const FAILING_AFTER: u32 = 2;
/// How often the time limit of calls is checked: this many times during the limit, but within bounds.
const CHECKS_PER_TIMEOUT: u32 = 10;
const SHORTEST_CHECK: Duration = Duration::from_millis(100);
const LONGEST_CHECK: Duration = Duration::from_secs(1);
/// The dynamic linker's exit code for a missing library.
const LINKER_FAILED: &str = "exited with code 127";

/// One Python worker, across the restarts of its process.
pub struct Worker {
    unit: UnitId,
    index: usize,
    label: String,
    launch: Arc<Launch>,
    pool: Arc<Pool>,
    supervisor: SupervisorHandle,
    process: Option<Arc<WorkerChannels>>,
    first_message: Option<JoinHandle<Result<(), String>>>,
    phase: Phase,
    since: Instant,
    next_check: Option<Instant>,
    last_failure: String,
}

impl Worker {
    /// Worker `index` of this launch, which the supervisor knows as `unit`.
    pub fn new(
        unit: UnitId,
        index: usize,
        launch: Arc<Launch>,
        pool: Arc<Pool>,
        supervisor: SupervisorHandle,
    ) -> Self {
        let now = Instant::now();
        Self {
            unit,
            index,
            label: launch.label(index),
            launch,
            pool,
            supervisor,
            process: None,
            first_message: None,
            phase: Phase::Starting,
            since: now,
            next_check: None,
            last_failure: String::new(),
        }
    }

    fn try_start(&mut self, process_number: u64) -> io::Result<Child> {
        abandoned_calls::start()?;
        let launch = &self.launch;
        let pairs = (0..launch.channels).map(|_| UnixStream::pair());
        let (ours, theirs): (Vec<_>, Vec<_>) =
            pairs.collect::<io::Result<Vec<_>>>()?.into_iter().unzip();
        let record = Record::new(launch.channels)?;

        let command = launch.command(&record, &theirs);
        let streams = match launch.has_terminal {
            true => Streams::Inherited,
            false => Streams::Log {
                target: LOG_TARGET,
                prefix: format!("{}: ", self.label),
                is_cause: None,
            },
        };
        let mut inherited: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        inherited.push(record.file().as_fd());
        let child = Child::start(command, &streams, &inherited)?;

        let process = Arc::new(WorkerChannels::new(ours, record)?);
        self.process = Some(Arc::clone(&process));
        let (unit, supervisor) = (self.unit, self.supervisor.clone());
        let listen = move || {
            process.wait_until_loaded()?;
            supervisor.report(unit, process_number, Readiness::Ready);
            Ok(())
        };
        let thread = thread::Builder::new().name(format!("load-{}", self.label));
        match thread.spawn(listen) {
            Ok(thread) => self.first_message = Some(thread),
            // Without a thread that waits for the first message, the worker would never become ready.
            Err(e) => {
                child.signal(rustix::process::Signal::KILL);
                self.process = None;
                return Err(e);
            }
        }
        Ok(child)
    }

    /// Warns that calls do not overlap, although users of the class `gevent` expect it.
    fn warn_of_missing_gevent(&self) {
        let loaded = self.process.as_ref().and_then(|p| p.loaded.get());
        let is_missing = loaded.is_some_and(|l| l.shape == Shape::Single && !l.has_gevent);
        if is_missing && self.launch.worker_class == WorkerClass::Gevent {
            log::warn!(
                "{}: gevent is not installed, so each worker runs one call of handler at a time; to run more at once, \
                 add gevent to requirements.txt, increase SAGEMAKER_GUNICORN_WORKERS, or set \
                 SAGEMAKER_GUNICORN_WORKER_CLASS=gthread if the script is safe to run on several threads",
                self.launch.script.display()
            );
        }
    }

    fn worn_out(&self) -> Option<String> {
        let is_worn_out = (self.pool).look_at_idle(self.index, Channels::is_worn_out);
        is_worn_out
            .unwrap_or(false)
            .then(|| "it has too few usable channels left".into())
    }

    fn check_interval(timeout: Duration) -> Duration {
        (timeout / CHECKS_PER_TIMEOUT).clamp(SHORTEST_CHECK, LONGEST_CHECK)
    }
}

impl Unit for Worker {
    fn name(&self) -> String {
        format!("Python worker {}", self.label)
    }

    fn start(&mut self, process_number: u64) -> Result<Box<dyn ProcessHandle>, StartFailure> {
        let child = self.try_start(process_number).map_err(|e| {
            let program = self.launch.program.display();
            let text = match e.kind() {
                ErrorKind::NotFound => format!(
                    "{program}, which runs Python handlers, was not found next to sagemaker-tfs or on PATH; build \
                     sagemaker-tfs with its default features, or use an image with Python"
                ),
                _ => format!("cannot start {program}: {e}"),
            };
            StartFailure::from_io(&e, text)
        })?;
        log::info!(
            "{}: started, process {}; loading {}",
            self.name(),
            child.pid,
            self.launch.script.display()
        );
        Ok(Box::new(child))
    }

    fn ended(&mut self, how: String) -> Ended {
        let (mut reason, mut was_useful) = (how, false);
        if let Some(process) = self.process.take() {
            // A process that the worker forked may hold the other ends, so requests would not notice the worker's end.
            process.close();
            let first_message = self.first_message.take().map(JoinHandle::join);
            if let Some(Ok(Err(why))) = first_message
                && !why.is_empty()
            {
                reason = why;
            } else if self.phase == Phase::Starting {
                reason = format!("{reason} while loading {}", self.launch.script.display());
            }
            if let Phase::Ending { reason: why } = &self.phase {
                reason = format!("killed: {why}");
            }
            // The pool first: a request that learns how its process ended looks for another at once.
            self.pool.process_ended(self.index);
            process.note_end(reason.clone());
            // A worker whose script wrote to the channels was replaced for that; it did not fail.
            was_useful = process.has_answered() || process.has_garbled();
        }
        Ended { reason, was_useful }
    }

    fn publish(&mut self, process: u64, phase: &Phase, since: Instant, failures: u32) {
        (self.phase, self.since) = (phase.clone(), since);
        let name = self.name();
        if let Phase::Down { reason, .. } | Phase::Ending { reason } = phase {
            // The last line of a traceback, because clients see this text.
            self.last_failure = last_line(reason).to_owned();
        }
        let (health, what) = match phase {
            Phase::Ready => (Health::Ready, phase.to_string()),
            Phase::Down { .. } if failures < FAILING_AFTER => {
                (Health::Coming, format!("down ({})", self.last_failure))
            }
            _ if failures >= FAILING_AFTER => {
                (Health::Failing, format!("failing ({})", self.last_failure))
            }
            _ => (Health::Coming, phase.to_string()),
        };
        match phase {
            Phase::Ready => {
                log::info!(
                    "{name}: loaded {}{}",
                    self.launch.script.display(),
                    if process == 1 { "" } else { " again" }
                );
                if process == 1 && self.index == 0 {
                    self.warn_of_missing_gevent();
                }
            }
            Phase::Starting => {}
            _ => log::error!("{name}: {phase}"),
        }
        let now = Instant::now();
        self.next_check = match phase {
            Phase::Ready => {
                let interval = self.launch.timeout.map(Self::check_interval);
                Some(now + interval.unwrap_or(LONGEST_CHECK))
            }
            Phase::Starting => Some(now + LOADING_REPORT),
            _ => None,
        };
        let channels = self.process.as_ref().and_then(Channels::of);
        self.pool.set(self.index, health, what, since, channels);
    }

    fn is_redundant(&self) -> bool {
        self.pool.check().is_ok()
    }

    fn next_check(&self) -> Option<Instant> {
        self.next_check
    }

    fn check(&mut self, now: Instant) -> Option<String> {
        if self.next_check.is_none_or(|next| next > now) {
            return None;
        }
        match (&self.phase, self.launch.timeout) {
            (Phase::Starting, _) => {
                self.next_check = Some(now + LOADING_REPORT);
                log::info!(
                    "{}: still loading {} after {} s",
                    self.name(),
                    self.launch.script.display(),
                    now.duration_since(self.since).as_secs()
                );
                None
            }
            (Phase::Ready, Some(timeout)) => {
                self.next_check = Some(now + Self::check_interval(timeout));
                let process = self.process.as_ref()?;
                // Both checks use the same time; otherwise a call that becomes overdue between them would be missed.
                let now = record::now();
                if process.has_overdue_calls(timeout, now) {
                    return Some(format!(
                        "a handler call took longer than {} s (SAGEMAKER_GUNICORN_TIMEOUT_SECONDS)",
                        timeout.as_secs()
                    ));
                }
                if process.is_stuck(timeout, now) {
                    return Some(format!(
                        "it has begun no call for {} s (SAGEMAKER_GUNICORN_TIMEOUT_SECONDS) although calls are waiting",
                        timeout.as_secs()
                    ));
                }
                self.worn_out()
            }
            (Phase::Ready, None) => {
                self.next_check = Some(now + LONGEST_CHECK);
                self.worn_out()
            }
            _ => {
                self.next_check = None;
                None
            }
        }
    }

    fn stop(&mut self, _: &dyn ProcessHandle) {
        let what = "stopping".to_owned();
        let now = Instant::now();
        self.pool.set(self.index, Health::Failing, what, now, None);
        // The process ends when it finds its channels closed, and can still run the exit handlers of scripts.
        if let Some(process) = &self.process {
            process.close();
        }
    }

    fn refusal(&self, reason: &str) -> String {
        let script = self.launch.script.display();
        let mut text = format!("the handler script {script} cannot be used: {reason}");
        if reason.contains(LINKER_FAILED) && reason.contains("libpython") {
            text += "\nsagemaker-tfs-python needs the library of the Python it was built with: install it (on Debian \
                     the package libpython3), or use an image with Python";
        }
        text
    }
}

/// The last line of a traceback that is no hint.
fn last_line(reason: &str) -> &str {
    let mut lines = reason.lines().rev();
    lines
        .find(|line| !line.starts_with("hint: "))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::interpreter::Interpreter;

    /// A worker without a process.
    fn worker(launch: Launch) -> Worker {
        let (supervisor, _) = SupervisorHandle::new();
        let id = supervisor.new_id();
        Worker::new(id, 0, Arc::new(launch), Pool::new(1), supervisor)
    }

    fn launch() -> Launch {
        Launch {
            workers: 1,
            model: None,
            program: "/no/such/program".into(),
            script: "/code/inference.py".into(),
            code: "/code".into(),
            interpreter: Interpreter {
                executable: "python3".into(),
                version: "3.11.7".to_owned(),
                prefix: "/usr".into(),
            },
            worker_class: WorkerClass::Sync,
            channels: 1,
            log_level: "INFO",
            packages: None,
            env: Vec::new(),
            directory: None,
            has_terminal: false,
            timeout: Some(Duration::from_secs(30)),
        }
    }

    #[test]
    fn name_contains_the_model_in_multi_model_mode() {
        assert_eq!(worker(launch()).name(), "Python worker 0");
        let model = Some("m".to_owned());
        assert_eq!(
            worker(Launch { model, ..launch() }).name(),
            "Python worker m/0"
        );
    }

    #[test]
    fn start_failure_names_the_missing_program() {
        let mut worker = worker(launch());
        let Err(failure) = worker.start(1) else {
            panic!("it has started");
        };
        let text = failure.text;
        assert!(text.starts_with("/no/such/program, which runs"), "{text}");
        assert!(text.contains("was not found next to"), "{text}");
        // Without a process, the reason is the reported end.
        let ended = worker.ended("exited".to_owned());
        assert_eq!((ended.reason.as_str(), ended.was_useful), ("exited", false));
    }

    #[test]
    fn refusal_explains_a_missing_library() {
        let worker = worker(launch());
        let text = worker.refusal("exited with code 127: libpython3.11.so.1.0: cannot open");
        assert!(
            text.contains("/code/inference.py cannot be used: exited"),
            "{text}"
        );
        assert!(text.contains("install it (on Debian"), "{text}");
        assert!(
            !worker
                .refusal("exited with code 1: libpython")
                .contains("install")
        );
    }

    #[test]
    fn requests_do_not_wait_for_a_worker_that_failed_twice_in_a_row() {
        let mut worker = worker(launch());
        let now = Instant::now();
        let down = |reason: &str| Phase::Down {
            retry_at: now,
            reason: reason.to_owned(),
        };
        let mut problem = |phase: &Phase, failures| {
            worker.publish(1, phase, now, failures);
            worker.pool.check().unwrap_err()
        };
        let first = problem(&down("Traceback\nValueError: no"), 1);
        assert!(first.contains("down (ValueError: no)"), "{first}");
        let second = problem(&down("Traceback\nValueError: no\nhint: yes"), 2);
        assert!(second.contains("failing (ValueError: no)"), "{second}");
        let again = problem(&Phase::Starting, 2);
        assert!(again.contains("failing (ValueError: no)"), "{again}");
    }

    #[test]
    fn checks_calls_often_enough_for_their_limit() {
        for (timeout, interval) in [(100, 100), (3000, 300), (600_000, 1000)] {
            let interval = Duration::from_millis(interval);
            assert_eq!(
                Worker::check_interval(Duration::from_millis(timeout)),
                interval
            );
        }
        let mut worker = worker(launch());
        let now = Instant::now();
        assert_eq!(worker.next_check(), None);
        worker.publish(1, &Phase::Starting, now, 0);
        let next = worker.next_check().unwrap();
        assert_eq!(worker.check(now), None);
        assert_eq!(worker.next_check(), Some(next), "checked too early");
        assert_eq!(worker.check(next), None);
        assert_eq!(worker.next_check(), Some(next + LOADING_REPORT));
        worker.publish(
            1,
            &Phase::Ending {
                reason: String::new(),
            },
            now,
            0,
        );
        assert_eq!(worker.next_check(), None);
    }
}
