//! The table at the end, and the judgment of the whole run.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use crate::hostile::{CROWD, CROWD_HEAD_BYTES};
use crate::support::processes::Process;
use crate::tally::{Counts, Tally};
use crate::target::{BODY_MEMORY, Footprint, INSTANCES, Kind};

const MB: u64 = 1_000_000;
/// Room for kept connections to TFS and a worker being replaced; a leak at every fault would be hundreds.
const MOST_MORE_DESCRIPTORS: usize = 16;
const MOST_MORE_THREADS: usize = 16;
/// Kept connections to TFS, more than a run has requests at once, with a buffer each way.
const KEPT_CONNECTIONS: u64 = 64 * 2 * 8 * 1024;
/// What each arena of glibc keeps: 8 MiB at the top, and as much in pieces below memory in use. Each CPU has one arena
/// (src/allocator.rs).
const KEPT_IN_AN_ARENA: u64 = 16 << 20;

/// What is known of one server at the end.
pub struct Outcome {
    pub kind: Kind,
    pub tally: Tally,
    pub before: Footprint,
    /// `None`: it could not be measured.
    pub after: Option<Footprint>,
    pub is_complete: bool,
    /// Numbers of TFS processes and of workers that were started, and killed.
    pub starts: (usize, usize),
    pub killed: (usize, usize),
    pub workers_wanted: usize,
    pub run_twice: Vec<String>,
    pub exit_code: Option<i32>,
    pub left: Vec<Process>,
}

/// What the server may keep after a rest: on two CPUs 1 + 32 + 6 MB. A leak of 2 KB a request exceeds this in five minutes.
pub fn most_more_memory() -> u64 {
    let cpus = thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    KEPT_CONNECTIONS + cpus.clamp(2, 8) * KEPT_IN_AN_ARENA + (CROWD * CROWD_HEAD_BYTES) as u64
}

/// Under load: the limit of all bodies, and what accepted requests grow to beyond it.
pub fn most_more_memory_under_load() -> u64 {
    BODY_MEMORY * 5 / 4 + most_more_memory()
}

pub fn is_flat(before: &Footprint, after: &Footprint) -> bool {
    after.descriptors <= before.descriptors + MOST_MORE_DESCRIPTORS
        && after.threads <= before.threads + MOST_MORE_THREADS
        && after.memory <= before.memory + most_more_memory()
}

impl Outcome {
    pub fn problems(&self) -> Vec<String> {
        let (tally, mut found) = (&self.tally, Vec::new());
        let mut check = |is_well: bool, text: String| {
            if !is_well {
                found.push(format!("{}: {text}", self.kind.name()));
            }
        };
        check(tally.lost == 0, format!("{} requests lost", tally.lost));
        check(tally.wrong == 0, format!("{} answers wrong", tally.wrong));
        check(tally.right > 0, "no request got its right answer".into());
        check(!tally.faults.is_empty(), "nothing was broken".into());
        check(!tally.attacks.is_empty(), "nobody attacked".into());
        check(!tally.pings.is_empty(), "/ping was not asked".into());
        let some: Vec<_> = self.run_twice.iter().take(10).collect();
        check(
            some.is_empty(),
            format!("output_handler ran twice for {some:?}"),
        );
        let let_through = tally.let_through;
        check(
            let_through == 0,
            format!("{let_through} attacks came to what must not be"),
        );
        check(
            self.is_complete,
            "not everything came back after the faults".into(),
        );
        let (starts, killed) = (self.starts, self.killed);
        // In multi-model mode loads and unloads start and end processes as well.
        let is_even = self.kind == Kind::MultiModel
            || starts == (INSTANCES + killed.0, self.workers_wanted + killed.1);
        check(
            is_even,
            format!("processes started {starts:?}, but killed {killed:?} (TFS, workers)"),
        );
        check(
            self.exit_code == Some(0),
            format!("exit code {:?} after SIGTERM", self.exit_code),
        );
        check(
            self.left.is_empty(),
            format!("processes left after SIGTERM: {:?}", self.left),
        );
        let Some(after) = &self.after else {
            check(false, "the end was not measured".into());
            return found;
        };
        let before = &self.before;
        check(
            is_flat(before, after),
            format!("not flat: {before:?} at the start, {after:?} at the end"),
        );
        let most = before.memory + most_more_memory_under_load();
        let text = format!(
            "took {} MB under load; the bound is {} MB",
            after.peak / MB,
            most / MB
        );
        check(after.peak <= most, text);
        found
    }
}

pub fn table(outcomes: &[Outcome], lasting: Duration, seed: u64, minutes: f64) -> String {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut row = |name: &str, figure: &dyn Fn(&Outcome) -> String| {
        rows.push((name.to_owned(), outcomes.iter().map(figure).collect()));
    };
    row("", &|outcome| outcome.kind.name().into());
    row("---", &|_| "---".into());
    row("requests", &|o| grouped(o.tally.requests));
    row("right responses", &|o| grouped(o.tally.right));
    row("documented errors", &|o| grouped(o.tally.documented));
    row("client hung up on purpose", &|o| grouped(o.tally.hung_up));
    row("ended with its worker (500)", &|o| {
        grouped(o.tally.ended_with_worker)
    });
    row("**wrong responses**", &|o| grouped(o.tally.wrong));
    row("of them another request's", &|o| grouped(o.tally.mixed_up));
    row("**lost requests**", &|o| grouped(o.tally.lost));
    row("attacks of hostile clients", &|o| {
        grouped(o.tally.attacks.values().sum())
    });
    row("**of them let through**", &|o| grouped(o.tally.let_through));
    row("`output_handler` run twice", &|o| {
        o.run_twice.len().to_string()
    });
    let gap = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    row("longest time without a successful response", &|o| {
        gap(o.tally.service.longest)
    });
    row("longest time that /ping was not 200", &|o| {
        gap(o.tally.ping_outage)
    });
    row("TFS processes started (killed)", &|o| {
        format!("{} ({})", o.starts.0, o.killed.0)
    });
    row("Python workers started (killed)", &|o| {
        format!("{} ({})", o.starts.1, o.killed.1)
    });
    let change = |outcome: &Outcome, of: fn(&Footprint) -> u64| {
        let after = outcome
            .after
            .as_ref()
            .map_or("?".to_owned(), |after| of(after).to_string());
        format!("{} → {after}", of(&outcome.before))
    };
    row("memory of the server, start → end (most)", &|outcome| {
        let most = outcome.after.as_ref().map_or(0, |after| after.peak / MB);
        format!("{} MB ({most} MB)", change(outcome, |f| f.memory / MB))
    });
    row("descriptors, start → end", &|o| {
        change(o, |f| f.descriptors as u64)
    });
    row("threads, start → end", &|o| {
        change(o, |f| f.threads as u64)
    });
    row("processes left after SIGTERM", &|o| {
        o.left.len().to_string()
    });
    type Of = fn(&Tally) -> &Counts;
    let counts: [(&str, Of); 7] = [
        ("fault", |t| &t.faults),
        ("status", |t| &t.statuses),
        ("/ping", |t| &t.pings),
        ("kind of request", |t| &t.kinds),
        ("way of sending", |t| &t.manners),
        ("hostile", |t| &t.attacks),
        ("outcome of an attack", |t| &t.attack_outcomes),
    ];
    for (what, of) in counts {
        let keys: BTreeSet<_> = outcomes.iter().flat_map(|o| of(&o.tally).keys()).collect();
        for key in keys {
            let figure = |o: &Outcome| grouped(of(&o.tally).get(key).copied().unwrap_or_default());
            row(&format!("{what}: {key}"), &figure);
        }
    }
    let line =
        |(name, figures): (String, Vec<String>)| format!("| {name} | {} |\n", figures.join(" | "));
    let table: String = rows.into_iter().map(line).collect();
    let lasted = lasting.as_secs_f64() / 60.0;
    let machine = machine();
    format!(
        "{table}\n{lasted:.1} minutes of faults, seed {seed}, `./scripts/chaos.sh --seed {seed} {minutes}`. {machine}"
    )
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = thread::available_parallelism().map_or(1, |cpus| cpus.get());
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model
        .map(|(_, model)| format!(" ({model})"))
        .unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease");
    format!("Machine: {cpus} cores{model}, Linux {}.", release.trim())
}

/// 12,345
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().collect();
    String::from_utf8_lossy(&groups.join(&b","[..])).into_owned()
}
