//! One unit under supervision: its process, its life cycle, and who waits for its start or its end.
//!
//! `lifecycle.rs` decides what to do; this carries it out for one unit.

use std::mem;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustix::process::{Pid, Signal};

use crate::error::StartError;
use crate::supervisor::lifecycle::{Action, Event, Lifecycle, Limits, Phase, Status};
use crate::supervisor::reaper::Exit;
use crate::supervisor::unit::{ProcessHandle, StartFailure, Unit};

/// Time for a process to end after it was asked to; then it is killed.
pub const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Where the result of a unit's first start is reported.
pub type Starter = Sender<Result<(), StartFailure>>;

/// A unit with its process.
pub struct SupervisedUnit {
    unit: Box<dyn Unit>,
    lifecycle: Lifecycle,
    process: Option<Box<dyn ProcessHandle>>,
    /// Number of processes started so far; tells reports about an earlier process from reports about this one.
    generation: u64,
    /// Whether the last failure was a lack of resources.
    out_of_resources: bool,
    stage: Stage,
}

/// How far the unit got, as those who asked for it see it.
enum Stage {
    /// The program depends on its first start and ends if that fails.
    Required,
    /// Somebody waits for its first start.
    Awaited(Starter),
    /// It started, and is kept running.
    Started,
    /// Its first start failed. It is left alone until it is released.
    GivenUp,
    /// It is being stopped.
    Stopping {
        /// When to kill its process.
        kill_at: Option<Instant>,
        /// Dropped with the unit, so that a thread can wait until nothing is left of it.
        _stopped: Sender<()>,
    },
}

impl SupervisedUnit {
    /// A unit to be started at the next tick. Without a `starter` the program depends on its first start.
    pub fn new(
        unit: Box<dyn Unit>,
        limits: Limits,
        starter: Option<Starter>,
        now: Instant,
    ) -> Self {
        Self {
            unit,
            lifecycle: Lifecycle::new(now, limits),
            process: None,
            generation: 0,
            out_of_resources: false,
            stage: starter.map_or(Stage::Required, Stage::Awaited),
        }
    }

    /// The id of its process, if it has one.
    pub fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(|process| process.pid())
    }

    /// Whether it is being stopped for good.
    pub fn is_stopping(&self) -> bool {
        matches!(self.stage, Stage::Stopping { .. })
    }

    /// When [`SupervisedUnit::tick`] has something to do next.
    pub fn next_tick(&self) -> Option<Instant> {
        match &self.stage {
            Stage::GivenUp => None,
            Stage::Stopping { kill_at, .. } => *kill_at,
            _ => {
                let times = [self.lifecycle.next_tick(), self.unit.next_check()];
                times.into_iter().flatten().min()
            }
        }
    }

    /// Does what is due by now. `is_draining`: see [`SupervisedUnit::give_up`].
    ///
    /// # Errors
    /// Why the program must end.
    pub fn tick(&mut self, now: Instant, is_draining: bool) -> Result<(), StartError> {
        if let Stage::Stopping { kill_at, .. } = &mut self.stage {
            *kill_at = None;
            self.kill();
            return Ok(());
        }
        self.apply(Event::Tick, now, is_draining)?;
        match self.unit.check(now) {
            Some(reason) => self.apply(Event::Condemned(reason), now, is_draining),
            None => Ok(()),
        }
    }

    /// Takes a status report about the process of this generation.
    ///
    /// # Errors
    /// Why the program must end.
    pub fn report(
        &mut self,
        generation: u64,
        status: Status,
        now: Instant,
        is_draining: bool,
    ) -> Result<(), StartError> {
        if generation != self.generation || !self.is_active() {
            return Ok(());
        }
        if let Status::Failed {
            out_of_resources, ..
        } = status
        {
            self.out_of_resources = out_of_resources;
        }
        self.apply(Event::Status(status), now, is_draining)
    }

    /// Its process has ended and is reaped.
    ///
    /// # Errors
    /// Why the program must end.
    pub fn process_ended(
        &mut self,
        exit: Exit,
        now: Instant,
        is_draining: bool,
    ) -> Result<(), StartError> {
        let Some(process) = self.process.take() else {
            return Ok(());
        };
        // Processes that it left behind would hold its ports.
        process.kill_group();
        let ended = self.unit.ended(exit.to_string());
        if ended.was_useful {
            self.lifecycle.proved_sound();
        }
        if !self.is_active() {
            return Ok(());
        }
        // Only a failed start shows it; the log has it anyway.
        let output = match self.lifecycle.may_give_up() {
            true => process.last_lines(),
            false => String::new(),
        };
        self.out_of_resources = exit.was_killed() || self.unit.ran_out_of_resources(&output);
        let how = ended.reason;
        self.apply(Event::Exited { how, output }, now, is_draining)
    }

    /// Asks its process to end, and remembers to kill it if it does not. `stopped` is dropped with this unit. Returns
    /// whether there is a process to wait for.
    pub fn stop(&mut self, stopped: &Sender<()>, now: Instant) -> bool {
        self.ask_to_end();
        self.stage = Stage::Stopping {
            kill_at: Some(now + STOP_LIMIT),
            _stopped: stopped.clone(),
        };
        self.process.is_some()
    }

    /// Asks its process to end.
    pub fn ask_to_end(&mut self) {
        if let Some(process) = &self.process {
            self.unit.stop(process.as_ref());
        }
    }

    /// Kills its process.
    pub fn kill(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::KILL);
        }
    }

    /// Forgets its process, which ended while the whole program stops.
    pub fn forget_process(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill_group();
        }
    }

    /// Whether its life cycle still decides.
    fn is_active(&self) -> bool {
        !matches!(self.stage, Stage::GivenUp | Stage::Stopping { .. })
    }

    /// Hands an event to the life cycle and carries out the action.
    fn apply(&mut self, event: Event, now: Instant, is_draining: bool) -> Result<(), StartError> {
        if self.lifecycle.may_give_up() && self.unit.can_be_spared() {
            self.lifecycle.never_give_up();
        }
        let phase_before = self.lifecycle.phase().clone();
        let action = match self.lifecycle.on(event, now) {
            // What comes of starting a process is an event itself, but none that starts another.
            Action::Spawn => {
                let outcome = self.spawn();
                self.lifecycle.on(outcome, now)
            }
            action => action,
        };
        match action {
            Action::None | Action::Spawn => {}
            Action::Kill => self.kill(),
            Action::GiveUp(reason) => return self.give_up(&reason, is_draining),
        }
        let lifecycle = &self.lifecycle;
        if *lifecycle.phase() != phase_before {
            self.unit.publish(
                self.generation,
                lifecycle.phase(),
                lifecycle.since(),
                lifecycle.failures(),
            );
        }
        // If others can do its work, a failed start does not block the load that waits for it; it is tried again and again.
        let is_spared = matches!(lifecycle.phase(), Phase::Down { .. }) && !lifecycle.may_give_up();
        if *lifecycle.phase() == Phase::Ready || is_spared {
            self.started();
        }
        Ok(())
    }

    /// Starts a process.
    fn spawn(&mut self) -> Event {
        let generation = self.generation + 1;
        match self.unit.start(generation) {
            Ok(process) => {
                self.generation = generation;
                self.process = Some(process);
                Event::Spawned
            }
            Err(failure) => {
                self.out_of_resources = failure.out_of_resources;
                Event::SpawnFailed(failure.text)
            }
        }
    }

    /// Its first start is over.
    fn started(&mut self) {
        if let Stage::Awaited(starter) = mem::replace(&mut self.stage, Stage::Started) {
            // The receiver may have given up; it releases the unit then.
            let _ = starter.send(Ok(()));
        }
    }

    /// It never came up. A load that waits for it gets the reason; if none does, the program ends, unless it is ending already:
    /// then the process may have been asked to end just as we were, for example by Ctrl-C.
    fn give_up(&mut self, reason: &str, is_draining: bool) -> Result<(), StartError> {
        let text = self.unit.refusal(reason);
        match mem::replace(&mut self.stage, Stage::GivenUp) {
            Stage::Awaited(starter) => {
                let failure = StartFailure {
                    text,
                    out_of_resources: self.out_of_resources,
                };
                // The receiver may have given up; it releases the unit then.
                let _ = starter.send(Err(failure));
                Ok(())
            }
            _ if is_draining => {
                log::warn!("{}: {reason}", self.unit.name());
                Ok(())
            }
            _ => Err(StartError::failed(text)),
        }
    }
}
