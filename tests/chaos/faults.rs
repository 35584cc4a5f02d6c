//! The faults. To add one, add a row to [`FAULTS`]: its name in the table of results, its weight, the servers that get it,
//! the processes it hits, what it does to them, and what it excuses. `injector.rs` carries it out; a new kind of victim
//! or act is a variant here and a branch there. docs/RELIABILITY.md describes the faults to users.

use rustix::process::Signal;

use crate::target::{Kind, WORKERS};
use Act::{Kill, KillTwice, Stop, StopThenKill};
use Excuse::{Nothing, OneCall};
use Victims::{Server, Tfs, WorkerChild, Workers};

pub struct Fault {
    pub name: &'static str,
    /// How often it comes, compared with the others.
    pub weight: u32,
    pub on: &'static [Kind],
    pub victims: Victims,
    pub act: Act,
    pub excuses: Excuse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victims {
    /// This number of TFS processes.
    Tfs(usize),
    /// This number of Python workers.
    Workers(usize),
    /// A child of a worker.
    WorkerChild,
    Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Kill(Signal),
    /// Kills them, and the processes that replace them while those start.
    KillTwice,
    /// Stops them for a while.
    Stop,
    /// Stops them for a while, then kills them.
    StopThenKill,
}

/// What a fault may cost requests. All other requests must get their right answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excuse {
    Nothing,
    /// The call that ran in a killed worker gets 500: at most one call for each kill.
    OneCall,
}

const EVERYWHERE: &[Kind] = &[Kind::Handlers, Kind::Plain, Kind::MultiModel];
const ONE_MODEL: &[Kind] = &[Kind::Handlers, Kind::Plain];
const PYTHON: &[Kind] = &[Kind::Handlers, Kind::MultiModel];
const HANDLERS: &[Kind] = &[Kind::Handlers];

#[rustfmt::skip] // A table.
pub const FAULTS: &[Fault] = &[
    fault("TFS killed", 16, EVERYWHERE, Tfs(1), Kill(Signal::KILL), Nothing),
    fault("TFS ended by SIGTERM", 8, ONE_MODEL, Tfs(1), Kill(Signal::TERM), Nothing),
    fault("both TFS killed at once", 5, ONE_MODEL, Tfs(2), Kill(Signal::KILL), Nothing),
    fault("TFS killed again while it starts", 4, ONE_MODEL, Tfs(1), KillTwice, Nothing),
    fault("TFS stopped for a while", 12, ONE_MODEL, Tfs(1), Stop, Nothing),
    fault("both TFS stopped for a while", 3, ONE_MODEL, Tfs(2), Stop, Nothing),
    fault("TFS stopped, then killed", 5, ONE_MODEL, Tfs(1), StopThenKill, Nothing),
    fault("server stopped for a while", 4, ONE_MODEL, Server, Stop, Nothing),
    fault("worker killed", 14, PYTHON, Workers(1), Kill(Signal::KILL), OneCall),
    fault("worker ended by SIGTERM", 6, HANDLERS, Workers(1), Kill(Signal::TERM), OneCall),
    fault("all workers killed at once", 3, HANDLERS, Workers(WORKERS), Kill(Signal::KILL), OneCall),
    fault("worker stopped for a while", 8, HANDLERS, Workers(1), Stop, Nothing),
    fault("worker stopped, then killed", 4, HANDLERS, Workers(1), StopThenKill, OneCall),
    fault("worker's child killed", 8, HANDLERS, WorkerChild, Kill(Signal::KILL), Nothing),
    fault("worker's child stopped for a while", 4, HANDLERS, WorkerChild, Stop, Nothing),
];

const fn fault(
    name: &'static str,
    weight: u32,
    on: &'static [Kind],
    victims: Victims,
    act: Act,
    excuses: Excuse,
) -> Fault {
    Fault {
        name,
        weight,
        on,
        victims,
        act,
        excuses,
    }
}

impl Victims {
    pub fn count(self) -> usize {
        match self {
            Tfs(count) | Workers(count) => count,
            WorkerChild | Server => 1,
        }
    }
}
