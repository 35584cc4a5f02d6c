//! One run: load without faults, a rest, load with faults, a rest, and the end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle, ScopedJoinHandle};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::clients::{Client, SLOW_SECONDS, ping_on};
use crate::hostile::{ATTACKERS, attack_on, crowd_on};
use crate::injector::Injector;
use crate::load::{Load, Stop};
use crate::multi_model;
use crate::report::{Outcome, table};
use crate::say;
use crate::target::{Footprint, Kind, Target};
use crate::wire::ANSWER_LIMIT;

const KINDS: [Kind; 3] = [Kind::Handlers, Kind::Plain, Kind::MultiModel];
/// Clients of each server. Their requests fit into its slots, so the server must not turn any away.
const CLIENTS: usize = 16;
/// Load without faults, before the first measurement of memory and descriptors.
const WARM_UP: Duration = Duration::from_secs(15);
const PROGRESS: Duration = Duration::from_secs(10);

/// A kind of client: name, number for each server, what it does.
type Role = (&'static str, usize, fn(&Target, usize, Rng, &Stop));
const ROLES: [Role; 4] = [
    ("client", CLIENTS, |target, number, chance, stop| {
        Client::new(number, chance, target).run(stop);
    }),
    ("pinger", 1, |target, _, _, stop| ping_on(target, stop)),
    ("attacker", ATTACKERS, attack_on),
    ("crowd", 1, |target, _, chance, stop| {
        crowd_on(target, chance, stop)
    }),
];

pub struct Run<'a> {
    targets: Vec<Arc<Target>>,
    chance: Rng,
    interrupted: &'a Stop,
}

/// What came of a run.
pub struct Results {
    pub table: String,
    pub problems: Vec<String>,
}

impl<'a> Run<'a> {
    pub fn start(scratch: &Path, seed: u64, interrupted: &'a Stop) -> Self {
        let targets = KINDS.map(|kind| Arc::new(Target::start(kind, scratch)));
        for target in &targets {
            assert!(
                target.is_complete_in_time(),
                "the server {} is not ready",
                target.name()
            );
        }
        Self {
            targets: targets.into(),
            chance: Rng::with_seed(seed),
            interrupted,
        }
    }

    pub fn run(mut self, seed: u64, minutes: f64) -> Results {
        say(&format!("warming up for {} s", WARM_UP.as_secs()));
        let load = self.start_load();
        self.interrupted.wait(WARM_UP);
        let mut problems = end(load);
        problems.extend(self.failures());
        if !problems.is_empty() {
            problems.push("this was before any fault, so the run ends here".into());
            return Results {
                table: String::new(),
                problems,
            };
        }
        let before = at_once(&self.targets, |target| {
            // The quiet time that follows is no time without service.
            target.tally().service.last = None;
            if target.kind == Kind::MultiModel {
                multi_model::unload_all(&target.server);
            }
            target.rest(self.interrupted).expect("the server runs")
        });

        say("breaking things");
        let load = self.start_load();
        let begun = Instant::now();
        let injectors = self.break_things(Duration::from_secs_f64(minutes * 60.0));
        let lasting = begun.elapsed();
        problems.extend(end(load));

        say("the load has ended; waiting until all has been quiet for a while");
        let ended = self.targets.iter().zip(before).zip(injectors);
        let outcomes = at_once(ended, |((target, before), injector)| {
            look_after(target, before, &injector)
        });
        for outcome in &outcomes {
            for failure in &outcome.tally.failures {
                say(&format!("{}: {failure}", outcome.kind.name()));
            }
            problems.extend(outcome.problems());
        }
        Results {
            table: table(&outcomes, lasting, seed, minutes),
            problems,
        }
    }

    /// What has failed so far at each server.
    fn failures(&self) -> Vec<String> {
        let of = |target: &Arc<Target>| {
            let failures = target.tally().failures.clone();
            let named = move |failure| format!("{}: {failure}", target.name());
            failures.into_iter().map(named).collect::<Vec<_>>()
        };
        self.targets.iter().flat_map(of).collect()
    }

    fn start_load(&mut self) -> Load {
        let mut load = Load::default();
        // Each mark has one owner.
        let mut number = 0;
        for target in &self.targets {
            for (role, count, run) in ROLES {
                for _ in 0..count {
                    number += 1;
                    let (target, chance) = (Arc::clone(target), self.chance.fork());
                    let name = format!("{role} {number}, {}", target.name());
                    load.spawn(name, move |stop| run(&target, number, chance, stop));
                }
            }
        }
        load
    }

    fn break_things(&mut self, lasting: Duration) -> Vec<Injector> {
        let (begun, stop) = (Instant::now(), Stop::default());
        let injectors: Vec<_> = (self.targets.iter())
            .map(|target| {
                let chance = self.chance.fork();
                let injector = Injector::new(Arc::clone(target), chance, stop.clone());
                thread::spawn(|| injector.run())
            })
            .collect();
        while begun.elapsed() < lasting {
            let left = lasting.saturating_sub(begun.elapsed());
            if self.interrupted.wait(left.min(PROGRESS)) {
                break;
            }
            self.show_progress(begun.elapsed());
        }
        stop.set();
        let end = |thread: JoinHandle<_>| thread.join().expect("the injector does not panic");
        injectors.into_iter().map(end).collect()
    }

    fn show_progress(&self, elapsed: Duration) {
        let shown = self.targets.iter().map(|target| {
            let tally = target.tally();
            let now = target.footprint().map_or("ended".to_owned(), |now| {
                let megabytes = now.memory / 1_000_000;
                format!(
                    "{megabytes} MB, {} descriptors, {} threads",
                    now.descriptors, now.threads
                )
            });
            format!(
                "{}: {} requests, {} faults, {} attacks, {} wrong, {} lost, {} let through, {now}",
                target.name(),
                tally.requests,
                tally.faults.values().sum::<usize>(),
                tally.attacks.values().sum::<usize>(),
                tally.wrong,
                tally.lost,
                tally.let_through,
            )
        });
        say(&format!(
            "{} s; {}",
            elapsed.as_secs(),
            shown.collect::<Vec<_>>().join("; ")
        ));
    }
}

/// Looks at a server after load and faults, and ends it.
fn look_after(target: &Target, before: Footprint, injector: &Injector) -> Outcome {
    let is_complete = target.is_complete_in_time();
    let after = catch_unwind(AssertUnwindSafe(|| {
        if target.kind == Kind::MultiModel {
            multi_model::look_after(&target.server, before.descriptors);
        }
        target.rest(&Stop::default())
    }));
    // Everything that was started is in the log by now.
    let starts = target.starts();
    let (exit_code, left) = target.end();
    Outcome {
        kind: target.kind,
        tally: std::mem::take(&mut *target.tally()),
        before,
        after: after.ok().flatten(),
        is_complete,
        starts,
        killed: (
            injector.killed_instances.len(),
            injector.killed_workers.len(),
        ),
        workers_wanted: target.workers_wanted(),
        run_twice: target.run_twice(),
        exit_code,
        left,
    }
}

/// Runs this for all items at the same time: most of the time goes into waiting.
fn at_once<I: Send, O: Send>(
    items: impl IntoIterator<Item = I>,
    run: impl Fn(I) -> O + Sync,
) -> Vec<O> {
    thread::scope(|scope| {
        let start = |item| scope.spawn(|| run(item));
        let threads: Vec<_> = items.into_iter().map(start).collect();
        let end = |thread: ScopedJoinHandle<O>| thread.join().expect("the panic is shown above");
        threads.into_iter().map(end).collect()
    })
}

fn end(load: Load) -> Vec<String> {
    load.end(ANSWER_LIMIT + Duration::from_secs_f64(2.0 * SLOW_SECONDS))
}
