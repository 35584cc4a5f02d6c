//! Breaks sagemaker-tfs on purpose under load and checks every answer; run it through scripts/chaos.sh, which builds.
//!
//! Three servers with fake model servers that echo: one with Python handlers, one without, one in multi-model mode.
//! Clients of all kinds ask them all the time, hostile ones attack them, and processes are killed and stopped at random.
//! Exit code 0 when nothing was lost, wrong or let through, no process is left, and memory, descriptors and threads did
//! not grow. docs/RELIABILITY.md says what counts.
//!
//! `faults.rs` has the table of faults, `requests.rs` and `attacks.rs` what is sent, `expected.rs` and `tally.rs` the
//! judgment of answers, `report.rs` that of the whole run.

#![forbid(unsafe_code)]
// Threads of this program are its own, and no other program knows the processes that it starts.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

// The integration tests use the rest.
#[allow(dead_code, unused_imports)]
#[path = "../support/mod.rs"]
mod support;

mod attacks;
mod chance;
mod clients;
mod expected;
mod faults;
mod hostile;
mod injector;
mod load;
mod multi_model;
mod process;
mod report;
mod requests;
mod run;
mod tally;
mod target;
#[cfg(test)]
mod tests;
mod wire;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lexopt::prelude::{Long, Value};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use load::Stop;
use run::{Results, Run};

const RELIABILITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/RELIABILITY.md");
/// The table stands between these lines.
const START: &str = "<!-- chaos:start -->\n";
const END: &str = "<!-- chaos:end -->";
/// Added to the time of the faults. A run that takes longer is stuck.
const LIMIT: Duration = Duration::from_secs(420);
const DAY_MINUTES: f64 = 24.0 * 60.0;

struct Options {
    minutes: f64,
    seed: u64,
    write: bool,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(problem) => {
            say(&format!("{problem}; see ./scripts/chaos.sh --help"));
            return ExitCode::from(2);
        }
    };
    if options.write && with_table("").is_none() {
        say(&format!(
            "--write needs {RELIABILITY} with the lines {START}and {END}"
        ));
        return ExitCode::FAILURE;
    }
    say(&format!("seed {}", options.seed));
    let interrupted = Stop::default();
    interrupt_on_signals(interrupted.clone());
    let scratch = tempfile::Builder::new().prefix("chaos-").tempdir();
    let mut scratch = scratch.expect("a temporary directory");

    let (sender, results) = mpsc::channel();
    let (seed, minutes) = (options.seed, options.minutes);
    let (path, stop) = (scratch.path().to_owned(), interrupted.clone());
    thread::spawn(move || {
        let results = Run::start(&path, seed, &stop).run(seed, minutes);
        // Nobody waits for the results of a stuck run.
        let _ = sender.send(results);
    });
    let limit = Duration::from_secs_f64(minutes * 60.0) + LIMIT;
    let is_well = match results.recv_timeout(limit) {
        Ok(results) => finish(&results, &options, &interrupted),
        Err(problem) => {
            say(&match problem {
                mpsc::RecvTimeoutError::Timeout => {
                    format!("FAILED: longer than {} s", limit.as_secs())
                }
                mpsc::RecvTimeoutError::Disconnected => "FAILED: see above".to_owned(),
            });
            // Servers and their children have this path in their environment. Twice: a server may just have started one.
            support::processes::kill_users_of(scratch.path());
            support::processes::kill_users_of(scratch.path());
            false
        }
    };
    if !is_well {
        scratch.disable_cleanup(true);
        say(&format!("the logs are in {}", scratch.path().display()));
    }
    match (interrupted.is_set(), is_well) {
        (true, _) => ExitCode::from(130),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    }
}

/// Shows the results; returns whether all was well.
fn finish(results: &Results, options: &Options, interrupted: &Stop) -> bool {
    println!("{}", results.table);
    for problem in &results.problems {
        say(&format!("NOT WELL: {problem}"));
    }
    if interrupted.is_set() {
        say("interrupted");
    } else if options.write && !results.table.is_empty() {
        let text = with_table(&results.table).expect("it was there at the start");
        fs::write(RELIABILITY, text).expect("it can be written");
        say(&format!("wrote {RELIABILITY}"));
    }
    results.problems.is_empty()
}

/// The document with this table in place of its own.
fn with_table(table: &str) -> Option<String> {
    let document = fs::read_to_string(Path::new(RELIABILITY)).ok()?;
    let (before, rest) = document.split_once(START)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{START}{table}\n{END}{after}"))
}

/// The first signal ends the load; then the run ends as usual and shows what there is.
fn interrupt_on_signals(interrupted: Stop) {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).expect("signals can be caught");
    thread::spawn(move || {
        for _ in &mut signals {
            interrupted.set();
        }
    });
}

fn options() -> Result<Options, lexopt::Error> {
    let mut options = Options {
        minutes: 2.0,
        seed: fastrand::u64(..1_000_000),
        write: false,
    };
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("seed") => options.seed = lexopt::ValueExt::parse(&arguments.value()?)?,
            Long("write") => options.write = true,
            Value(minutes) => options.minutes = lexopt::ValueExt::parse(&minutes)?,
            other => return Err(other.unexpected()),
        }
    }
    if !(options.minutes > 0.0 && options.minutes <= DAY_MINUTES) {
        return Err("the time must be a number of minutes up to a day".into());
    }
    Ok(options)
}

/// Writes a line for the user to standard error.
pub fn say(text: &str) {
    eprintln!("chaos: {text}");
}
