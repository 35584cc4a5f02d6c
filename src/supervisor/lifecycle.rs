//! The life cycle of a supervised process as a state machine: events in, the next phase and an action out.
//!
//! This module touches no process and no clock; `supervised.rs` feeds it events and carries out the actions.

use std::fmt;
use std::time::{Duration, Instant};

use crate::supervisor::readiness::Readiness;

/// The phases of a life cycle.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// There is no process.
    Down {
        /// When to start the next one.
        retry_at: Instant,
        /// Why the last process ended; empty before the first start.
        reason: String,
    },
    /// The process runs and has not been ready yet.
    Starting,
    /// The process was ready at the last report.
    Ready,
    /// The process runs, but was not ready at the last report.
    Unresponsive {
        /// What the last report said.
        reason: String,
    },
    /// The process is being killed.
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
    /// Its readiness was reported.
    Reported(Readiness),
    /// The process must be replaced, for this reason.
    KillRequested(String),
    /// Time passed.
    Tick,
}

/// What the caller must do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Nothing.
    None,
    /// Start a process.
    Spawn,
    /// Kill the process, for the reason in the phase; its exit follows as an event.
    Kill,
    /// Do not start it again: it has never been ready, for this reason.
    GiveUp(String),
}

/// Time limits of a process. `None` means no limit.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// The longest time from its start until it is ready, and the message when it takes longer.
    pub start: Option<(Duration, String)>,
    /// A process that has been unresponsive this long is killed.
    pub unresponsive: Option<Duration>,
}

/// First pause before a restart; each further failure in a row doubles it.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest pause before a restart.
const BACKOFF_LONGEST: Duration = Duration::from_secs(10);
/// A process that failed this long after it became ready counts as stable: the pauses begin at the shortest again.
const STABLE_AFTER: Duration = Duration::from_secs(2);

/// The life cycle of one unit, through all its successive processes.
#[derive(Debug)]
pub struct Lifecycle {
    phase: Phase,
    /// When the phase began.
    since: Instant,
    /// When the current process became ready.
    ready_at: Option<Instant>,
    /// Whether this process or an earlier one was ready.
    was_ever_ready: bool,
    /// Failures in a row.
    failures: u32,
    limits: Limits,
    /// The last report about a process that is starting.
    last_report: String,
}

impl Lifecycle {
    /// A life cycle whose first process is due at once.
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
            last_report: String::new(),
        }
    }

    /// The current phase.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// When the current phase began.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Failures in a row. A failure after a stable time counts as the first.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// From now on every failure leads to a restart, even if no process has been ready.
    pub fn never_give_up(&mut self) {
        self.was_ever_ready = true;
    }

    /// Whether a failure now leads to [`Action::GiveUp`], which quotes the last output of the process.
    pub fn may_give_up(&self) -> bool {
        !self.was_ever_ready
    }

    /// The process has proved useful: the next failure counts as the first in a row.
    pub fn reset_failures(&mut self) {
        self.failures = 0;
    }

    /// When the next [`Event::Tick`] is due; `None` if no time limit applies.
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

    /// Takes an event, enters the next phase and returns the action for the caller.
    pub fn on(&mut self, event: Event, now: Instant) -> Action {
        match (&self.phase, event) {
            (Phase::Down { retry_at, .. }, Event::Tick) if *retry_at <= now => Action::Spawn,
            (Phase::Down { .. }, Event::Spawned) => {
                self.last_report.clear();
                self.enter(Phase::Starting, now);
                Action::None
            }
            (Phase::Down { .. }, Event::SpawnFailed(reason)) => self.fail(reason, "", now),

            (Phase::Starting | Phase::Unresponsive { .. }, Event::Reported(Readiness::Ready)) => {
                self.ready_at.get_or_insert(now);
                self.was_ever_ready = true;
                self.enter(Phase::Ready, now);
                Action::None
            }
            (Phase::Starting, Event::Reported(Readiness::NotReady(reason))) => {
                self.last_report = reason;
                Action::None
            }
            (Phase::Starting, Event::Reported(Readiness::Failed { reason, .. }))
                if !self.was_ever_ready =>
            {
                Action::GiveUp(reason)
            }
            // After a restart the process serves the versions that it could load, until it is killed and started again.
            (Phase::Starting, Event::Reported(Readiness::Failed { reason, .. }))
            | (
                Phase::Ready,
                Event::Reported(Readiness::NotReady(reason) | Readiness::Failed { reason, .. }),
            ) => {
                self.enter(Phase::Unresponsive { reason }, now);
                Action::None
            }
            (
                Phase::Unresponsive { .. },
                Event::Reported(Readiness::NotReady(reason) | Readiness::Failed { reason, .. }),
            ) => {
                self.phase = Phase::Unresponsive { reason };
                Action::None
            }

            (Phase::Starting, Event::Tick) if self.is_due(now) => self.start_too_long(now),
            (Phase::Unresponsive { reason }, Event::Tick) if self.is_due(now) => {
                let reason = reason.clone();
                self.kill(reason, now)
            }

            (Phase::Ready | Phase::Unresponsive { .. }, Event::KillRequested(reason)) => {
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
        if !self.last_report.is_empty() {
            reason = format!("{reason}: {}", self.last_report);
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

    /// The process is gone: restarts it after a pause, or gives up if no process was ever ready.
    fn fail(&mut self, reason: String, output: &str, now: Instant) -> Action {
        if !self.was_ever_ready {
            return Action::GiveUp(match output {
                "" => reason,
                output => format!("{reason}; its last output:\n{output}"),
            });
        }
        let is_stable = |ready_at| now.duration_since(ready_at) >= STABLE_AFTER;
        if self.ready_at.take().is_some_and(is_stable) {
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
        Event::Reported(Readiness::Ready)
    }

    fn hanging() -> Event {
        Event::Reported(Readiness::NotReady("no answer".into()))
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
    fn gives_up_when_the_first_start_fails() {
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
    fn gives_up_when_the_first_start_takes_too_long() {
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
        Event::Reported(Readiness::Failed {
            reason: "version 1 is END".into(),
            out_of_resources: false,
        })
    }

    #[test]
    fn gives_up_when_a_version_does_not_load_at_the_first_start() {
        let now = Instant::now();
        let mut instance = Lifecycle::new(now, limits());
        instance.on(Event::Spawned, now);
        assert_eq!(
            instance.on(failed(), now),
            Action::GiveUp("version 1 is END".into())
        );
    }

    #[test]
    fn restarts_when_a_version_does_not_load_after_a_restart() {
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
    fn restarts_again_when_a_restart_takes_too_long() {
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
    fn pauses_before_restarts_grow_and_become_short_again_after_a_stable_time() {
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
        let pause = pause_after_exit(&mut instance, now + STABLE_AFTER);
        assert_eq!(pause, BACKOFF_FIRST);
    }

    #[test]
    fn an_unresponsive_process_recovers_or_is_killed() {
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
    fn a_process_is_killed_once_on_request_and_restarted() {
        let now = Instant::now();
        let mut worker = ready(now);
        let kill_requested = || Event::KillRequested("stuck".into());
        assert_eq!(worker.on(kill_requested(), now + 30 * SECOND), Action::Kill);
        assert_eq!(worker.on(kill_requested(), now + 30 * SECOND), Action::None);
        worker.on(exited(), now + 31 * SECOND);
        assert!(matches!(worker.phase(), Phase::Down { .. }));
        assert_eq!(worker.failures(), 1);
    }

    #[test]
    fn waits_forever_without_limits() {
        let now = Instant::now();
        let mut worker = Lifecycle::new(now, Limits::default());
        worker.on(Event::Spawned, now);
        assert_eq!(worker.next_tick(), None);
        assert_eq!(worker.on(Event::Tick, now + 9000 * SECOND), Action::None);
    }

    #[test]
    fn ignores_late_events_of_a_process_that_has_ended() {
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
