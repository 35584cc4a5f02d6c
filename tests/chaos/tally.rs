//! Counts what became of the requests to one server, and checks excuses against the faults of the time. Threads share a
//! tally under a lock. docs/RELIABILITY.md defines lost and wrong, and what a fault excuses.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::expected::{Request, Verdict};
use crate::support::Response;

/// The number of failures that are described in full; later ones are only counted.
pub const DESCRIBED_FAILURES: usize = 20;

/// A response after this time is lost to its client: the server's deadline of 60 s, with the longest stops and the time
/// that a busy machine needs.
const LATEST: Duration = Duration::from_secs(75);

pub type Counts = BTreeMap<String, usize>;

/// A request of a client that is under way.
pub struct Exchange<'a> {
    pub client: usize,
    pub request: &'a Request,
    pub manner: &'static str,
    pub begun: Instant,
}

/// A fault that excuses one call: a worker runs one call at a time, so no more than one can end with it.
#[derive(Debug)]
struct Excuse {
    at: Instant,
    is_claimed: bool,
}

/// The longest time between two events.
#[derive(Debug, Default)]
pub struct Gap {
    pub last: Option<Instant>,
    pub longest: Duration,
}

impl Gap {
    fn event(&mut self, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            self.longest = self.longest.max(now - last);
        }
    }
}

#[derive(Debug, Default)]
pub struct Tally {
    pub requests: usize,
    pub right: usize,
    pub documented: usize,
    pub ended_with_worker: usize,
    pub hung_up: usize,
    pub wrong: usize,
    pub mixed_up: usize,
    pub lost: usize,
    pub statuses: Counts,
    pub kinds: Counts,
    pub manners: Counts,
    pub pings: Counts,
    pub faults: Counts,
    /// Right answers with status 200.
    pub service: Gap,
    /// From the last 200 of /ping before another answer to the next 200.
    pub ping_outage: Duration,
    last_good_ping: Option<Instant>,
    is_ping_out: bool,
    /// Attacks of hostile clients by kind, by outcome, and those with a forbidden outcome.
    pub attacks: Counts,
    pub attack_outcomes: Counts,
    pub let_through: usize,
    pub failures: Vec<String>,
    /// When each client began its current request.
    under_way: HashMap<usize, Instant>,
    excuses: Vec<Excuse>,
}

impl Tally {
    pub fn begin(&mut self, client: usize, now: Instant) {
        self.under_way.insert(client, now);
    }

    /// When the oldest request under way began.
    pub fn oldest_under_way(&self, now: Instant) -> Instant {
        self.under_way.values().copied().min().unwrap_or(now)
    }

    /// The client hung up on purpose: no answer is wanted.
    pub fn hang_up(&mut self, exchange: &Exchange) {
        self.count(exchange);
        self.hung_up += 1;
    }

    pub fn answer(
        &mut self,
        exchange: &Exchange,
        answer: &Response,
        verdict: Verdict,
        now: Instant,
    ) {
        self.count(exchange);
        add(&mut self.statuses, answer.status);
        let took = now - exchange.begun;
        let how = match verdict {
            Verdict::Right | Verdict::Documented if took > LATEST => {
                self.lost += 1;
                format!("lost: only after {} s", took.as_secs())
            }
            Verdict::Right => {
                self.right += 1;
                if answer.status == 200 {
                    self.service.event(now);
                }
                return;
            }
            Verdict::Documented => return self.documented += 1,
            Verdict::EndedWithWorker if self.claim_excuse(exchange.begun, now) => {
                return self.ended_with_worker += 1;
            }
            Verdict::EndedWithWorker => {
                self.lost += 1;
                "lost: no worker was killed for it".to_owned()
            }
            Verdict::WrongStatus => {
                self.lost += 1;
                "lost: a status that must not be".to_owned()
            }
            Verdict::WrongContent(others) => {
                self.wrong += 1;
                self.mixed_up += usize::from(!others.is_empty());
                format!("wrong, marks of others: {others:?}")
            }
        };
        let text = answer.text();
        let what = format!(
            "{} {text:.300}, headers {:?}",
            answer.status, answer.headers
        );
        self.fail(&how, exchange, &what, now);
    }

    pub fn no_answer(&mut self, exchange: &Exchange, why: &str, now: Instant) {
        self.count(exchange);
        self.lost += 1;
        self.fail("lost: no answer", exchange, why, now);
    }

    /// `status` is `None` when no answer came. `complaint` says what is wrong with the answer, if anything.
    pub fn ping(&mut self, status: Option<u16>, complaint: Option<String>, now: Instant) {
        let key = status.map_or("no answer".to_owned(), |status| status.to_string());
        add(&mut self.pings, key);
        self.is_ping_out = if status == Some(200) {
            if let Some(last) = self
                .last_good_ping
                .replace(now)
                .filter(|_| self.is_ping_out)
            {
                self.ping_outage = self.ping_outage.max(now - last);
            }
            false
        } else {
            true
        };
        if let Some(complaint) = complaint {
            match status {
                None => self.lost += 1,
                Some(_) => self.wrong += 1,
            }
            self.note(format!("/ping: {complaint}"));
        }
    }

    /// `complaint` says what is wrong with the outcome, if anything.
    pub fn attack(&mut self, kind: &str, outcome: &str, complaint: Option<String>) {
        add(&mut self.attacks, kind);
        add(&mut self.attack_outcomes, outcome);
        if let Some(complaint) = complaint {
            self.let_through += 1;
            // These failures must not hide those of other clients.
            if self.failures.len() < DESCRIBED_FAILURES / 2 {
                self.note(format!("hostile, {kind}: {complaint}"));
            }
        }
    }

    pub fn fault(&mut self, name: &str) {
        add(&mut self.faults, name);
    }

    /// A fault excuses one call that is under way now.
    pub fn excuse_one_call(&mut self, at: Instant) {
        self.excuses.push(Excuse {
            at,
            is_claimed: false,
        });
    }

    /// The fault at that time did not happen: its process was gone.
    pub fn withdraw_excuse(&mut self, at: Instant) {
        self.excuses.retain(|excuse| excuse.at != at);
    }

    /// Answers arrive in order of time, so the earliest excuse that fits is the best choice.
    fn claim_excuse(&mut self, begun: Instant, now: Instant) -> bool {
        let fits = |excuse: &&mut Excuse| !excuse.is_claimed && (begun..=now).contains(&excuse.at);
        let found = self.excuses.iter_mut().find(fits);
        found.is_some_and(|excuse| !std::mem::replace(&mut excuse.is_claimed, true))
    }

    fn count(&mut self, exchange: &Exchange) {
        self.under_way.remove(&exchange.client);
        self.requests += 1;
        add(&mut self.kinds, exchange.request.kind);
        add(&mut self.manners, exchange.manner);
    }

    fn fail(&mut self, how: &str, exchange: &Exchange, what: &str, now: Instant) {
        let Request {
            mark,
            method,
            path,
            kind,
            body,
            ..
        } = exchange.request;
        let (manner, bytes, took) = (exchange.manner, body.len(), now - exchange.begun);
        self.note(format!("{how}: {mark} ({method} {path}, {kind} of {bytes} bytes, {manner}), after {took:.2?}: {what}"));
    }

    fn note(&mut self, text: String) {
        if self.failures.len() < DESCRIBED_FAILURES {
            self.failures.push(format!("{} {text}", clock()));
        }
    }
}

fn add(counts: &mut Counts, key: impl ToString) {
    *counts.entry(key.to_string()).or_default() += 1;
}

/// The time of day as in the server's log.
pub fn clock() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = now.as_secs() % 86_400;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!(
        "{hours:02}:{minutes:02}:{:02}.{:03}Z",
        seconds % 60,
        now.subsec_millis()
    )
}
