//! A simulated world for tests of the event loop: a clock that jumps from event to event, processes that follow a
//! script, and a server with requests. Nothing waits, and every event happens at an exact time.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::process::{Pid, Signal};
use signal_hook::consts::SIGCHLD;

use crate::error::StartError;
use crate::supervisor::child::Streams;
use crate::supervisor::drain::Drain;
use crate::supervisor::event_loop::Supervisor;
use crate::supervisor::handle::{Message, SupervisorHandle, UnitId};
use crate::supervisor::lifecycle::{Limits, Phase};
use crate::supervisor::readiness::Readiness;
use crate::supervisor::reaper::Exit;
use crate::supervisor::system::System;
use crate::supervisor::unit::{ProcessHandle, StartFailure, Unit};

/// Something that happens at a planned time.
type Action = Box<dyn FnOnce(&World) + Send>;

/// The world: its clock, its processes, and a journal of what the supervisor did.
#[derive(Clone)]
pub struct World {
    pub handle: SupervisorHandle,
    messages: Receiver<Message>,
    state: Arc<Mutex<State>>,
}

struct State {
    begin: Instant,
    now: Instant,
    /// By time, then in the order of planning.
    plan: BTreeMap<(Instant, usize), Action>,
    planned: usize,
    journal: Vec<String>,
    last_pid: i32,
    /// The ids of processes that run.
    running: Vec<Pid>,
    /// Processes that have ended and have not been reaped.
    exits: VecDeque<(Pid, Exit)>,
    /// Processes that have ended and whose process groups have not been killed.
    leftovers: Vec<Pid>,
    programs: BTreeMap<&'static str, Program>,
    in_flight: usize,
}

/// What a program does when a task runs it.
#[derive(Clone, Copy)]
pub struct Program {
    pub runs_for: Option<Duration>,
    pub exit: Exit,
    pub output: &'static str,
}

/// What happens when a unit is started.
pub enum Start {
    /// Its process is ready at once.
    Ready,
    /// Its process reports nothing.
    Silent,
    /// Its process does not start, for this reason.
    Fails(StartFailure),
    /// Its process ends at once.
    Exits(Exit),
    /// The code panics.
    Panics,
}

/// The exit by SIGKILL, which reaches the whole process group.
pub const KILLED: Exit = Exit::Signal(Signal::KILL.as_raw());

pub fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl World {
    /// A world and a supervisor in it.
    pub fn new() -> (Self, Supervisor) {
        let (handle, inbox) = SupervisorHandle::new();
        let now = Instant::now();
        let state = State {
            begin: now,
            now,
            plan: BTreeMap::new(),
            planned: 0,
            journal: Vec::new(),
            last_pid: 1000,
            running: Vec::new(),
            exits: VecDeque::new(),
            leftovers: Vec::new(),
            programs: BTreeMap::new(),
            in_flight: 0,
        };
        let world = Self {
            handle,
            messages: inbox.messages,
            state: Arc::new(Mutex::new(state)),
        };
        let supervisor = Supervisor::with_system(Box::new(world.clone()), inbox.running);
        (world, supervisor)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no fake panics under the lock")
    }

    /// Plans an action for this time, in milliseconds since the beginning.
    pub fn at(&self, time: u64, action: impl FnOnce(&World) + Send + 'static) {
        let mut state = self.state();
        let key = (state.begin + ms(time), state.planned);
        state.planned += 1;
        state.plan.insert(key, Box::new(action));
    }

    /// Milliseconds since the beginning.
    pub fn time(&self) -> u64 {
        let state = self.state();
        let elapsed = state.now.duration_since(state.begin);
        elapsed.as_millis().try_into().expect("tests are short")
    }

    /// Writes a line with the time into the journal.
    pub fn note(&self, text: &str) {
        let line = format!("{} {text}", self.time());
        self.state().journal.push(line);
    }

    /// The journal since the last call.
    pub fn journal(&self) -> Vec<String> {
        std::mem::take(&mut self.state().journal)
    }

    /// Adds a unit that the program does not depend on. The receiver gets the result of its first start.
    pub fn keep(&self, unit: FakeUnit) -> (UnitId, Receiver<Result<(), StartFailure>>) {
        let (starter, started) = bounded(1);
        (self.add(unit, Some(starter)), started)
    }

    /// Adds a unit that the program depends on.
    pub fn require(&self, unit: FakeUnit) -> UnitId {
        self.add(unit, None)
    }

    fn add(&self, unit: FakeUnit, starter: Option<Sender<Result<(), StartFailure>>>) -> UnitId {
        let id = self.handle.new_id();
        let (world, limits) = (self.clone(), unit.limits.clone());
        let unit = Box::new(UnitInWorld { id, unit, world });
        match starter {
            Some(starter) => self.handle.keep_for(id, unit, limits, starter),
            None => self.handle.keep(id, unit, limits),
        }
        id
    }

    /// Adds a program for tasks.
    pub fn add_program(&self, name: &'static str, program: Program) {
        self.state().programs.insert(name, program);
    }

    /// Opens the server, with this many requests in flight.
    pub fn open_server(&self, in_flight: usize) {
        self.set_in_flight(in_flight);
        self.handle.drain_at_end(Box::new(self.clone()));
    }

    pub fn set_in_flight(&self, in_flight: usize) {
        self.state().in_flight = in_flight;
    }

    fn start_process(&self) -> Pid {
        let mut state = self.state();
        state.last_pid += 1;
        let pid = Pid::from_raw(state.last_pid).expect("it is not 0");
        state.running.push(pid);
        pid
    }

    /// The ids of the processes that run.
    pub fn running(&self) -> Vec<Pid> {
        self.state().running.clone()
    }

    /// Ends a process, unless it has ended already.
    pub fn end_process(&self, pid: Pid, exit: Exit) {
        let mut state = self.state();
        let before = state.running.len();
        state.running.retain(|&running| running != pid);
        if state.running.len() < before {
            state.exits.push_back((pid, exit));
            if exit != KILLED {
                state.leftovers.push(pid);
            }
            self.handle.signal(SIGCHLD);
        }
    }

    /// Ends a process that we did not start.
    pub fn end_orphan(&self) {
        let pid = self.start_process();
        self.end_process(pid, KILLED);
    }
}

impl System for World {
    fn now(&self) -> Instant {
        self.state().now
    }

    fn receive(&self, deadline: Option<Instant>) -> Option<Message> {
        loop {
            if let Ok(message) = self.messages.try_recv() {
                return Some(message);
            }
            let mut state = self.state();
            let next = state.plan.first_key_value().map(|(&key, _)| key);
            match (next, deadline) {
                (Some(key), _) if deadline.is_none_or(|deadline| key.0 <= deadline) => {
                    let action = state.plan.remove(&key).expect("it is the first");
                    state.now = state.now.max(key.0);
                    drop(state);
                    action(self);
                }
                (_, Some(deadline)) => {
                    state.now = state.now.max(deadline);
                    return None;
                }
                (_, None) => {
                    let journal = state.journal.join("\n");
                    drop(state);
                    panic!("nothing more is going to happen:\n{journal}");
                }
            }
        }
    }

    fn reap_one(&self) -> Option<(Pid, Exit)> {
        self.state().exits.pop_front()
    }

    fn start_task(&self, command: Command, _: &Streams) -> io::Result<Box<dyn ProcessHandle>> {
        let name = command.get_program().to_string_lossy().into_owned();
        let program = self.state().programs.get(name.as_str()).copied();
        let program = program.ok_or(ErrorKind::NotFound)?;
        self.note(&format!("{name}: start"));
        let pid = self.start_process();
        if let Some(duration) = program.runs_for {
            let end = self.time() + u64::try_from(duration.as_millis()).expect("tests are short");
            self.at(end, move |world| world.end_process(pid, program.exit));
        }
        Ok(Box::new(FakeProcess {
            world: self.clone(),
            name,
            pid,
            ignores_term: false,
            output: program.output,
        }))
    }
}

impl Drain for World {
    fn stop_accepting(&self) {
        self.note("server: stop accepting");
    }

    fn in_flight(&self) -> usize {
        self.state().in_flight
    }

    fn refuse_the_rest(&self) {
        self.note("server: refuse the rest");
    }

    fn finish(&self) {
        self.note("server: finish");
    }
}

/// A unit that follows a script.
pub struct FakeUnit {
    name: &'static str,
    starts: VecDeque<Start>,
    limits: Limits,
    ignores_term: bool,
    is_redundant: bool,
    /// When its check finds a reason to kill the process, in milliseconds since the beginning.
    kill_at: Option<u64>,
    output: &'static str,
}

impl FakeUnit {
    /// A unit with these starts; all later starts are `Ready`.
    pub fn new(name: &'static str, starts: impl IntoIterator<Item = Start>) -> Self {
        Self {
            name,
            starts: starts.into_iter().collect(),
            limits: Limits::default(),
            ignores_term: false,
            is_redundant: false,
            kill_at: None,
            output: "",
        }
    }

    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    pub fn ignores_term(self) -> Self {
        Self {
            ignores_term: true,
            ..self
        }
    }

    pub fn redundant(self) -> Self {
        Self {
            is_redundant: true,
            ..self
        }
    }

    pub fn kill_at(self, time: u64) -> Self {
        Self {
            kill_at: Some(time),
            ..self
        }
    }

    pub fn output(self, output: &'static str) -> Self {
        Self { output, ..self }
    }
}

/// A unit that was added to the world.
struct UnitInWorld {
    id: UnitId,
    unit: FakeUnit,
    world: World,
}

impl UnitInWorld {
    fn note(&self, text: &str) {
        self.world.note(&format!("{}: {text}", self.unit.name));
    }
}

impl Unit for UnitInWorld {
    fn name(&self) -> String {
        self.unit.name.into()
    }

    fn start(&mut self, generation: u64) -> Result<Box<dyn ProcessHandle>, StartFailure> {
        self.note(&format!("start {generation}"));
        let start = self.unit.starts.pop_front().unwrap_or(Start::Ready);
        let pid = match start {
            Start::Fails(failure) => return Err(failure),
            Start::Panics => panic!("a bug"),
            Start::Ready | Start::Silent | Start::Exits(_) => self.world.start_process(),
        };
        match start {
            Start::Ready => self
                .world
                .handle
                .report(self.id, generation, Readiness::Ready),
            Start::Exits(exit) => self.world.end_process(pid, exit),
            _ => {}
        }
        Ok(Box::new(FakeProcess {
            world: self.world.clone(),
            name: self.unit.name.into(),
            pid,
            ignores_term: self.unit.ignores_term,
            output: self.unit.output,
        }))
    }

    fn publish(&mut self, _: u64, phase: &Phase, _: Instant, failures: u32) {
        self.note(&format!("{phase}, {failures} failures"));
    }

    fn is_redundant(&self) -> bool {
        self.unit.is_redundant
    }

    fn next_check(&self) -> Option<Instant> {
        let begin = self.world.state().begin;
        self.unit.kill_at.map(|time| begin + ms(time))
    }

    fn check(&mut self, now: Instant) -> Option<String> {
        self.next_check().filter(|&time| time <= now)?;
        self.unit.kill_at = None;
        Some("stuck".into())
    }

    fn ran_out_of_resources(&self, output: &str) -> bool {
        output.contains("no memory")
    }

    fn refusal(&self, reason: &str) -> String {
        format!("{} did not start: {reason}", self.unit.name)
    }
}

/// A process that ends on SIGTERM, or only on SIGKILL.
struct FakeProcess {
    world: World,
    name: String,
    pid: Pid,
    ignores_term: bool,
    output: &'static str,
}

impl ProcessHandle for FakeProcess {
    fn pid(&self) -> Pid {
        self.pid
    }

    fn signal(&self, signal: Signal) {
        let what = match signal {
            Signal::TERM => "TERM",
            Signal::KILL => "KILL",
            other => panic!("{other:?} is never sent"),
        };
        self.world.note(&format!("{}: {what}", self.name));
        if signal == Signal::KILL || !self.ignores_term {
            let exit = Exit::Signal(signal.as_raw());
            self.world.end_process(self.pid, exit);
        }
    }

    fn kill_group(&self) {
        let mut state = self.world.state();
        state.leftovers.retain(|&pid| pid != self.pid);
    }

    fn last_lines(&self) -> String {
        self.output.into()
    }
}

/// Runs the supervisor. Returns its result and the journal.
pub fn run(world: &World, supervisor: Supervisor) -> (Result<(), StartError>, Vec<String>) {
    let end = supervisor.run();
    assert_eq!(world.running(), [], "no process is left");
    let leftovers = world.state().leftovers.clone();
    assert_eq!(leftovers, [], "no process group is left");
    (end, world.journal())
}
