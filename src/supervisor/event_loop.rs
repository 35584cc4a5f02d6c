//! The supervisor's event loop: the one thread that owns every child process and ends the program.
//!
//! It takes messages, signals and the passing of time, one after the other, and hands each to the unit or task it
//! concerns. It starts before all other threads, so no step of the start waits for a supervisor that does not run yet,
//! and a signal ends the start at any moment. Life cycles are decided in `lifecycle.rs` and carried out in
//! `supervised.rs`. (Clippy does not let a module have its parent's name, so this is not `supervisor/supervisor.rs`.)

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustix::process::Pid;
use signal_hook::consts::SIGCHLD;
use signal_hook::low_level::signal_name;

use crate::error::StartError;
use crate::supervisor::drain::{DRAIN_LIMIT, Drain, Draining};
use crate::supervisor::handle::{Inbox, Message, UnitId};
use crate::supervisor::reaper::Exit;
use crate::supervisor::supervised::{STOP_LIMIT, SupervisedUnit};
use crate::supervisor::system::{OperatingSystem, System};
use crate::supervisor::task::Task;

/// Time for killed children to be reaped at the end of the program.
const KILL_LIMIT: Duration = Duration::from_secs(1);
/// How often to look whether requests and children have ended, at the end of the program.
const STOP_STEP: Duration = Duration::from_millis(10);

/// Runs all child processes, until the program ends.
pub struct Supervisor {
    system: Box<dyn System>,
    units: BTreeMap<UnitId, SupervisedUnit>,
    tasks: BTreeMap<UnitId, Task>,
    /// What to drain at the end. Until it is here, the program is starting.
    front: Option<Box<dyn Drain>>,
    /// Present once a signal has asked the program to end.
    draining: Option<Draining>,
    /// Dropped when this stops: see [`SupervisorHandle::stopping`].
    ///
    /// [`SupervisorHandle::stopping`]: crate::supervisor::handle::SupervisorHandle::stopping
    running: Option<Sender<()>>,
}

impl Supervisor {
    /// A supervisor without units. `inbox` belongs to a [`SupervisorHandle`].
    ///
    /// [`SupervisorHandle`]: crate::supervisor::handle::SupervisorHandle
    pub fn new(inbox: Inbox) -> Self {
        let Inbox { messages, running } = inbox;
        Self::with_system(Box::new(OperatingSystem { messages }), running)
    }

    /// A supervisor with this view of the outside world.
    pub(super) fn with_system(system: Box<dyn System>, running: Sender<()>) -> Self {
        Self {
            system,
            units: BTreeMap::new(),
            tasks: BTreeMap::new(),
            front: None,
            draining: None,
            running: Some(running),
        }
    }

    /// Runs until a signal or a failed start ends the program. No child is left when it returns.
    ///
    /// # Errors
    /// Why a unit that the program depends on did not start, or why the start failed otherwise.
    pub fn run(mut self) -> Result<(), StartError> {
        // A bug of ours must not leave children behind.
        let result = catch_unwind(AssertUnwindSafe(|| self.supervise()));
        if let Some(front) = &self.front {
            front.refuse_the_rest();
        }
        self.running = None;
        self.stop_children();
        if let Some(front) = &self.front {
            front.finish();
        }
        result.unwrap_or_else(|_| Err(StartError::failed("the watchdog panicked")))
    }

    fn supervise(&mut self) -> Result<(), StartError> {
        loop {
            self.tick()?;
            if self.is_drained() {
                return Ok(());
            }
            let Some(message) = self.system.receive(self.next_tick()) else {
                continue;
            };
            if self.handle(message)?.is_break() {
                return Ok(());
            }
        }
    }

    /// Does what is due.
    fn tick(&mut self) -> Result<(), StartError> {
        let is_draining = self.draining.is_some();
        for supervised in self.units.values_mut() {
            let now = self.system.now();
            if supervised.next_tick().is_some_and(|time| time <= now) {
                supervised.tick(now, is_draining)?;
            }
        }
        Ok(())
    }

    /// When something will be due.
    fn next_tick(&self) -> Option<Instant> {
        let units = self.units.values().filter_map(SupervisedUnit::next_tick);
        let drain = (self.draining.as_ref()).map(|_| self.system.now() + STOP_STEP);
        units.chain(drain).min()
    }

    fn is_drained(&mut self) -> bool {
        let (Some(draining), Some(front)) = (&mut self.draining, &self.front) else {
            return false;
        };
        draining.is_over(front.in_flight(), self.system.now())
    }

    /// Does what a message says. Breaks when the program is to end.
    fn handle(&mut self, message: Message) -> Result<ControlFlow<()>, StartError> {
        let now = self.system.now();
        let is_draining = self.draining.is_some();
        match message {
            Message::Signal(SIGCHLD) => self.reap()?,
            Message::Signal(signal) => return Ok(self.stop_signal(signal)),
            Message::DrainAtEnd(front) => self.front = Some(front),
            // The signal may have cut the start short.
            Message::StartFailed(error) if is_draining => log::warn!("{error}"),
            Message::StartFailed(error) => return Err(error),
            Message::Report {
                unit,
                generation,
                status,
            } => {
                if let Some(supervised) = self.units.get_mut(&unit) {
                    supervised.report(generation, status, now, is_draining)?;
                }
            }
            Message::Keep {
                id,
                unit,
                limits,
                starter,
            } => {
                let supervised = SupervisedUnit::new(unit, limits, starter, now);
                self.units.insert(id, supervised);
            }
            Message::Run {
                id,
                command,
                streams,
                reply,
            } => {
                let started = self.system.start_task(command, &streams);
                self.tasks
                    .extend(Task::new(started, reply).map(|task| (id, task)));
            }
            Message::Release { ids, stopped } => {
                ids.iter().for_each(|id| self.release(*id, &stopped, now));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A signal asks the program to end: the first one gently, the second one at once.
    fn stop_signal(&mut self, signal: i32) -> ControlFlow<()> {
        if self.draining.is_some() {
            log::warn!("second signal: stopping at once");
            return ControlFlow::Break(());
        }
        let name = signal_name(signal).unwrap_or("signal");
        let Some(front) = &self.front else {
            log::info!("{name}: stopping before the start is complete");
            return ControlFlow::Break(());
        };
        log::info!(
            "{name}: stopping; running requests have up to {} s",
            DRAIN_LIMIT.as_secs()
        );
        let now = self.system.now();
        front.stop_accepting();
        self.draining = Some(Draining::begin(now));
        ControlFlow::Continue(())
    }

    /// Stops a unit or a task and forgets it when its process is gone.
    fn release(&mut self, id: UnitId, stopped: &Sender<()>, now: Instant) {
        if let Some(task) = self.tasks.get_mut(&id) {
            task.stop(stopped);
        }
        if let Some(supervised) = self.units.get_mut(&id)
            && !supervised.stop(stopped, now)
        {
            self.units.remove(&id);
        }
    }

    /// Reaps every child that has ended.
    fn reap(&mut self) -> Result<(), StartError> {
        while let Some((pid, exit)) = self.system.reap_one() {
            self.process_ended(pid, exit)?;
        }
        Ok(())
    }

    fn process_ended(&mut self, pid: Pid, exit: Exit) -> Result<(), StartError> {
        let mut tasks = self.tasks.iter();
        if let Some((&id, _)) = tasks.find(|(_, task)| task.pid() == pid) {
            self.tasks
                .remove(&id)
                .into_iter()
                .for_each(|task| task.finish(exit));
            return Ok(());
        }
        let mut units = self.units.iter_mut();
        let Some((&id, supervised)) = units.find(|(_, unit)| unit.pid() == Some(pid)) else {
            // An orphan of one of our children: there is nothing more to do.
            return Ok(());
        };
        let is_draining = self.draining.is_some();
        supervised.process_ended(exit, self.system.now(), is_draining)?;
        if supervised.is_stopping() {
            self.units.remove(&id);
        }
        Ok(())
    }

    /// Ends all children: gently, then by force.
    fn stop_children(&mut self) {
        self.units.values_mut().for_each(SupervisedUnit::ask_to_end);
        self.tasks.values().for_each(Task::kill);
        if !self.children_end_within(STOP_LIMIT) {
            self.units.values().for_each(SupervisedUnit::kill);
            self.children_end_within(KILL_LIMIT);
        }
    }

    fn children_end_within(&mut self, limit: Duration) -> bool {
        let deadline = self.system.now() + limit;
        loop {
            while let Some((pid, _)) = self.system.reap_one() {
                self.forget_process(pid);
            }
            if self.tasks.is_empty() && self.units.values().all(|unit| unit.pid().is_none()) {
                return true;
            }
            let now = self.system.now();
            if now >= deadline {
                return false;
            }
            // SIGCHLD wakes us; the step is for one that came before we waited. Nothing else matters any more.
            self.system.receive(Some(deadline.min(now + STOP_STEP)));
        }
    }

    fn forget_process(&mut self, pid: Pid) {
        self.tasks.retain(|_, task| task.pid() != pid);
        for supervised in self.units.values_mut() {
            if supervised.pid() == Some(pid) {
                supervised.forget_process();
            }
        }
    }
}

#[cfg(test)]
mod tests;
