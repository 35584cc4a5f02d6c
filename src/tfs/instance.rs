//! The life cycle of one TensorFlow Serving instance, as data: events in, the next phase and an action out.
//!
//! Nothing here touches a process or a clock; the watchdog does what the actions say.

use std::time::{Duration, Instant};

/// Where an instance is in its life.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// Has no process; gets one at `retry_at`.
    Down {
        /// When to start it.
        retry_at: Instant,
        /// Why it is down; empty before the first start.
        reason: String,
    },
    /// Its process runs and has not yet said that its model is AVAILABLE.
    Starting,
    /// Said AVAILABLE when last asked.
    Ready,
    /// Its process runs, but it did not say AVAILABLE when last asked.
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

/// What an instance says about its model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// A version is AVAILABLE.
    Available,
    /// Anything else, and what.
    Other(String),
}

/// What happens to an instance.
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
    /// End the program: the instance never came up, for this reason.
    GiveUp(String),
}

/// The times an instance is measured by.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the start of the process to AVAILABLE.
    pub wait_time: Duration,
    /// An instance that has been unresponsive this long is killed.
    pub unresponsive: Duration,
}

/// First pause before a restart; it doubles with each failure in a row.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest pause before a restart.
const BACKOFF_LONGEST: Duration = Duration::from_secs(10);
/// An instance that was ready this long counts as sound: the next failure is a first one again.
const SOUND_AFTER: Duration = Duration::from_secs(2);

/// One instance.
#[derive(Debug)]
pub struct Instance {
    phase: Phase,
    /// When the phase began.
    since: Instant,
    /// When it last became ready.
    ready_at: Option<Instant>,
    failures: u32,
    limits: Limits,
}

impl Instance {
    /// An instance to be started at once.
    pub fn new(now: Instant, limits: Limits) -> Self {
        Self {
            phase: Phase::Down {
                retry_at: now,
                reason: String::new(),
            },
            since: now,
            ready_at: None,
            failures: 0,
            limits,
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

    /// When the next [`Event::Tick`] could lead to something, if ever.
    pub fn next_tick(&self) -> Option<Instant> {
        match self.phase {
            Phase::Down { retry_at, .. } => Some(retry_at),
            Phase::Starting => Some(self.since + self.limits.wait_time),
            Phase::Unresponsive { .. } => Some(self.since + self.limits.unresponsive),
            Phase::Ready | Phase::Ending { .. } => None,
        }
    }

    /// Takes an event and says what is to be done.
    pub fn on(&mut self, event: Event, now: Instant) -> Action {
        match (&self.phase, event) {
            (Phase::Down { retry_at, .. }, Event::Tick) if *retry_at <= now => Action::Spawn,
            (Phase::Down { .. }, Event::Spawned) => {
                self.enter(Phase::Starting, now);
                Action::None
            }
            (Phase::Down { .. }, Event::SpawnFailed(reason)) => self.fail(reason, "", now),

            (Phase::Starting | Phase::Unresponsive { .. }, Event::Status(Status::Available)) => {
                self.ready_at = Some(now);
                self.enter(Phase::Ready, now);
                Action::None
            }
            (Phase::Ready, Event::Status(Status::Other(reason))) => {
                self.enter(Phase::Unresponsive { reason }, now);
                Action::None
            }
            (Phase::Unresponsive { .. }, Event::Status(Status::Other(reason))) => {
                self.phase = Phase::Unresponsive { reason };
                Action::None
            }

            (Phase::Starting, Event::Tick) if self.next_tick() <= Some(now) => {
                let reason = format!(
                    "not AVAILABLE within {} s (SAGEMAKER_TFS_WAIT_TIME_SECONDS)",
                    self.limits.wait_time.as_secs()
                );
                match self.ready_at {
                    None => Action::GiveUp(reason),
                    Some(_) => self.kill(reason, now),
                }
            }
            (Phase::Unresponsive { reason }, Event::Tick) if self.next_tick() <= Some(now) => {
                let reason = reason.clone();
                self.kill(reason, now)
            }

            (
                Phase::Starting | Phase::Ready | Phase::Unresponsive { .. } | Phase::Ending { .. },
                Event::Exited { how, output },
            ) => self.fail(how, &output, now),
            _ => Action::None,
        }
    }

    fn kill(&mut self, reason: String, now: Instant) -> Action {
        self.enter(Phase::Ending { reason }, now);
        Action::Kill
    }

    /// No process any more: restart after a pause, or give up if it never was ready.
    fn fail(&mut self, reason: String, output: &str, now: Instant) -> Action {
        let Some(ready_at) = self.ready_at else {
            return Action::GiveUp(match output {
                "" => reason,
                output => format!("{reason}; its last output:\n{output}"),
            });
        };
        let was_ready = matches!(self.phase, Phase::Ready | Phase::Unresponsive { .. });
        if was_ready && now.duration_since(ready_at) >= SOUND_AFTER {
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
    const LIMITS: Limits = Limits {
        wait_time: Duration::from_secs(300),
        unresponsive: Duration::from_secs(60),
    };

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

    fn ready(now: Instant) -> Instance {
        let mut instance = Instance::new(now, LIMITS);
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
        let mut instance = Instance::new(now, LIMITS);
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
        let mut instance = Instance::new(now, LIMITS);
        instance.on(Event::Spawned, now);
        assert_eq!(instance.on(Event::Tick, now + 299 * SECOND), Action::None);
        assert!(matches!(
            instance.on(Event::Tick, now + 300 * SECOND),
            Action::GiveUp(_)
        ));
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

    fn pause_after_exit(instance: &mut Instance, now: Instant) -> Duration {
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
