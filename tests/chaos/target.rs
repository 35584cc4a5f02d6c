//! A server under test: its start, its processes, its footprint, its end.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::load::Stop;
use crate::multi_model;
use crate::process::{Identity, age, identity, program, send};
use crate::requests::MODEL;
use crate::support::processes::{self, Process};
use crate::support::{Server, Setup};
use crate::tally::{Tally, clock};
use crate::wire::{AT_ONCE, NoAnswer, Wire};

pub const INSTANCES: usize = 2;
pub const WORKERS: usize = 2;
/// What a small model takes to load.
const LOADING_MS: u32 = 400;
/// A process without faults for this time must serve: the longest pause before a restart is 10 s.
const LEFT_ALONE: Duration = Duration::from_secs(20);
/// How long everything may take to be ready after the last fault.
const RECOVERY: Duration = Duration::from_secs(60);
/// Time without load before memory, descriptors and threads are measured. The server keeps connections to TFS, and closes
/// those that were idle for 15 s when it next takes one: hence a small request each second.
const REST: Duration = Duration::from_secs(20);
/// The limit for all bodies in flight. Clients need a part of it, hostile clients and growing bodies the rest.
pub const BODY_MEMORY: u64 = 256 << 20;
/// The model server dies of JSON nested deeper than this, as TFS does of some 18,000 levels.
const FATAL_LEVELS: u32 = 10_000;
/// The server gives its running requests some time before it stops.
const END: Duration = Duration::from_secs(30);
/// Processes that the server killed last take a moment to be gone.
const DYING: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One model with a pair of handlers.
    Handlers,
    /// One model without handlers.
    Plain,
    MultiModel,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Handlers => "with handlers",
            Self::Plain => "without handlers",
            Self::MultiModel => "multi-model mode",
        }
    }
}

/// What a server uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    pub memory: u64,
    pub descriptors: usize,
    pub threads: usize,
    /// The most memory since the start.
    pub peak: u64,
}

pub struct Target {
    pub kind: Kind,
    pub server: Server,
    pub log: PathBuf,
    /// The server's own process.
    pub itself: Process,
    tally: Mutex<Tally>,
    /// A file for each worker with the requests whose `output_handler` began.
    notes: PathBuf,
    /// Every signal that the injector sent, to compare with the server's log.
    signals: Mutex<File>,
    /// When each process last suffered a fault.
    touched: Mutex<HashMap<Identity, Instant>>,
}

impl Target {
    pub fn start(kind: Kind, scratch: &Path) -> Self {
        let file = |what: &str| scratch.join(format!("{what}-{}", kind.name().replace(' ', "-")));
        let (log, notes) = (file("server.log"), file("output-handler-calls"));
        fs::create_dir(&notes).expect("the directory is ours");
        let setup = match kind {
            Kind::MultiModel => Setup::multi_model(multi_model::MODELS as u16),
            _ => Setup::new()
                .models(&[&format!("{MODEL}/1")])
                .instances(INSTANCES as u16)
                .var("FAKE_TFS_START_DELAY_MS", LOADING_MS),
        };
        let setup = match kind {
            Kind::Handlers => setup
                .file(
                    "model/code/inference.py",
                    include_str!("handlers/inference.py"),
                )
                .var("SAGEMAKER_GUNICORN_WORKERS", WORKERS),
            _ => setup,
        };
        // In a session of its own, so that Ctrl-C ends the load and not the server.
        let run = format!("exec \"$0\" \"$@\" >'{}' 2>&1", log.display());
        let server = setup
            .wrapper(&["setsid", "sh", "-c", &run])
            // Answers that could not be sent are in the log.
            .var("SAGEMAKER_TFS_NGINX_LOGLEVEL", "warn")
            .var("SAGEMAKER_TFS_MAX_BODY_MEMORY_MB", BODY_MEMORY >> 20)
            .var("FAKE_TFS_POST_BODIES_ONLY", 1)
            .var("FAKE_TFS_MAX_DEPTH", FATAL_LEVELS)
            .var("FAKE_TFS_ANSWER", "echo")
            .var("FAKE_TFS_RECORD_REQUESTS", 0)
            .var("CHAOS_NOTES", notes.display())
            .start();
        if kind == Kind::MultiModel {
            multi_model::make_models(&server);
            // What is made once and stays.
            server.assert_loads(&multi_model::name(0));
            server.assert_unloads(&multi_model::name(0));
        }
        let signals = File::create(file("signals.log")).expect("the directory is ours");
        Self {
            kind,
            log,
            notes,
            itself: processes::look(server.pid()).expect("it serves"),
            server,
            tally: Mutex::default(),
            signals: Mutex::new(signals),
            touched: Mutex::default(),
        }
    }

    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn workers_wanted(&self) -> usize {
        if self.kind == Kind::Handlers {
            WORKERS
        } else {
            0
        }
    }

    /// Waits until every process runs and /ping answers 200; `false` when that takes too long.
    pub fn is_complete_in_time(&self) -> bool {
        let until = Instant::now() + RECOVERY;
        while Instant::now() < until {
            let is_complete = self.kind == Kind::MultiModel
                || (self.instances().len() == INSTANCES
                    && self.workers().len() == self.workers_wanted());
            if is_complete && matches!(self.small_request("/ping"), Ok(200)) {
                return true;
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    }

    pub fn instances(&self) -> Vec<Process> {
        self.children("fake_model_server")
    }

    pub fn workers(&self) -> Vec<Process> {
        self.children("sagemaker-tfs-python")
    }

    /// The children of workers.
    pub fn helpers(&self) -> Vec<Process> {
        let workers = self.workers();
        let mut helpers = processes::all();
        helpers.retain(|process| workers.iter().any(|worker| worker.pid == process.parent));
        helpers
    }

    /// A child that was just forked still runs the server's program and does not count.
    fn children(&self, name: &str) -> Vec<Process> {
        let mut children = processes::children(self.server.pid());
        children.retain(|process| program(process).as_deref() == Some(name));
        children
    }

    /// Notes that a process suffers a fault until then.
    pub fn touch(&self, process: &Process, until: Instant) {
        self.touched().insert(identity(process), until);
    }

    fn touched(&self) -> MutexGuard<'_, HashMap<Identity, Instant>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the process was still there.
    pub fn signal(&self, process: &Process, signal: Signal) -> bool {
        let was_there = send(process, signal);
        let note = format!(
            "{} {signal:?} to {}, which was there: {was_there}\n",
            clock(),
            process.pid
        );
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        signals
            .write_all(note.as_bytes())
            .expect("the log can be written");
        was_there
    }

    /// Whether a worker has answered calls: `output_handler` only begins after `input_handler`.
    pub fn has_worked(&self, worker: &Process) -> bool {
        let notes = fs::metadata(self.notes.join(worker.pid.to_string()));
        self.kind == Kind::MultiModel || notes.is_ok_and(|notes| notes.len() > 0)
    }

    /// Why /ping must answer 200 and not 502 with this text, if it must.
    pub fn must_serve(&self, text: &str) -> Option<String> {
        if self.kind == Kind::MultiModel {
            return Some(format!("502 {text:?} in multi-model mode"));
        }
        if text.contains("unresponsive") {
            return None; // a process that did not respond in time, as it may where the machine is busy
        }
        let left_alone = |process: &Process| {
            let touched = self.touched().get(&identity(process)).copied();
            let is_untouched = touched.is_none_or(|at| Instant::now() > at + LEFT_ALONE);
            is_untouched && age(process) >= LEFT_ALONE
        };
        let instances = self.instances().into_iter().find(left_alone)?;
        let worker = self.workers().into_iter().find(left_alone);
        let serves = self.workers_wanted() == 0 || worker.is_some();
        serves.then(|| {
            format!("502 {text:?} though these were left alone: {instances:?}, {worker:?}")
        })
    }

    /// `None` when the server has ended.
    pub fn footprint(&self) -> Option<Footprint> {
        let pid = self.server.pid();
        self.server.try_end().is_none().then(|| Footprint {
            memory: processes::memory(pid, "VmRSS"),
            descriptors: self.server.open_files(),
            threads: processes::threads(pid),
            peak: processes::memory(pid, "VmHWM"),
        })
    }

    /// The footprint after a rest; `None` when the server has ended.
    pub fn rest(&self, interrupted: &Stop) -> Option<Footprint> {
        let until = Instant::now() + REST;
        let path = match self.kind {
            Kind::MultiModel => "/models".to_owned(),
            _ => format!("/tfs/v1/models/{MODEL}"),
        };
        while Instant::now() < until && !interrupted.wait(Duration::from_secs(1)) {
            self.small_request(&path)
                .expect("nothing is broken any more");
        }
        self.footprint()
    }

    /// The status of a GET on a new connection.
    fn small_request(&self, path: &str) -> Result<u16, NoAnswer> {
        let mut wire = Wire::open(self.server.port())?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        wire.send(head.as_bytes())?;
        Ok(wire.receive(AT_ONCE, true)?.status)
    }

    /// Processes of TFS and Python workers started so far, by the server's log.
    pub fn starts(&self) -> (usize, usize) {
        let log = fs::read(&self.log).expect("the log can be read");
        let log = String::from_utf8_lossy(&log);
        let count = |what: &str| {
            let starts = log.lines().filter_map(|line| line.split_once(": started"));
            let is_one = |(name, process): &(&str, &str)| {
                name.rsplit(' ').nth(1) == Some(what) && process.contains(", process ")
            };
            starts.filter(is_one).count()
        };
        (count("instance"), count("worker"))
    }

    /// Requests whose `output_handler` began more than once.
    pub fn run_twice(&self) -> Vec<String> {
        let mut counts = BTreeMap::<String, usize>::new();
        for notes in fs::read_dir(&self.notes)
            .expect("the directory is ours")
            .flatten()
        {
            let notes = fs::read_to_string(notes.path()).expect("notes are text");
            for mark in notes.lines() {
                *counts.entry(mark.to_owned()).or_default() += 1;
            }
        }
        counts.retain(|_, count| *count > 1);
        counts.into_keys().collect()
    }

    /// Sends SIGTERM. Returns the exit code, `None` if the server does not end by itself, and what is left of its processes.
    pub fn end(&self) -> (Option<i32>, Vec<Process>) {
        self.server.signal(Signal::TERM);
        let until = Instant::now() + END;
        while self.server.try_end().is_none() && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
        let until = Instant::now() + DYING;
        let directory = self.server.path("");
        let mut left = processes::users_of(&directory);
        while !left.is_empty() && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
            left = processes::users_of(&directory);
        }
        processes::kill_users_of(&directory);
        (self.server.try_end().flatten(), left)
    }
}
