//! Draining: requests in flight get some time to finish before the program ends.
//!
//! The supervisor drains the server through the trait [`Drain`]; [`Draining`] decides when to stop waiting.

use std::time::{Duration, Instant};

/// Time for running requests to finish. SageMaker kills a container 30 s after SIGTERM; the rest is for the children.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(25);
/// Draining ends when no request was in flight for this long: one more may be half read and not yet counted.
const QUIET_PERIOD: Duration = Duration::from_millis(100);

/// The server that accepts requests, as the supervisor sees it. The supervisor calls these functions in this order when
/// the program ends.
pub trait Drain: Send {
    /// Stops accepting new connections; running requests go on.
    fn stop_accepting(&self);

    /// The number of running requests.
    fn in_flight(&self) -> usize;

    /// Refuses all further work that needs a child process: the supervisor is about to stop the children.
    fn refuse_the_rest(&self);

    /// Waits until the last responses are sent. Must return soon: it is the last step before the program ends.
    fn finish(&self);
}

/// How far draining has got.
#[derive(Debug)]
pub struct Draining {
    deadline: Instant,
    idle_since: Option<Instant>,
}

impl Draining {
    /// Draining that begins now.
    pub fn begin(now: Instant) -> Self {
        Self {
            deadline: now + DRAIN_LIMIT,
            idle_since: None,
        }
    }

    /// Whether to stop waiting, with `in_flight` running requests.
    pub fn is_over(&mut self, in_flight: usize, now: Instant) -> bool {
        let is_late = now >= self.deadline;
        if in_flight > 0 {
            self.idle_since = None;
            if is_late {
                log::warn!(
                    "requests that did not finish within {} s: {in_flight}",
                    DRAIN_LIMIT.as_secs()
                );
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
    fn ends_after_a_quiet_period() {
        let start = Instant::now();
        let mut draining = Draining::begin(start);
        assert!(!draining.is_over(0, start));
        assert!(!draining.is_over(0, start + QUIET_PERIOD - MOMENT));
        assert!(draining.is_over(0, start + QUIET_PERIOD));
    }

    #[test]
    fn waits_for_another_quiet_period_when_a_request_appears() {
        let start = Instant::now();
        let mut draining = Draining::begin(start);
        assert!(!draining.is_over(0, start));
        assert!(!draining.is_over(1, start + QUIET_PERIOD - MOMENT));
        assert!(!draining.is_over(0, start + QUIET_PERIOD));
        assert!(!draining.is_over(0, start + 2 * QUIET_PERIOD - MOMENT));
        assert!(draining.is_over(0, start + 2 * QUIET_PERIOD));
    }

    #[test]
    fn ends_at_the_deadline_with_requests_in_flight() {
        let start = Instant::now();
        let mut draining = Draining::begin(start);
        assert!(!draining.is_over(3, start + DRAIN_LIMIT - MOMENT));
        assert!(draining.is_over(3, start + DRAIN_LIMIT));
    }
}
