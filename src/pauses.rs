//! Detects pauses of this process: between SIGSTOP and SIGCONT, in a frozen container, or without CPU time.
//!
//! Clients must not pay for these pauses, so the HTTP server and the TFS client count time limits from the end of the
//! last pause.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The pauses since the first use.
static PAUSES: LazyLock<Pauses> = LazyLock::new(|| Pauses::new(Instant::now()));

/// Records that this process is running. The HTTP workers call this several times a second.
pub fn tick() {
    PAUSES.tick(Instant::now());
}

/// When the last pause ended. While a pause is not over, or no tick has followed it yet, this is the current time.
/// Without any pause it is the time of the first use.
pub fn last_end() -> Instant {
    PAUSES.last_end(Instant::now())
}

/// A longer gap between two ticks is a pause.
const LONGEST_TICK: Duration = Duration::from_secs(1);

/// Detects pauses as gaps between ticks.
#[derive(Debug)]
struct Pauses {
    started: Instant,
    /// Time of the last tick, in nanoseconds since `started`.
    last_tick: AtomicU64,
    /// End of the last pause, in nanoseconds since `started`.
    end: AtomicU64,
}

impl Pauses {
    /// Starts with a tick at `now`.
    fn new(now: Instant) -> Self {
        Self {
            started: now,
            last_tick: AtomicU64::new(0),
            end: AtomicU64::new(0),
        }
    }

    /// Records a tick at `now`.
    fn tick(&self, now: Instant) {
        let end = self.last_end(now);
        self.end.store(self.nanoseconds(end), Ordering::Relaxed);
        self.last_tick
            .store(self.nanoseconds(now), Ordering::Relaxed);
    }

    /// When the last pause ended, or `started` if there was none. `now` if the last tick is too long ago.
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
    fn a_gap_between_two_ticks_is_a_pause() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let pauses = Pauses::new(start);
        assert_eq!(pauses.last_end(at(100)), start);
        pauses.tick(at(100));
        pauses.tick(at(1000));
        assert_eq!(pauses.last_end(at(1999)), start);
        // Asked before the tick that ends the pause, and after it.
        assert_eq!(pauses.last_end(at(50_000)), at(50_000));
        pauses.tick(at(50_001));
        pauses.tick(at(50_100));
        assert_eq!(pauses.last_end(at(50_150)), at(50_001));
    }
}
