//! Breaks the processes of one server. The seed decides which fault comes when; which process it hits depends on what
//! runs at that moment.
//!
//! A fault waits while it would be one too many for a request under way. The server sends a request to TFS at most five
//! times and starts it on a Python worker at most five times, within time limits. A request beyond these limits fails as
//! documented, and would count as lost. In multi-model mode such failures count as documented, so no fault waits.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;

use crate::chance::{seconds, weighted};
use crate::faults::{Act, Excuse, FAULTS, Fault, Victims};
use crate::load::Stop;
use crate::process::{Identity, identity};
use crate::support::processes::Process;
use crate::target::{Kind, Target, WORKERS};

/// During one request. The request itself may make TFS hang up once: that makes four of the five attempts.
const MOST_TFS_KILLS: usize = 3;
const MOST_WORKER_KILLS: usize = 3;
const MOST_STOPPED: Duration = Duration::from_secs(15);
/// How long a fault waits for processes that are being restarted.
const PROCESS_LIMIT: Duration = Duration::from_secs(15);
const STEP: Duration = Duration::from_millis(20);

/// Random choices for one fault.
#[derive(Clone, Copy)]
struct Draw {
    pause: Duration,
    /// How long a stop lasts.
    lasting: Duration,
    /// Which process, as a fraction of their number.
    pick: f64,
}

/// A stopped process that continues, or is killed, at this time.
struct Due {
    at: Instant,
    process: Process,
    kill: Option<&'static Fault>,
}

pub struct Injector {
    target: Arc<Target>,
    chance: Rng,
    stop: Stop,
    due: Vec<Due>,
    /// A process that is stopped again while it is stopped continues at the later time.
    stopped_until: HashMap<Identity, Instant>,
    tfs_kills: Vec<Instant>,
    worker_kills: Vec<Instant>,
    stops: Vec<(Instant, Duration)>,
    pub killed_instances: HashSet<Identity>,
    pub killed_workers: HashSet<Identity>,
}

impl Injector {
    pub fn new(target: Arc<Target>, chance: Rng, stop: Stop) -> Self {
        Self {
            target,
            chance,
            stop,
            due: Vec::new(),
            stopped_until: HashMap::new(),
            tfs_kills: Vec::new(),
            worker_kills: Vec::new(),
            stops: Vec::new(),
            killed_instances: HashSet::new(),
            killed_workers: HashSet::new(),
        }
    }

    /// Breaks things until the run ends, then continues all stopped processes.
    pub fn run(mut self) -> Self {
        let kind = self.target.kind;
        let here = FAULTS.iter().filter(|fault| fault.on.contains(&kind));
        let faults: Vec<_> = here.map(|fault| (f64::from(fault.weight), fault)).collect();
        while !self.stop.is_set() {
            let fault = faults[weighted(&mut self.chance, &faults)].1;
            let draw = self.draw(fault);
            if self.wait_for(draw.pause) && self.inject(fault, draw) {
                self.target.tally().fault(fault.name);
            }
        }
        for due in std::mem::take(&mut self.due) {
            self.finish(due);
        }
        self
    }

    fn draw(&mut self, fault: &Fault) -> Draw {
        let chance = &mut self.chance;
        Draw {
            pause: seconds(chance, 0.05, 1.2),
            lasting: match fault.victims {
                Victims::Server => seconds(chance, 0.05, 1.0),
                // Over 2 s an instance counts as unresponsive. Time limits of calls and requests are 30 s and 60 s.
                _ => seconds(chance, 0.1, 4.0),
            },
            pick: chance.f64(),
        }
    }

    /// Returns whether the fault happened.
    fn inject(&mut self, fault: &'static Fault, draw: Draw) -> bool {
        if !self.wait_until(|injector| injector.is_bearable(fault, draw.lasting)) {
            return false;
        }
        let before = match fault.act {
            Act::KillTwice => self.candidates(fault),
            _ => Vec::new(),
        };
        let mut happened = false;
        for process in self.choose(fault, draw, &[]) {
            happened |= match fault.act {
                Act::Kill(signal) => self.kill(&process, signal, fault),
                Act::KillTwice => {
                    self.kill(&process, Signal::KILL, fault);
                    let successors = self.choose(fault, draw, &before);
                    successors
                        .iter()
                        .any(|process| self.kill(process, Signal::KILL, fault))
                }
                Act::Stop => self.stop_process(process, draw.lasting, None),
                Act::StopThenKill => {
                    // No other fault comes before the kill, so it stays within the limits.
                    let happens = self.stop_process(process, draw.lasting, Some(fault));
                    self.wait_for(draw.lasting);
                    happens
                }
            };
        }
        happened
    }

    /// Whether every request under way stays within its limits.
    fn is_bearable(&self, fault: &Fault, lasting: Duration) -> bool {
        if self.target.kind == Kind::MultiModel {
            return true;
        }
        let since = self.target.tally().oldest_under_way(Instant::now());
        let kills = match fault.act {
            Act::Stop => 0,
            Act::KillTwice => 2,
            Act::Kill(_) | Act::StopThenKill => fault.victims.count(),
        };
        let recent = |times: &[Instant]| times.iter().filter(|at| **at >= since).count();
        let is_stop = matches!(fault.act, Act::Stop | Act::StopThenKill);
        let stops = self
            .stops
            .iter()
            .filter(|(at, lasting)| *at + *lasting >= since);
        let stopped: Duration = stops.map(|(_, lasting)| *lasting).sum();
        (!is_stop || stopped + lasting <= MOST_STOPPED)
            && match fault.victims {
                Victims::Tfs(_) => recent(&self.tfs_kills) + kills <= MOST_TFS_KILLS,
                Victims::Workers(_) => recent(&self.worker_kills) + kills <= MOST_WORKER_KILLS,
                Victims::WorkerChild | Victims::Server => true,
            }
    }

    /// Processes that a fault may hit now.
    fn candidates(&self, fault: &Fault) -> Vec<Process> {
        let mut candidates = match fault.victims {
            Victims::Tfs(_) => self.target.instances(),
            Victims::Workers(_) => self.target.workers(),
            Victims::WorkerChild => self.target.helpers(),
            Victims::Server => vec![self.target.itself.clone()],
        };
        let is_killed = |process: &Process| {
            let killed = [&self.killed_instances, &self.killed_workers];
            killed
                .iter()
                .any(|killed| killed.contains(&identity(process)))
        };
        candidates.retain(|process| !is_killed(process));
        if let Victims::Workers(count) = fault.victims {
            let has_worked = |worker: &Process| self.target.has_worked(worker);
            // When all workers end twice in a row without an answer, requests get 503: so one that has not answered
            // yet ends only while another has.
            match fault.act {
                Act::Kill(_) if count < WORKERS && candidates.iter().any(has_worked) => {}
                _ => candidates.retain(has_worked),
            }
        }
        candidates
    }

    /// As many candidates as the fault needs, none of them in `others`; nothing when the run ends or time is up.
    fn choose(&mut self, fault: &Fault, draw: Draw, others: &[Process]) -> Vec<Process> {
        let (count, limit) = (fault.victims.count(), Instant::now() + PROCESS_LIMIT);
        let mut found = Vec::new();
        let in_time = self.wait_until(|injector| {
            found = injector.candidates(fault);
            found.retain(|process| {
                others
                    .iter()
                    .all(|other| identity(other) != identity(process))
            });
            found.len() >= count || Instant::now() > limit
        });
        if !in_time || found.len() < count {
            return Vec::new();
        }
        let first = (draw.pick * found.len() as f64) as usize;
        found.rotate_left(first);
        found.truncate(count);
        found
    }

    /// Returns whether the process was still there.
    fn kill(&mut self, process: &Process, signal: Signal, fault: &Fault) -> bool {
        let now = Instant::now();
        self.target.touch(process, now);
        // Noted before the kill: its 500 may arrive at once.
        if fault.excuses == Excuse::OneCall {
            self.target.tally().excuse_one_call(now);
        }
        let was_there = self.target.signal(process, signal);
        if !was_there {
            self.target.tally().withdraw_excuse(now);
            return false;
        }
        if signal == Signal::TERM {
            // A stopped process gets SIGTERM only when it continues.
            self.target.signal(process, Signal::CONT);
        }
        match fault.victims {
            Victims::Tfs(_) => {
                self.tfs_kills.push(now);
                self.killed_instances.insert(identity(process));
            }
            Victims::Workers(_) => {
                self.worker_kills.push(now);
                self.killed_workers.insert(identity(process));
            }
            Victims::WorkerChild | Victims::Server => {}
        }
        true
    }

    fn stop_process(
        &mut self,
        process: Process,
        lasting: Duration,
        kill: Option<&'static Fault>,
    ) -> bool {
        let now = Instant::now();
        let at = now + lasting;
        self.target.touch(&process, at);
        self.stops.push((now, lasting));
        let was_there = self.target.signal(&process, Signal::STOP);
        let until = self.stopped_until.entry(identity(&process)).or_insert(at);
        *until = at.max(*until);
        self.due.push(Due { at, process, kill });
        was_there
    }

    fn finish(&mut self, due: Due) {
        if let Some(fault) = due.kill {
            self.kill(&due.process, Signal::KILL, fault);
        } else if self.stop.is_set()
            || Instant::now() >= self.stopped_until[&identity(&due.process)]
        {
            self.target.signal(&due.process, Signal::CONT);
        }
    }

    fn wait_for(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        self.wait_until(|_| Instant::now() >= until)
    }

    /// Waits, and does what falls due while waiting; `false` when the run ends.
    fn wait_until(&mut self, mut is_so: impl FnMut(&mut Self) -> bool) -> bool {
        while !self.stop.is_set() {
            let now = Instant::now();
            while let Some(next) = self.due.iter().position(|due| due.at <= now) {
                let due = self.due.remove(next);
                self.finish(due);
            }
            if is_so(self) {
                return true;
            }
            self.stop.wait(STEP);
        }
        false
    }
}
