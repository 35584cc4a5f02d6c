//! The life cycle of one supervised process, as data: events in, the next phase and an action out.
//!
//! Nothing here touches a process or a clock; `supervised.rs` carries out the actions.

use std::fmt;
use std::time::{Duration, Instant};

/// Where a process is in its life.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// Has no process; gets one at `retry_at`.
    Down {
        /// When to start it.
        retry_at: Instant,
        /// Why it is down; empty before the first start.
        reason: String,
    },
    /// Its process runs and has not yet said that it can serve.
    Starting,
    /// Said that it can serve when last asked.
    Ready,
    /// Its process runs, but it did not say so when last asked.
    Unresponsive {
        /// What it said instead.
        reason: String,
    },
    /// Its process is being killed.
    Ending {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Down { reason, .. } if reason.is_empty() => f.write_str("starting"),
            Self::Down { reason, .. } => write!(f, "down ({reason})"),
            Self::Starting => f.write_str("starting"),
            Self::Ready => f.write_str("ready"),
            Self::Unresponsive { reason } => write!(f, "unresponsive ({reason})"),
            Self::Ending { reason } => write!(f, "being killed ({reason})"),
        }
    }
}

/// What a process says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It can serve: all versions of its models are AVAILABLE, its script is loaded.
    Available,
    /// Anything else, and what.
    Other(String),
    /// It will never serve all that it was started for: waiting longer changes nothing.
    Failed {
        /// Why.
        reason: String,
        /// Whether memory or the like ran out.
        out_of_resources: bool,
    },
}

/// What happens to a process.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The process was started.
    Spawned,
    /// The process could not be started.
    SpawnFailed(String),
    /// The process ended.
    Exited {
        /// How: "exited with code 1".
        how: String,
        /// Its last lines of output.
        output: String,
    },
    /// It was asked for its status.
    Status(Status),
    /// It has to be replaced, for this reason.
    Condemned(String),
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Nothing.
    None,
    /// Start a process.
    Spawn,
    /// End the process by force, for the reason in the phase; its exit follows as an event.
    Kill,
    /// End the program: the process never came up, for this reason.
    GiveUp(String),
}

/// The times a process is measured by. `None`: no limit.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// From its start until it can serve, and what to say of a process that takes longer.
    pub start: Option<(Duration, String)>,
    /// A process that has been unresponsive this long is killed.
    pub unresponsive: Option<Duration>,
}

/// First pause before a restart; it doubles with each failure in a row.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest pause before a restart.
const BACKOFF_LONGEST: Duration = Duration::from_secs(10);
/// A process that was ready this long counts as sound: the next failure is a first one again.
const SOUND_AFTER: Duration = Duration::from_secs(2);

/// One process, or rather the place of one: a new process takes it when the old one ends.
#[derive(Debug)]
pub struct Lifecycle {
    phase: Phase,
    /// When the phase began.
    since: Instant,
    /// When its process became ready.
    ready_at: Option<Instant>,
    /// Whether this process or one before it was ready.
    was_ever_ready: bool,
    failures: u32,
    limits: Limits,
    /// What its process said last while it was starting.
    last_word: String,
}

impl Lifecycle {
    /// A process to be started at once.
    pub fn new(now: Instant, limits: Limits) -> Self {
        Self {
            phase: Phase::Down {
                retry_at: now,
                reason: String::new(),
            },
            since: now,
            ready_at: None,
            was_ever_ready: false,
            failures: 0,
            limits,
            last_word: String::new(),
        }
    }

    /// Where it is.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// When the phase began.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Failures in a row. One that was ready for a while and then fails, fails for the first time.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// From now on it is started again whatever happens.
    pub fn never_give_up(&mut self) {
        self.was_ever_ready = true;
    }

    /// Whether its end may be the end of its start: then the last output of its process is wanted.
    pub fn may_give_up(&self) -> bool {
        !self.was_ever_ready
    }

    /// Its process has done its work: the next failure is a first one again.
    pub fn proved_sound(&mut self) {
        self.failures = 0;
    }

    /// When the next [`Event::Tick`] could lead to something, if ever.
    pub fn next_tick(&self) -> Option<Instant> {
        match self.phase {
            Phase::Down { retry_at, .. } => Some(retry_at),
            Phase::Starting => {
                let limit = self.limits.start.as_ref();
                limit.map(|(limit, _)| self.since + *limit)
            }
            Phase::Unresponsive { .. } => self.limits.unresponsive.map(|limit| self.since + limit),
            Phase::Ready | Phase::Ending { .. } => None,
        }
    }

    /// Takes an event and says what is to be done.
    pub fn on(&mut self, event: Event, now: Instant) -> Action {
        match (&self.phase, event) {
            (Phase::Down { retry_at, .. }, Event::Tick) if *retry_at <= now => Action::Spawn,
            (Phase::Down { .. }, Event::Spawned) => {
                self.last_word.clear();
                self.enter(Phase::Starting, now);
                Action::None
            }
            (Phase::Down { .. }, Event::SpawnFailed(reason)) => self.fail(reason, "", now),

            (Phase::Starting | Phase::Unresponsive { .. }, Event::Status(Status::Available)) => {
                self.ready_at.get_or_insert(now);
                self.was_ever_ready = true;
                self.enter(Phase::Ready, now);
                Action::None
            }
            (Phase::Starting, Event::Status(Status::Other(reason))) => {
                self.last_word = reason;
                Action::None
            }
            (Phase::Starting, Event::Status(Status::Failed { reason, .. }))
                if !self.was_ever_ready =>
            {
                Action::GiveUp(reason)
            }
            // After a restart it serves what it has, until it is tried again.
            (Phase::Starting, Event::Status(Status::Failed { reason, .. }))
            | (
                Phase::Ready,
                Event::Status(Status::Other(reason) | Status::Failed { reason, .. }),
            ) => {
                self.enter(Phase::Unresponsive { reason }, now);
                Action::None
            }
            (
                Phase::Unresponsive { .. },
                Event::Status(Status::Other(reason) | Status::Failed { reason, .. }),
            ) => {
                self.phase = Phase::Unresponsive { reason };
                Action::None
            }

            (Phase::Starting, Event::Tick) if self.is_due(now) => self.start_too_long(now),
            (Phase::Unresponsive { reason }, Event::Tick) if self.is_due(now) => {
                let reason = reason.clone();
                self.kill(reason, now)
            }

            (Phase::Ready | Phase::Unresponsive { .. }, Event::Condemned(reason)) => {
                self.kill(reason, now)
            }

            (Phase::Ending { reason }, Event::Exited { .. }) => {
                let reason = format!("killed: {reason}");
                self.fail(reason, "", now)
            }
            (
                Phase::Starting | Phase::Ready | Phase::Unresponsive { .. },
                Event::Exited { how, output },
            ) => self.fail(how, &output, now),
            _ => Action::None,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.next_tick().is_some_and(|tick| tick <= now)
    }

    /// The process has not become ready within its limit.
    fn start_too_long(&mut self, now: Instant) -> Action {
        let limit = self.limits.start.as_ref();
        let mut reason = limit.map_or_else(String::new, |(_, text)| text.clone());
        if !self.last_word.is_empty() {
            reason = format!("{reason}: {}", self.last_word);
        }
        match self.was_ever_ready {
            false => Action::GiveUp(reason),
            true => self.kill(reason, now),
        }
    }

    fn kill(&mut self, reason: String, now: Instant) -> Action {
        self.enter(Phase::Ending { reason }, now);
        Action::Kill
    }

    /// No process any more: restart after a pause, or give up if it never was ready.
    fn fail(&mut self, reason: String, output: &str, now: Instant) -> Action {
        if !self.was_ever_ready {
            return Action::GiveUp(match output {
                "" => reason,
                output => format!("{reason}; its last output:\n{output}"),
            });
        }
        let is_sound = |ready_at| now.duration_since(ready_at) >= SOUND_AFTER;
        if self.ready_at.take().is_some_and(is_sound) {
            self.failures = 0;
        }
        let pause = BACKOFF_FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(BACKOFF_LONGEST);
        self.failures += 1;
        self.enter(
            Phase::Down {
                retry_at: now + pause,
                reason,
            },
            now,
        );
        Action::None
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    fn limits() -> Limits {
        Limits {
            start: Some((Duration::from_secs(300), "too slow".into())),
            unresponsive: Some(Duration::from_secs(60)),
        }
    }

    fn exited() -> Event {
        Event::Exited {
            how: "code 1".into(),
            output: "last line".into(),
        }
    }

    fn available() -> Event {
        Event::Status(Status::Available)
    }

    fn hanging() -> Event {
        Event::Status(Status::Other("no answer".into()))
    }

    fn ready(now: Instant) -> Lifecycle {
        let mut instance = Lifecycle::new(now, limits());
        assert_eq!(instance.on(Event::Tick, now), Action::Spawn);
        assert_eq!(instance.on(Event::Spawned, now), Action::None);
        assert_eq!(*instance.phase(), Phase::Starting);
        assert_eq!(instance.on(hanging(), now), Action::None);
        assert_eq!(*instance.phase(), Phase::Starting);
        assert_eq!(instance.on(available(), now), Action::None);
        assert_eq!(*instance.phase(), Phase::Ready);
        instance
    }

    #[test]
    fn a_start_that_fails_ends_the_start() {
        let now = Instant::now();
        let mut instance = Lifecycle::new(now, limits());
        assert_eq!(
            instance.on(Event::SpawnFailed("not found".into()), now),
            Action::GiveUp("not found".into())
        );
        instance.on(Event::Spawned, now);
        assert_eq!(
            instance.on(exited(), now),
            Action::GiveUp("code 1; its last output:\nlast line".into())
        );
    }

    #[test]
    fn a_start_that_takes_too_long_ends_the_start() {
        let now = Instant::now();
        let mut instance = Lifecycle::new(now, limits());
        instance.on(Event::Spawned, now);
        assert_eq!(instance.on(Event::Tick, now + 299 * SECOND), Action::None);
        instance.on(hanging(), now + 299 * SECOND);
        assert_eq!(
            instance.on(Event::Tick, now + 300 * SECOND),
            Action::GiveUp("too slow: no answer".into())
        );
    }

    fn failed() -> Event {
        Event::Status(Status::Failed {
            reason: "version 1 is END".into(),
            out_of_resources: false,
        })
    }

    #[test]
    fn a_version_that_does_not_load_ends_the_start() {
        let now = Instant::now();
        let mut instance = Lifecycle::new(now, limits());
        instance.on(Event::Spawned, now);
        assert_eq!(
            instance.on(failed(), now),
            Action::GiveUp("version 1 is END".into())
        );
    }

    #[test]
    fn a_version_that_does_not_load_after_a_restart_is_reported_and_tried_again() {
        let now = Instant::now();
        let mut instance = ready(now);
        instance.on(exited(), now);
        instance.on(Event::Spawned, now);
        assert_eq!(instance.on(failed(), now), Action::None);
        assert_eq!(
            instance.phase().to_string(),
            "unresponsive (version 1 is END)"
        );
        assert_eq!(instance.on(failed(), now + 30 * SECOND), Action::None);
        assert_eq!(instance.since(), now, "its limit does not begin anew");
        assert_eq!(instance.on(Event::Tick, now + 60 * SECOND), Action::Kill);
    }

    #[test]
    fn a_version_that_is_lost_while_serving_is_reported_and_restarted() {
        let now = Instant::now();
        let mut instance = ready(now);
        assert_eq!(instance.on(failed(), now), Action::None);
        assert!(matches!(instance.phase(), Phase::Unresponsive { .. }));
        assert_eq!(instance.on(Event::Tick, now + 60 * SECOND), Action::Kill);
    }

    #[test]
    fn a_restart_that_takes_too_long_is_tried_again() {
        let now = Instant::now();
        let mut instance = ready(now);
        instance.on(exited(), now);
        instance.on(Event::Spawned, now);
        assert_eq!(instance.on(Event::Tick, now + 300 * SECOND), Action::Kill);
        assert_eq!(instance.on(exited(), now + 300 * SECOND), Action::None);
        assert!(matches!(instance.phase(), Phase::Down { .. }));
    }

    fn pause_after_exit(instance: &mut Lifecycle, now: Instant) -> Duration {
        assert_eq!(instance.on(exited(), now), Action::None);
        let retry_at = instance.next_tick().unwrap();
        assert_eq!(
            instance.on(Event::Tick, retry_at - Duration::from_nanos(1)),
            Action::None
        );
        assert_eq!(instance.on(Event::Tick, retry_at), Action::Spawn);
        instance.on(Event::Spawned, retry_at);
        instance.on(available(), retry_at);
        retry_at - now
    }

    #[test]
    fn restarts_back_off_and_recover() {
        let mut now = Instant::now();
        let mut instance = ready(now);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let pause = pause_after_exit(&mut instance, now);
            pauses.push(pause.as_millis());
            now += pause;
        }
        assert_eq!(
            pauses,
            [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
        );
        let pause = pause_after_exit(&mut instance, now + SOUND_AFTER);
        assert_eq!(pause, BACKOFF_FIRST);
    }

    #[test]
    fn an_unresponsive_instance_recovers_or_is_killed() {
        let now = Instant::now();
        let mut instance = ready(now);
        instance.on(hanging(), now);
        assert!(matches!(instance.phase(), Phase::Unresponsive { .. }));
        instance.on(available(), now + SECOND);
        assert_eq!(*instance.phase(), Phase::Ready);
        instance.on(hanging(), now + 2 * SECOND);
        instance.on(hanging(), now + 60 * SECOND);
        assert_eq!(instance.since(), now + 2 * SECOND);
        assert_eq!(instance.on(Event::Tick, now + 61 * SECOND), Action::None);
        assert_eq!(instance.on(Event::Tick, now + 62 * SECOND), Action::Kill);
        assert!(matches!(instance.phase(), Phase::Ending { .. }));
        assert_eq!(instance.next_tick(), None);
        assert_eq!(instance.on(Event::Tick, now + 63 * SECOND), Action::None);
        instance.on(exited(), now + 62 * SECOND);
        assert!(matches!(instance.phase(), Phase::Down { .. }));
    }

    #[test]
    fn a_condemned_one_is_killed_once_and_comes_back() {
        let now = Instant::now();
        let mut worker = ready(now);
        let condemned = || Event::Condemned("stuck".into());
        assert_eq!(worker.on(condemned(), now + 30 * SECOND), Action::Kill);
        assert_eq!(worker.on(condemned(), now + 30 * SECOND), Action::None);
        worker.on(exited(), now + 31 * SECOND);
        assert!(matches!(worker.phase(), Phase::Down { .. }));
        assert_eq!(worker.failures(), 1);
    }

    #[test]
    fn without_limits_nothing_is_given_up() {
        let now = Instant::now();
        let mut worker = Lifecycle::new(now, Limits::default());
        worker.on(Event::Spawned, now);
        assert_eq!(worker.next_tick(), None);
        assert_eq!(worker.on(Event::Tick, now + 9000 * SECOND), Action::None);
    }

    #[test]
    fn late_news_of_a_gone_process_changes_nothing() {
        let now = Instant::now();
        let mut instance = ready(now);
        instance.on(exited(), now);
        let phase = instance.phase().clone();
        for event in [available(), hanging(), exited()] {
            assert_eq!(instance.on(event, now), Action::None);
            assert_eq!(*instance.phase(), phase);
        }
    }
}
