//! One supervised unit: its process, its life cycle, and the threads that wait for its start or its end.
//!
//! `lifecycle.rs` decides what to do; this module does it for one unit.

use std::mem;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustix::process::{Pid, Signal};

use crate::error::StartError;
use crate::supervisor::lifecycle::{Action, Event, Lifecycle, Limits, Phase};
use crate::supervisor::readiness::Readiness;
use crate::supervisor::reaper::Exit;
use crate::supervisor::unit::{ProcessHandle, StartFailure, Unit};

/// Time for a process to end after we asked it to; then we kill it.
pub const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Receives the result of a unit's first start.
pub type Starter = Sender<Result<(), StartFailure>>;

/// A unit, its life cycle and its current process.
pub struct SupervisedUnit {
    unit: Box<dyn Unit>,
    lifecycle: Lifecycle,
    process: Option<Box<dyn ProcessHandle>>,
    /// The number of processes started so far, by which we recognize reports about earlier processes.
    generation: u64,
    /// Whether a lack of resources caused the last failure.
    out_of_resources: bool,
    stage: Stage,
}

/// How far the unit has got, and what depends on its first start.
enum Stage {
    /// The program ends if the first start fails.
    Required,
    /// A thread waits for the result of the first start.
    Awaited(Starter),
    /// The first start is over; the unit is kept running.
    Started,
    /// The first start failed. Nothing happens until the unit is released.
    GivenUp,
    /// The unit is being stopped.
    Stopping {
        /// When to kill the process; `None` if that has been done.
        kill_at: Option<Instant>,
        /// Dropped together with the unit, so that another thread can wait for its end.
        _stopped: Sender<()>,
    },
}

impl SupervisedUnit {
    /// A unit to be started at the next tick. `starter` gets the result of the first start; without it, the program
    /// ends if that start fails.
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

    /// The id of the current process, if there is one.
    pub fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(|process| process.pid())
    }

    /// Whether the unit is being stopped for good.
    pub fn is_stopping(&self) -> bool {
        matches!(self.stage, Stage::Stopping { .. })
    }

    /// When [`SupervisedUnit::tick`] is due next.
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

    /// Does what is due by now. If the program is ending (`is_draining`), a failed first start is no error.
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
            Some(reason) => self.apply(Event::KillRequested(reason), now, is_draining),
            None => Ok(()),
        }
    }

    /// Takes a report about the process of this generation.
    ///
    /// # Errors
    /// Why the program must end.
    pub fn report(
        &mut self,
        generation: u64,
        readiness: Readiness,
        now: Instant,
        is_draining: bool,
    ) -> Result<(), StartError> {
        if generation != self.generation || !self.is_active() {
            return Ok(());
        }
        if let Readiness::Failed {
            out_of_resources, ..
        } = readiness
        {
            self.out_of_resources = out_of_resources;
        }
        self.apply(Event::Reported(readiness), now, is_draining)
    }

    /// Takes the end of the process, which has been reaped.
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
        // Processes that it left behind would keep its ports in use.
        process.kill_group();
        let ended = self.unit.ended(exit.to_string());
        if ended.was_useful {
            self.lifecycle.reset_failures();
        }
        if !self.is_active() {
            return Ok(());
        }
        // Only the message about a failed first start quotes the output; the log has all of it.
        let output = match self.lifecycle.may_give_up() {
            true => process.last_lines(),
            false => String::new(),
        };
        self.out_of_resources = exit.was_killed() || self.unit.ran_out_of_resources(&output);
        let how = ended.reason;
        self.apply(Event::Exited { how, output }, now, is_draining)
    }

    /// Asks the process to end; a later tick kills it if it does not. The clone of `stopped` is dropped with this unit.
    /// Returns whether there is a process to wait for.
    pub fn stop(&mut self, stopped: &Sender<()>, now: Instant) -> bool {
        self.ask_to_end();
        self.stage = Stage::Stopping {
            kill_at: Some(now + STOP_LIMIT),
            _stopped: stopped.clone(),
        };
        self.process.is_some()
    }

    /// Asks the process to end.
    pub fn ask_to_end(&mut self) {
        if let Some(process) = &self.process {
            self.unit.stop(process.as_ref());
        }
    }

    /// Kills the process.
    pub fn kill(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::KILL);
        }
    }

    /// Forgets the process, which ended while the program stops.
    pub fn forget_process(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill_group();
        }
    }

    /// Whether the life cycle still decides what happens.
    fn is_active(&self) -> bool {
        !matches!(self.stage, Stage::GivenUp | Stage::Stopping { .. })
    }

    /// Hands an event to the life cycle and carries out the resulting action.
    fn apply(&mut self, event: Event, now: Instant, is_draining: bool) -> Result<(), StartError> {
        if self.lifecycle.may_give_up() && self.unit.is_redundant() {
            self.lifecycle.never_give_up();
        }
        let phase_before = self.lifecycle.phase().clone();
        let action = match self.lifecycle.on(event, now) {
            // The outcome of a start is itself an event; it never leads to another start.
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
        // If other units can do the same work, a failed start does not hold up the load that waits for it; we retry.
        let is_retried =
            matches!(lifecycle.phase(), Phase::Down { .. }) && !lifecycle.may_give_up();
        if *lifecycle.phase() == Phase::Ready || is_retried {
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

    /// The first start is over: reports that to the thread that waits for it.
    fn started(&mut self) {
        if let Stage::Awaited(starter) = mem::replace(&mut self.stage, Stage::Started) {
            // If the receiver is gone, its owner releases the unit.
            let _ = starter.send(Ok(()));
        }
    }

    /// The first start failed. The load that waits for it gets the reason. If no load does, the program ends, unless it
    /// is draining already: then the signal that we got, for example from Ctrl-C, may have reached the process too.
    fn give_up(&mut self, reason: &str, is_draining: bool) -> Result<(), StartError> {
        let text = self.unit.refusal(reason);
        match mem::replace(&mut self.stage, Stage::GivenUp) {
            Stage::Awaited(starter) => {
                let failure = StartFailure {
                    text,
                    out_of_resources: self.out_of_resources,
                };
                // If the receiver is gone, its owner releases the unit.
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
