//! The supervisor's event loop: the one thread that owns every child process and ends the program.
//!
//! It handles messages, signals and time limits one after the other, each for the unit or task that it concerns. It
//! starts before all other threads, so no step of startup waits for a supervisor that does not run yet, and a signal
//! ends startup at any moment. `lifecycle.rs` decides what happens to a unit, and `supervised.rs` does it. (Clippy
//! rejects a module that has its parent's name, so this file is not called `supervisor.rs`.)

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

/// Time to reap killed children at the end of the program.
const KILL_LIMIT: Duration = Duration::from_secs(1);
/// How often to check, at the end of the program, whether requests and children have ended.
const STOP_STEP: Duration = Duration::from_millis(10);

/// The supervisor, which runs all child processes until the program ends.
pub struct Supervisor {
    system: Box<dyn System>,
    units: BTreeMap<UnitId, SupervisedUnit>,
    tasks: BTreeMap<UnitId, Task>,
    /// The server to drain at the end; `None` while the program is starting.
    server: Option<Box<dyn Drain>>,
    /// Set when a signal has asked the program to end.
    draining: Option<Draining>,
    /// Dropped when the supervisor stops: see [`SupervisorHandle::stopping`].
    ///
    /// [`SupervisorHandle::stopping`]: crate::supervisor::handle::SupervisorHandle::stopping
    running: Option<Sender<()>>,
}

impl Supervisor {
    /// A supervisor without units; `inbox` receives what its [`SupervisorHandle`] sends.
    ///
    /// [`SupervisorHandle`]: crate::supervisor::handle::SupervisorHandle
    pub fn new(inbox: Inbox) -> Self {
        let Inbox { messages, running } = inbox;
        Self::with_system(Box::new(OperatingSystem { messages }), running)
    }

    /// A supervisor on this operating system, which tests replace.
    pub(super) fn with_system(system: Box<dyn System>, running: Sender<()>) -> Self {
        Self {
            system,
            units: BTreeMap::new(),
            tasks: BTreeMap::new(),
            server: None,
            draining: None,
            running: Some(running),
        }
    }

    /// Runs until a signal or a failed startup ends the program. No child is left when this returns.
    ///
    /// # Errors
    /// Why startup failed, for example because a unit that the program depends on did not start.
    pub fn run(mut self) -> Result<(), StartError> {
        // A bug in this program must not leave children behind.
        let result = catch_unwind(AssertUnwindSafe(|| self.supervise()));
        if let Some(server) = &self.server {
            server.refuse_the_rest();
        }
        self.running = None;
        self.stop_children();
        if let Some(server) = &self.server {
            server.finish();
        }
        result.unwrap_or_else(|_| Err(StartError::failed("the thread watchdog panicked")))
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

    /// Does what is due by now.
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

    /// When [`Supervisor::tick`] is due next.
    fn next_tick(&self) -> Option<Instant> {
        let units = self.units.values().filter_map(SupervisedUnit::next_tick);
        let drain = (self.draining.as_ref()).map(|_| self.system.now() + STOP_STEP);
        units.chain(drain).min()
    }

    fn is_drained(&mut self) -> bool {
        let (Some(draining), Some(server)) = (&mut self.draining, &self.server) else {
            return false;
        };
        draining.is_over(server.in_flight(), self.system.now())
    }

    /// Handles a message. Breaks when the program must end.
    fn handle(&mut self, message: Message) -> Result<ControlFlow<()>, StartError> {
        let now = self.system.now();
        let is_draining = self.draining.is_some();
        match message {
            Message::Signal(SIGCHLD) => self.reap()?,
            Message::Signal(signal) => return Ok(self.stop_signal(signal)),
            Message::DrainAtEnd(server) => self.server = Some(server),
            // The signal that began the draining may have made startup fail.
            Message::StartFailed(error) if is_draining => log::warn!("{error}"),
            Message::StartFailed(error) => return Err(error),
            Message::Report {
                unit,
                generation,
                readiness,
            } => {
                if let Some(supervised) = self.units.get_mut(&unit) {
                    supervised.report(generation, readiness, now, is_draining)?;
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

    /// Handles a signal that ends the program: the first one after draining, the second one at once.
    fn stop_signal(&mut self, signal: i32) -> ControlFlow<()> {
        if self.draining.is_some() {
            log::warn!("second signal: stopping at once");
            return ControlFlow::Break(());
        }
        let name = signal_name(signal).unwrap_or("signal");
        let Some(server) = &self.server else {
            log::info!("{name}: stopping before startup is complete");
            return ControlFlow::Break(());
        };
        log::info!(
            "{name}: stopping; running requests have up to {} s to finish",
            DRAIN_LIMIT.as_secs()
        );
        let now = self.system.now();
        server.stop_accepting();
        self.draining = Some(Draining::begin(now));
        ControlFlow::Continue(())
    }

    /// Stops a unit or a task, and forgets it when its process is gone.
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
            // An orphan that one of our children left behind: reaping it was enough.
            return Ok(());
        };
        let is_draining = self.draining.is_some();
        supervised.process_ended(exit, self.system.now(), is_draining)?;
        if supervised.is_stopping() {
            self.units.remove(&id);
        }
        Ok(())
    }

    /// Asks all children to end, and kills those that do not.
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
            // SIGCHLD wakes us; the step covers one that arrived before this wait. Other messages no longer matter.
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
