//! Draining: work under way gets some time to finish before the program ends.
//!
//! [`Drain`] is what the supervisor asks of the part that accepts work; [`Draining`] decides when to stop waiting.

use std::time::{Duration, Instant};

/// SageMaker kills a container 30 s after SIGTERM. Running requests get this long, children the rest.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(25);
/// Draining ends when nothing was in flight for this long: a request may be half read.
const QUIET_PERIOD: Duration = Duration::from_millis(100);

/// The part of the program that accepts work, as the supervisor sees it. Called in this order at the end of the program.
pub trait Drain: Send {
    /// Stops accepting new work; work under way goes on.
    fn stop_accepting(&self);

    /// The number of requests under way.
    fn in_flight(&self) -> usize;

    /// Refuses, from now on, all work that needs a child process: the children are about to end.
    fn refuse_the_rest(&self);

    /// Waits for the last answers to leave. Must return soon: it is the last step before the program ends.
    fn finish(&self);
}

/// The state of draining.
#[derive(Debug)]
pub struct Draining {
    deadline: Instant,
    idle_since: Option<Instant>,
}

impl Draining {
    /// Begins now.
    pub fn begin(now: Instant) -> Self {
        Self {
            deadline: now + DRAIN_LIMIT,
            idle_since: None,
        }
    }

    /// Whether to stop waiting, with so many requests in flight.
    pub fn is_over(&mut self, in_flight: usize, now: Instant) -> bool {
        let is_late = now >= self.deadline;
        if in_flight > 0 {
            self.idle_since = None;
            if is_late {
                log::warn!("{in_flight} requests are not finished in time");
            }
            return is_late;
        }
        let idle_since = *self.idle_since.get_or_insert(now);
        let is_over = is_late || now.duration_since(idle_since) >= QUIET_PERIOD;
        if is_over {
            log::info!("all requests answered");
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn draining_ends_after_a_quiet_period() {
        let start = Instant::now();
        let mut draining = Draining::begin(start);
        assert!(!draining.is_over(0, start));
        assert!(!draining.is_over(0, start + QUIET_PERIOD - MOMENT));
        assert!(draining.is_over(0, start + QUIET_PERIOD));
    }

    #[test]
    fn a_request_that_appears_restarts_the_quiet_period() {
        let start = Instant::now();
        let mut draining = Draining::begin(start);
        assert!(!draining.is_over(0, start));
        assert!(!draining.is_over(1, start + QUIET_PERIOD - MOMENT));
        assert!(!draining.is_over(0, start + QUIET_PERIOD));
        assert!(!draining.is_over(0, start + 2 * QUIET_PERIOD - MOMENT));
        assert!(draining.is_over(0, start + 2 * QUIET_PERIOD));
    }

    #[test]
    fn requests_that_do_not_finish_are_given_up_at_the_deadline() {
        let start = Instant::now();
        let mut draining = Draining::begin(start);
        assert!(!draining.is_over(3, start + DRAIN_LIMIT - MOMENT));
        assert!(draining.is_over(3, start + DRAIN_LIMIT));
    }
}
