//! The one thread that owns every child process: starts, reaps, restarts and stops them, and ends the program.
//!
//! What is to be done is decided in `tfs/instance.rs`; this is the thin shell around it. As process 1 of a
//! container all orphans become ours, so every child is reaped here, whoever started it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use signal_hook::consts::SIGCHLD;
use signal_hook::low_level::signal_name;

use crate::error::StartError;
use crate::front::Front;
use crate::tfs::backend::Backend;
use crate::tfs::child::Child;
use crate::tfs::command::Launch;
use crate::tfs::instance::{Action, Event, Instance, Limits, Phase, Status};
use crate::tfs::pool::Health;
use crate::tfs::probe::{Pace, Probe};

/// SageMaker kills a container 30 s after SIGTERM. Running requests get this long, children the rest.
const DRAIN_LIMIT: Duration = Duration::from_secs(25);
/// The front counts as drained when it had nothing to do for this long: a request may be half read.
const DRAINED_AFTER: Duration = Duration::from_millis(100);
/// How often to look whether it has.
const DRAIN_STEP: Duration = Duration::from_millis(10);
/// Time for children to end after SIGTERM; then SIGKILL.
const CHILD_STOP_LIMIT: Duration = Duration::from_secs(2);
/// Time for killed children to be reaped.
const CHILD_KILL_LIMIT: Duration = Duration::from_secs(1);

/// What the watchdog is told.
#[derive(Debug)]
pub enum Message {
    /// A signal arrived: SIGCHLD, or one that ends the program.
    Signal(i32),
    /// Instance `index` was asked for its status while it was its process number `process`.
    Status {
        /// Number of the instance.
        index: usize,
        /// Which of its processes.
        process: u64,
        /// The answer.
        status: Status,
    },
}

struct Supervised {
    instance: Instance,
    launch: Launch,
    probe: Probe,
    child: Option<Child>,
    /// Processes started so far; tells news of an earlier one from news of this one.
    process: u64,
}

/// The watchdog, before and while it runs.
pub struct Watchdog {
    instances: Vec<Supervised>,
    backend: Arc<Backend>,
    front: Front,
    inbox: Receiver<Message>,
    model: String,
    began: Instant,
}

/// Running requests are given time to finish.
struct Drain {
    until: Instant,
    idle_since: Option<Instant>,
}

impl Watchdog {
    /// A watchdog for these instances. `model` is the one asked about.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn new(
        launches: Vec<Launch>,
        limits: Limits,
        backend: Arc<Backend>,
        front: Front,
        model: String,
    ) -> Result<(Self, Sender<Message>), StartError> {
        let (sender, inbox) = unbounded();
        let now = Instant::now();
        let instances = launches
            .into_iter()
            .enumerate()
            .map(|(index, launch)| {
                let news = sender.clone();
                let report = move |process, status| {
                    let _ = news.send(Message::Status {
                        index,
                        process,
                        status,
                    });
                };
                let probe = Probe::start(index, Arc::clone(&backend), model.clone(), report)?;
                Ok(Supervised {
                    instance: Instance::new(now, limits),
                    launch,
                    probe,
                    child: None,
                    process: 0,
                })
            })
            .collect::<std::io::Result<_>>()
            .map_err(|e| StartError::failed(format!("cannot start a thread: {e}")))?;
        let watchdog = Self {
            instances,
            backend,
            front,
            inbox,
            model,
            began: now,
        };
        Ok((watchdog, sender))
    }

    /// Runs until a signal or a failed start ends the program. No child is left when it returns.
    ///
    /// # Errors
    /// Why a model server did not come up.
    pub fn run(mut self) -> Result<(), StartError> {
        // A mistake in our code must not leave children behind.
        let result = catch_unwind(AssertUnwindSafe(|| self.supervise()));
        self.stop_children();
        result.unwrap_or_else(|_| Err(StartError::failed("the watchdog panicked")))
    }

    fn supervise(&mut self) -> Result<(), StartError> {
        let mut drain: Option<Drain> = None;
        loop {
            for index in 0..self.instances.len() {
                self.apply(index, Event::Tick)?;
            }
            if let Some(drain) = &mut drain
                && self.is_drained(drain)
            {
                return Ok(());
            }
            match self.next_message(drain.is_some()) {
                Some(Message::Signal(SIGCHLD)) => self.reap()?,
                Some(Message::Signal(signal)) if drain.is_none() => {
                    log::info!(
                        "{}: stopping; running requests have up to {} s",
                        signal_name(signal).unwrap_or("signal"),
                        DRAIN_LIMIT.as_secs()
                    );
                    let until = Instant::now() + DRAIN_LIMIT;
                    self.front.stop_accepting();
                    drain = Some(Drain {
                        until,
                        idle_since: None,
                    });
                }
                Some(Message::Signal(_)) => {
                    log::warn!("second signal: stopping at once");
                    return Ok(());
                }
                Some(Message::Status {
                    index,
                    process,
                    status,
                }) if process == self.instances[index].process => {
                    self.apply(index, Event::Status(status))?;
                }
                Some(_) | None => {}
            }
        }
    }

    fn next_message(&self, draining: bool) -> Option<Message> {
        let next_tick = self
            .instances
            .iter()
            .filter_map(|s| s.instance.next_tick())
            .min();
        let step = draining.then(|| Instant::now() + DRAIN_STEP);
        match next_tick.into_iter().chain(step).min() {
            Some(wake) => self.inbox.recv_deadline(wake).ok(),
            // The probes hold senders, so this ends with a message.
            None => self.inbox.recv().ok(),
        }
    }

    fn is_drained(&self, drain: &mut Drain) -> bool {
        let now = Instant::now();
        let running = self.front.in_flight();
        if running > 0 {
            drain.idle_since = None;
        }
        let idle_since = *drain.idle_since.get_or_insert(now);
        if running == 0 && now.duration_since(idle_since) >= DRAINED_AFTER {
            log::info!("all requests answered");
            return true;
        }
        if now >= drain.until {
            log::warn!("{running} requests are not finished in time");
            return true;
        }
        false
    }

    /// Hands an event to an instance and does what it asks for.
    fn apply(&mut self, index: usize, event: Event) -> Result<(), StartError> {
        let phase_before = self.instances[index].instance.phase().clone();
        let now = Instant::now();
        match self.instances[index].instance.on(event, now) {
            Action::None => {}
            Action::Spawn => {
                let supervised = &mut self.instances[index];
                let event = match Child::start(index, &supervised.launch) {
                    Ok(child) => {
                        supervised.process += 1;
                        supervised.child = Some(child);
                        Event::Spawned
                    }
                    Err(reason) => Event::SpawnFailed(reason),
                };
                return self.apply(index, event);
            }
            Action::Kill => {
                if let Some(child) = &self.instances[index].child {
                    child.signal(Signal::KILL);
                }
            }
            Action::GiveUp(reason) => {
                return Err(StartError::failed(format!(
                    "TensorFlow Serving did not start: {reason}"
                )));
            }
        }
        if *self.instances[index].instance.phase() != phase_before {
            self.publish(index);
        }
        Ok(())
    }

    /// Tells pool, probe and log of an instance's new phase.
    fn publish(&self, index: usize) {
        let supervised = &self.instances[index];
        let phase = supervised.instance.phase();
        let (health, what) = describe(phase);
        let pace = match phase {
            Phase::Down { .. } | Phase::Ending { .. } => Pace::Off,
            Phase::Starting => Pace::Starting,
            Phase::Ready | Phase::Unresponsive { .. } => Pace::Serving,
        };
        supervised.probe.set_pace(supervised.process, pace);
        match phase {
            Phase::Ready if supervised.process == 1 => log::info!(
                "instance {index}: model {} is AVAILABLE, {:.2} s after the start",
                self.model,
                self.began.elapsed().as_secs_f64()
            ),
            Phase::Ready => {
                log::info!("instance {index}: model {} is AVAILABLE again", self.model);
            }
            Phase::Starting => log::info!("instance {index}: {what}"),
            Phase::Down { .. } | Phase::Unresponsive { .. } | Phase::Ending { .. } => {
                log::error!("instance {index}: {what}");
            }
        }
        self.backend
            .pool
            .set(index, health, what, supervised.instance.since());
    }

    /// Reaps every child that has ended.
    fn reap(&mut self) -> Result<(), StartError> {
        while let Some((pid, status)) = reap_one() {
            let Some(index) = self.index_of(pid) else {
                continue; // an orphan of some child
            };
            let Some(child) = self.instances[index].child.take() else {
                continue;
            };
            // What it started and left behind would hold its ports.
            child.kill_group();
            let exited = Event::Exited {
                how: ended(status),
                output: child.last_lines(),
            };
            self.apply(index, exited)?;
        }
        Ok(())
    }

    fn index_of(&self, pid: Pid) -> Option<usize> {
        self.instances
            .iter()
            .position(|s| s.child.as_ref().is_some_and(|c| c.pid == pid))
    }

    fn stop_children(&mut self) {
        self.signal_children(Signal::TERM);
        if !self.children_end_within(CHILD_STOP_LIMIT) {
            self.signal_children(Signal::KILL);
            self.children_end_within(CHILD_KILL_LIMIT);
        }
    }

    fn signal_children(&self, signal: Signal) {
        let children = self.instances.iter().filter_map(|s| s.child.as_ref());
        children.for_each(|child| child.signal(signal));
    }

    fn children_end_within(&mut self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        loop {
            while let Some((pid, _)) = reap_one() {
                if let Some(index) = self.index_of(pid)
                    && let Some(child) = self.instances[index].child.take()
                {
                    child.kill_group();
                }
            }
            if self.instances.iter().all(|s| s.child.is_none()) {
                return true;
            }
            // SIGCHLD wakes us; the step is for one that came before we waited.
            let step = until.min(Instant::now() + DRAIN_STEP);
            // The probes hold senders, so this waits.
            let _ = self.inbox.recv_deadline(step);
            if Instant::now() >= until {
                return false;
            }
        }
    }
}

/// A phase as the pool and people see it.
fn describe(phase: &Phase) -> (Health, String) {
    match phase {
        Phase::Down { reason, .. } if reason.is_empty() => (Health::Unavailable, "starting".into()),
        Phase::Down { reason, .. } => (Health::Unavailable, format!("down ({reason})")),
        Phase::Starting => (Health::Unavailable, "starting".into()),
        Phase::Ready => (Health::Ready, "ready".into()),
        Phase::Unresponsive { reason } => {
            (Health::Unresponsive, format!("unresponsive ({reason})"))
        }
        Phase::Ending { reason } => (Health::Unavailable, format!("being killed ({reason})")),
    }
}

fn reap_one() -> Option<(Pid, WaitStatus)> {
    // The only error is "no children".
    rustix::process::wait(WaitOptions::NOHANG).ok().flatten()
}

fn ended(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("its process exited with code {code}"),
        (_, Some(signal)) => format!("its process was ended by signal {signal}"),
        _ => "its process ended".into(),
    }
}
