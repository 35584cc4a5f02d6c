//! Pauses of this process: SIGSTOP and SIGCONT, a frozen container, no CPU to spare. Clients are not to blame for them,
//! so time limits count from the end of the last pause.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The pauses of this process.
static PAUSES: LazyLock<Pauses> = LazyLock::new(|| Pauses::new(Instant::now()));

/// Notes that this process runs. To be called several times a second.
pub fn tick() {
    PAUSES.tick(Instant::now());
}

/// When the last pause ended: now, if one has lasted until now; the start of the process, if there was none.
pub fn last_end() -> Instant {
    PAUSES.last_end(Instant::now())
}

/// Two ticks further apart than this have a pause between them.
const LONGEST_TICK: Duration = Duration::from_secs(1);

/// Detects pauses by missing ticks.
#[derive(Debug)]
struct Pauses {
    started: Instant,
    /// Nanoseconds since then.
    last_tick: AtomicU64,
    /// The same, of the end of the last pause.
    end: AtomicU64,
}

impl Pauses {
    /// The first tick is now.
    fn new(now: Instant) -> Self {
        Self {
            started: now,
            last_tick: AtomicU64::new(0),
            end: AtomicU64::new(0),
        }
    }

    /// A tick.
    fn tick(&self, now: Instant) {
        let end = self.last_end(now);
        self.end.store(self.nanoseconds(end), Ordering::Relaxed);
        self.last_tick
            .store(self.nanoseconds(now), Ordering::Relaxed);
    }

    /// When the last pause ended, or this was made: `now` if one has lasted up to now.
    fn last_end(&self, now: Instant) -> Instant {
        let time = |at: &AtomicU64| self.started + Duration::from_nanos(at.load(Ordering::Relaxed));
        if now.saturating_duration_since(time(&self.last_tick)) > LONGEST_TICK {
            now
        } else {
            time(&self.end)
        }
    }

    fn nanoseconds(&self, time: Instant) -> u64 {
        time.saturating_duration_since(self.started).as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_lasts_from_one_tick_to_the_next() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let pauses = Pauses::new(start);
        assert_eq!(pauses.last_end(at(100)), start);
        pauses.tick(at(100));
        pauses.tick(at(1000));
        assert_eq!(pauses.last_end(at(1999)), start);
        // Seen before a tick has come, and after.
        assert_eq!(pauses.last_end(at(50_000)), at(50_000));
        pauses.tick(at(50_001));
        pauses.tick(at(50_100));
        assert_eq!(pauses.last_end(at(50_150)), at(50_001));
    }
}
