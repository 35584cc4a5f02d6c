//! The one thread that owns every child process: starts, reaps, restarts and stops them, and ends the program.
//!
//! It starts before all other threads, so no step of the start waits for a watchdog that does not run yet, and a signal
//! ends the start at any moment. What is to be done is decided in `lifecycle.rs`; this is the thin shell around it. As process 1 of a
//! container all orphans become ours, so every child is reaped here, whoever started it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use signal_hook::consts::SIGCHLD;
use signal_hook::low_level::signal_name;

use crate::error::StartError;
use crate::supervisor::Drain;
use crate::supervisor::child::Child;
use crate::supervisor::handle::{Inbox, Message, NOT_FOUND, StartFailure, UnitId};
use crate::supervisor::lifecycle::{Action, Event, Lifecycle, Phase, Status};
use crate::supervisor::unit::{SpawnError, Unit};

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

struct Supervised {
    unit: Box<dyn Unit>,
    lifecycle: Lifecycle,
    child: Option<Child>,
    /// Processes started so far; tells news of an earlier one from news of this one.
    process: u64,
    /// Whether a start failed because something ran out.
    out_of_resources: bool,
    standing: Standing,
}

/// Where a unit stands with those who asked for it.
enum Standing {
    /// The program depends on its start.
    Program,
    /// Somebody waits for its start.
    Awaited(Sender<Result<(), StartFailure>>),
    /// It has started, and is kept.
    Kept,
    /// It did not start, and is left alone until it is released.
    GivenUp,
    /// It is being stopped. Dropping the sender tells who waits for that.
    Leaving {
        /// When to use force.
        kill_at: Option<Instant>,
        _done: Sender<()>,
    },
}

/// A program that runs once.
struct Errand {
    child: Child,
    reply: Sender<Result<String, StartFailure>>,
    /// Who waits for its end by force.
    leaving: Option<Sender<()>>,
}

/// The watchdog, before and while it runs. Without a front the program is still starting.
pub struct Watchdog {
    units: BTreeMap<UnitId, Supervised>,
    errands: BTreeMap<UnitId, Errand>,
    front: Option<Box<dyn Drain>>,
    inbox: Inbox,
    /// Whether a signal has ended all starting.
    is_draining: bool,
}

/// Running requests are given time to finish.
struct Draining {
    until: Instant,
    idle_since: Option<Instant>,
}

impl Watchdog {
    /// A watchdog that has nothing to look after yet. `inbox` is that of a [`Supervisor`].
    ///
    /// [`Supervisor`]: crate::supervisor::handle::Supervisor
    pub fn new(inbox: Inbox) -> Self {
        Self {
            units: BTreeMap::new(),
            errands: BTreeMap::new(),
            front: None,
            inbox,
            is_draining: false,
        }
    }

    /// Runs until a signal or a failed start ends the program. No child is left when it returns.
    ///
    /// # Errors
    /// Why a child did not come up, or the start failed otherwise.
    pub fn run(mut self) -> Result<(), StartError> {
        // A mistake in our code must not leave children behind.
        let result = catch_unwind(AssertUnwindSafe(|| self.supervise()));
        if let Some(front) = &self.front {
            front.refuse_the_rest();
        }
        self.inbox.running = None;
        self.stop_children();
        if let Some(front) = &self.front {
            front.finish();
        }
        result.unwrap_or_else(|_| Err(StartError::failed("the watchdog panicked")))
    }

    fn supervise(&mut self) -> Result<(), StartError> {
        let mut drain: Option<Draining> = None;
        loop {
            self.look_after_all()?;
            if let Some(drain) = &mut drain
                && self.is_drained(drain)
            {
                return Ok(());
            }
            match self.next_message(drain.is_some()) {
                Some(Message::Signal(SIGCHLD)) => self.reap()?,
                Some(Message::Signal(signal)) if drain.is_none() => {
                    let name = signal_name(signal).unwrap_or("signal");
                    let Some(front) = &self.front else {
                        log::info!("{name}: stopping before the start is complete");
                        return Ok(());
                    };
                    log::info!(
                        "{name}: stopping; running requests have up to {} s",
                        DRAIN_LIMIT.as_secs()
                    );
                    let until = Instant::now() + DRAIN_LIMIT;
                    front.stop_accepting();
                    self.is_draining = true;
                    drain = Some(Draining {
                        until,
                        idle_since: None,
                    });
                }
                Some(Message::Signal(_)) => {
                    log::warn!("second signal: stopping at once");
                    return Ok(());
                }
                Some(message) => self.take(message)?,
                None => {}
            }
        }
    }

    /// Does what is due.
    fn look_after_all(&mut self) -> Result<(), StartError> {
        let now = Instant::now();
        let due: Vec<UnitId> = self
            .units
            .iter()
            .filter(|(_, supervised)| supervised.next_time().is_some_and(|time| time <= now))
            .map(|(&id, _)| id)
            .collect();
        for id in due {
            let supervised = self.units.get_mut(&id).expect("it was there");
            if let Standing::Leaving { kill_at, .. } = &mut supervised.standing {
                *kill_at = None;
                supervised.kill();
                continue;
            }
            self.apply(id, Event::Tick)?;
            let supervised = self.units.get_mut(&id).expect("it was there");
            if let Some(reason) = supervised.unit.check(now) {
                self.apply(id, Event::Condemned(reason))?;
            }
        }
        Ok(())
    }

    /// Does what a message says, other than a signal.
    fn take(&mut self, message: Message) -> Result<(), StartError> {
        match message {
            Message::Signal(_) => {}
            Message::Serve(front) => self.front = Some(front),
            // It may have been the signal that cut it short.
            Message::StartFailed(error) if self.is_draining => log::warn!("{error}"),
            Message::StartFailed(error) => return Err(error),
            Message::News {
                unit,
                process,
                status,
            } => {
                let is_current = |s: &Supervised| s.process == process && s.is_active();
                let supervised = self.units.get_mut(&unit);
                if let Some(supervised) = supervised.filter(|s| is_current(s)) {
                    if let Status::Failed {
                        out_of_resources, ..
                    } = status
                    {
                        supervised.out_of_resources = out_of_resources;
                    }
                    self.apply(unit, Event::Status(status))?;
                }
            }
            Message::Keep {
                id,
                unit,
                limits,
                starter,
            } => {
                let supervised = Supervised {
                    unit,
                    lifecycle: Lifecycle::new(Instant::now(), limits),
                    child: None,
                    process: 0,
                    out_of_resources: false,
                    standing: starter.map_or(Standing::Program, Standing::Awaited),
                };
                self.units.insert(id, supervised);
            }
            Message::Run {
                id,
                command,
                streams,
                reply,
            } => match Child::start(command, &streams, &[]) {
                Ok(child) => {
                    let errand = Errand {
                        child,
                        reply,
                        leaving: None,
                    };
                    self.errands.insert(id, errand);
                }
                Err(e) => {
                    let text = match e.kind() {
                        ErrorKind::NotFound => NOT_FOUND.to_owned(),
                        _ => e.to_string(),
                    };
                    let error = SpawnError::new(&e, text);
                    // Who gave up waiting needs no answer.
                    let _ = reply.send(Err(error.into()));
                }
            },
            Message::Release { ids, done } => ids.iter().for_each(|id| self.release(*id, &done)),
        }
        Ok(())
    }

    fn release(&mut self, id: UnitId, done: &Sender<()>) {
        if let Some(errand) = self.errands.get_mut(&id) {
            errand.child.signal(Signal::KILL);
            errand.leaving = Some(done.clone());
        }
        let Some(supervised) = self.units.get_mut(&id) else {
            return;
        };
        match &supervised.child {
            Some(child) => {
                supervised.unit.stop(child);
                supervised.standing = Standing::Leaving {
                    kill_at: Some(Instant::now() + CHILD_STOP_LIMIT),
                    _done: done.clone(),
                };
            }
            None => {
                self.units.remove(&id);
            }
        }
    }

    fn next_message(&self, draining: bool) -> Option<Message> {
        let next = self.units.values().filter_map(Supervised::next_time).min();
        let step = draining.then(|| Instant::now() + DRAIN_STEP);
        match next.into_iter().chain(step).min() {
            Some(wake) => self.inbox.messages.recv_deadline(wake).ok(),
            // The signals' thread holds a sender, so this ends with a message.
            None => self.inbox.messages.recv().ok(),
        }
    }

    fn is_drained(&self, drain: &mut Draining) -> bool {
        let now = Instant::now();
        let running = self.front.as_ref().map_or(0, |front| front.in_flight());
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
        let Some(supervised) = self.units.get_mut(&id) else {
            return Ok(());
        };
        if supervised.lifecycle.may_give_up() && supervised.unit.can_be_spared() {
            supervised.lifecycle.never_give_up();
        }
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
                    Err(error) => {
                        supervised.out_of_resources = error.out_of_resources;
                        Event::SpawnFailed(error.text)
                    }
                };
                return self.apply(id, event);
            }
            Action::Kill => supervised.kill(),
            Action::GiveUp(reason)
                if self.is_draining && !matches!(supervised.standing, Standing::Awaited(_)) =>
            {
                // It was asked to end just as we were, by Ctrl-C for one.
                log::warn!("{}: {reason}", supervised.unit.name());
                supervised.standing = Standing::GivenUp;
                return Ok(());
            }
            Action::GiveUp(reason) => return supervised.give_up(&reason),
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
        // One that can be spared is not waited for when it fails; it is started again and again.
        let is_spared = matches!(lifecycle.phase(), Phase::Down { .. }) && !lifecycle.may_give_up();
        if *lifecycle.phase() == Phase::Ready || is_spared {
            supervised.started();
        }
        Ok(())
    }

    /// Reaps every child that has ended.
    fn reap(&mut self) -> Result<(), StartError> {
        while let Some((pid, status)) = reap_one() {
            self.ended(pid, status)?;
        }
        Ok(())
    }

    /// A child has ended; others than ours are orphans of some child.
    fn ended(&mut self, pid: Pid, status: WaitStatus) -> Result<(), StartError> {
        let has_it = |errand: &Errand| errand.child.pid == pid;
        if let Some((&id, _)) = self.errands.iter().find(|(_, errand)| has_it(errand)) {
            let errand = self.errands.remove(&id).expect("it was found");
            errand.end(status);
            return Ok(());
        }
        let has_it = |s: &Supervised| s.child.as_ref().is_some_and(|child| child.pid == pid);
        let Some((&id, supervised)) = self.units.iter_mut().find(|(_, s)| has_it(s)) else {
            return Ok(());
        };
        let child = supervised.child.take().expect("it was found by it");
        // What it left behind would hold its ports.
        child.kill_group();
        let ended = supervised.unit.ended(describe_end(status));
        if ended.was_useful {
            supervised.lifecycle.proved_sound();
        }
        if matches!(supervised.standing, Standing::Leaving { .. }) {
            self.units.remove(&id);
            return Ok(());
        }
        if !supervised.is_active() {
            return Ok(());
        }
        // Only a failed start shows it; the log has it anyway.
        let output = match supervised.lifecycle.may_give_up() {
            true => child.last_lines(),
            false => String::new(),
        };
        // The kernel kills so when memory is short.
        supervised.out_of_resources = status.terminating_signal() == Some(Signal::KILL.as_raw())
            || supervised.unit.ran_out_of_resources(&output);
        let how = ended.reason;
        self.apply(id, Event::Exited { how, output })
    }

    fn stop_children(&mut self) {
        for supervised in self.units.values_mut() {
            if let Some(child) = &supervised.child {
                supervised.unit.stop(child);
            }
        }
        let errands = self.errands.values();
        errands.for_each(|errand| errand.child.signal(Signal::KILL));
        if !self.children_end_within(CHILD_STOP_LIMIT) {
            self.units.values().for_each(Supervised::kill);
            self.children_end_within(CHILD_KILL_LIMIT);
        }
    }

    fn children_end_within(&mut self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        loop {
            while let Some((pid, _)) = reap_one() {
                self.forget(pid);
            }
            if self.errands.is_empty() && self.units.values().all(|s| s.child.is_none()) {
                return true;
            }
            // SIGCHLD wakes us; the step is for one that came before we waited.
            let step = until.min(Instant::now() + DRAIN_STEP);
            // The signals' thread holds a sender, so this waits.
            let _ = self.inbox.messages.recv_deadline(step);
            if Instant::now() >= until {
                return false;
            }
        }
    }

    /// A child has ended while all are being stopped.
    fn forget(&mut self, pid: Pid) {
        self.errands.retain(|_, errand| errand.child.pid != pid);
        for supervised in self.units.values_mut() {
            if let Some(child) = supervised.child.take_if(|child| child.pid == pid) {
                child.kill_group();
            }
        }
    }
}

impl Supervised {
    /// Whether its life goes on as its life cycle says.
    fn is_active(&self) -> bool {
        !matches!(self.standing, Standing::GivenUp | Standing::Leaving { .. })
    }

    /// When to look at it next.
    fn next_time(&self) -> Option<Instant> {
        match &self.standing {
            Standing::GivenUp => None,
            Standing::Leaving { kill_at, .. } => *kill_at,
            _ => {
                let times = [self.lifecycle.next_tick(), self.unit.next_check()];
                times.into_iter().flatten().min()
            }
        }
    }

    fn kill(&self) {
        if let Some(child) = &self.child {
            child.signal(Signal::KILL);
        }
    }

    /// It can serve.
    fn started(&mut self) {
        if let Standing::Awaited(starter) = &self.standing {
            // Who gave up waiting releases it.
            let _ = starter.send(Ok(()));
        }
        self.standing = Standing::Kept;
    }

    /// It never came up: the program ends, or who waits for it is told.
    fn give_up(&mut self, reason: &str) -> Result<(), StartError> {
        let text = self.unit.refusal(reason);
        match std::mem::replace(&mut self.standing, Standing::GivenUp) {
            Standing::Awaited(starter) => {
                let failure = StartFailure {
                    text,
                    out_of_resources: self.out_of_resources,
                };
                // Who gave up waiting releases it.
                let _ = starter.send(Err(failure));
                Ok(())
            }
            _ => Err(StartError::failed(text)),
        }
    }
}

impl Errand {
    /// Tells who waits for it.
    fn end(self, status: WaitStatus) {
        self.child.kill_group();
        let end = match status.exit_status() {
            Some(0) => Ok(self.child.last_lines()),
            _ => Err(StartFailure {
                text: format!(
                    "{}; its last output:\n{}",
                    describe_end(status),
                    self.child.last_lines()
                ),
                out_of_resources: status.terminating_signal() == Some(Signal::KILL.as_raw()),
            }),
        };
        // Who gave up waiting needs no answer.
        let _ = self.reply.send(end);
    }
}

impl From<SpawnError> for StartFailure {
    fn from(error: SpawnError) -> Self {
        Self {
            text: error.text,
            out_of_resources: error.out_of_resources,
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
