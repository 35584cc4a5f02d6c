//! The one thread that owns every child process: starts, reaps, restarts and stops them, and ends the program.
//!
//! What is to be done is decided in `lifecycle.rs`; this is the thin shell around it. As process 1 of a
//! container all orphans become ours, so every child is reaped here, whoever started it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use signal_hook::consts::SIGCHLD;
use signal_hook::low_level::signal_name;

use crate::error::StartError;
use crate::front::Front;
use crate::supervise::child::Child;
use crate::supervise::lifecycle::{Action, Event, Lifecycle, Limits};
use crate::supervise::unit::{News, Unit, UnitId};

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
    /// A unit is well, or not.
    News(News),
}

struct Supervised {
    unit: Box<dyn Unit>,
    lifecycle: Lifecycle,
    child: Option<Child>,
    /// Processes started so far; tells news of an earlier one from news of this one.
    process: u64,
}

/// The watchdog, before and while it runs.
pub struct Watchdog {
    units: Vec<Supervised>,
    front: Front,
    inbox: Receiver<Message>,
}

/// Running requests are given time to finish.
struct Drain {
    until: Instant,
    idle_since: Option<Instant>,
}

impl Watchdog {
    /// A watchdog for these units, numbered from 0. `inbox` gets signals and news of units.
    pub fn new(
        units: Vec<(Box<dyn Unit>, Limits)>,
        front: Front,
        inbox: Receiver<Message>,
    ) -> Self {
        let now = Instant::now();
        let supervised = |(unit, limits)| Supervised {
            unit,
            lifecycle: Lifecycle::new(now, limits),
            child: None,
            process: 0,
        };
        Self {
            units: units.into_iter().map(supervised).collect(),
            front,
            inbox,
        }
    }

    /// Runs until a signal or a failed start ends the program. No child is left when it returns.
    ///
    /// # Errors
    /// Why a child did not come up.
    pub fn run(mut self) -> Result<(), StartError> {
        // A mistake in our code must not leave children behind.
        let result = catch_unwind(AssertUnwindSafe(|| self.supervise()));
        self.stop_children();
        result.unwrap_or_else(|_| Err(StartError::failed("the watchdog panicked")))
    }

    fn supervise(&mut self) -> Result<(), StartError> {
        let mut drain: Option<Drain> = None;
        loop {
            for id in 0..self.units.len() {
                self.apply(id, Event::Tick)?;
                if let Some(reason) = self.units[id].unit.check(Instant::now()) {
                    self.apply(id, Event::Condemned(reason))?;
                }
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
                Some(Message::News(news)) if news.process == self.units[news.unit].process => {
                    self.apply(news.unit, Event::Status(news.status))?;
                }
                Some(_) | None => {}
            }
        }
    }

    fn next_message(&self, draining: bool) -> Option<Message> {
        let times = |s: &Supervised| [s.lifecycle.next_tick(), s.unit.next_check()];
        let next = self.units.iter().flat_map(times).flatten().min();
        let step = draining.then(|| Instant::now() + DRAIN_STEP);
        match next.into_iter().chain(step).min() {
            Some(wake) => self.inbox.recv_deadline(wake).ok(),
            // The signals' thread holds a sender, so this ends with a message.
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

    /// Hands an event to a unit and does what it asks for.
    fn apply(&mut self, id: UnitId, event: Event) -> Result<(), StartError> {
        let supervised = &mut self.units[id];
        let phase_before = supervised.lifecycle.phase().clone();
        match supervised.lifecycle.on(event, Instant::now()) {
            Action::None => {}
            Action::Spawn => {
                let process = supervised.process + 1;
                let event = match supervised.unit.start(process) {
                    Ok(child) => {
                        supervised.process = process;
                        supervised.child = Some(child);
                        Event::Spawned
                    }
                    Err(reason) => Event::SpawnFailed(reason),
                };
                return self.apply(id, event);
            }
            Action::Kill => {
                if let Some(child) = &supervised.child {
                    child.signal(Signal::KILL);
                }
            }
            Action::GiveUp(reason) => {
                return Err(StartError::failed(supervised.unit.refusal(&reason)));
            }
        }
        let lifecycle = &supervised.lifecycle;
        if *lifecycle.phase() != phase_before {
            supervised.unit.publish(
                supervised.process,
                lifecycle.phase(),
                lifecycle.since(),
                lifecycle.failures(),
            );
        }
        Ok(())
    }

    /// Reaps every child that has ended.
    fn reap(&mut self) -> Result<(), StartError> {
        while let Some((pid, status)) = reap_one() {
            // Others are orphans of some child.
            if let Some((id, child)) = self.take_child(pid) {
                let supervised = &mut self.units[id];
                let ended = supervised.unit.ended(describe_end(status));
                if ended.was_useful {
                    supervised.lifecycle.proved_sound();
                }
                let exited = Event::Exited {
                    how: ended.reason,
                    output: child.last_lines(),
                };
                self.apply(id, exited)?;
            }
        }
        Ok(())
    }

    /// The child that had this process id, and kills what it left behind, which would hold its ports.
    fn take_child(&mut self, pid: Pid) -> Option<(UnitId, Child)> {
        let is_it = |s: &Supervised| s.child.as_ref().is_some_and(|child| child.pid == pid);
        let id = self.units.iter().position(is_it)?;
        let child = self.units[id].child.take()?;
        child.kill_group();
        Some((id, child))
    }

    fn stop_children(&mut self) {
        for supervised in &mut self.units {
            if let Some(child) = &supervised.child {
                supervised.unit.stop(child);
            }
        }
        if !self.children_end_within(CHILD_STOP_LIMIT) {
            let children = self.units.iter().filter_map(|s| s.child.as_ref());
            children.for_each(|child| child.signal(Signal::KILL));
            self.children_end_within(CHILD_KILL_LIMIT);
        }
    }

    fn children_end_within(&mut self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        loop {
            while let Some((pid, _)) = reap_one() {
                self.take_child(pid);
            }
            if self.units.iter().all(|s| s.child.is_none()) {
                return true;
            }
            // SIGCHLD wakes us; the step is for one that came before we waited.
            let step = until.min(Instant::now() + DRAIN_STEP);
            // The signals' thread holds a sender, so this waits.
            let _ = self.inbox.recv_deadline(step);
            if Instant::now() >= until {
                return false;
            }
        }
    }
}

fn reap_one() -> Option<(Pid, WaitStatus)> {
    // The only error is "no children".
    rustix::process::wait(WaitOptions::NOHANG).ok().flatten()
}

/// How a process ended, in words.
pub fn describe_end(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("its process exited with code {code}"),
        (_, Some(signal)) => format!("its process was ended by signal {signal}"),
        _ => "its process ended".into(),
    }
}
