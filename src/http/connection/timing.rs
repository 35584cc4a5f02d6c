//! The time limits of a connection, and which connections can be closed to make room for new ones.

use std::time::{Duration, Instant};

use super::{Connection, Phase, Step, Stream};
use crate::error::RequestError;
use crate::http::response::ResponseWriter;

/// Time for a head to arrive, from its first byte.
pub(super) const HEAD_LIMIT: Duration = Duration::from_secs(20);
/// The same while the server is stopping.
pub(super) const STOPPING_HEAD_LIMIT: Duration = Duration::from_secs(2);
/// A connection without a request is closed after this time. Load balancers close idle connections sooner, so a request
/// does not meet a connection that the server is closing.
pub(super) const IDLE_LIMIT: Duration = Duration::from_secs(75);
/// A body or a response may make no progress for this long.
pub(super) const STALL_LIMIT: Duration = Duration::from_secs(75);
/// Slowest rate at which a client may read a response, in bytes per second, with [`STALL_LIMIT`] on top. When new
/// connections need room, a body that arrives more slowly makes its connection dispensable.
pub(super) const SLOWEST_BYTES_A_SECOND: u64 = 16 * 1024;
/// How long a connection stays protected after it becomes idle or stalls: its client may be about to use it.
pub(super) const EVICTION_GRACE: Duration = Duration::from_secs(1);
/// How long to discard what a client still sends after its last response. Closing at once could reset the connection
/// and lose the response.
pub(super) const LINGER_LIMIT: Duration = Duration::from_secs(30);
/// How long to wait for the next of these bytes.
const LINGER_STALL_LIMIT: Duration = Duration::from_secs(5);

/// Connections that can be closed to make room for new ones. Lower variants are closed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dispensable {
    /// No request is in progress.
    Idle,
    /// The head is incomplete.
    Head,
    /// The body has stalled or arrives very slowly.
    SlowBody,
    /// The client does not read its response.
    SlowReader,
}

impl<P> Connection<P> {
    /// Why, and since when, this connection could be closed for a new one. `None` if it must stay.
    pub fn dispensable(&self, now: Instant) -> Option<(Dispensable, Instant)> {
        let is_stalled = now.saturating_duration_since(self.last_progress) >= EVICTION_GRACE;
        let (what, since) = match &self.phase {
            Phase::Head if !self.input.is_empty() => (Dispensable::Head, self.since),
            Phase::Head | Phase::Linger { .. } | Phase::Skip(_) | Phase::Closed => {
                (Dispensable::Idle, self.since)
            }
            Phase::Body { body, received, .. } => {
                let seconds = now.saturating_duration_since(*received).as_secs();
                let is_slow = (body.received() as u64) < seconds * SLOWEST_BYTES_A_SECOND;
                (is_stalled || is_slow).then_some((Dispensable::SlowBody, *received))?
            }
            Phase::Response { .. } => {
                is_stalled.then_some((Dispensable::SlowReader, self.last_progress))?
            }
            Phase::Busy { .. } => return None,
        };
        (now.saturating_duration_since(since) >= EVICTION_GRACE).then_some((what, since))
    }

    /// Checks the time limits. Returns the step to take if one has passed. Time before `last_pause_end` does not count.
    /// `is_stopping`: the server is stopping, so heads have less time.
    pub fn overdue(
        &mut self,
        stream: &impl Stream,
        now: Instant,
        last_pause_end: Instant,
        is_stopping: bool,
    ) -> Option<Step<P>> {
        let what = self.find_overdue(now, last_pause_end, is_stopping)?;
        // If the socket is ready, this process was slow, not the client. This does not excuse a client whose bytes are
        // discarded: it could send forever.
        let is_discarding = matches!(self.phase, Phase::Skip(_) | Phase::Linger { .. });
        if !is_discarding && self.is_ready(stream) {
            return Some(Step::Again);
        }
        Some(match what {
            Overdue::Close => {
                self.close();
                Step::Close
            }
            Overdue::Refuse(text) => self.refuse(RequestError::ending(408, text)),
        })
    }

    fn find_overdue(
        &self,
        now: Instant,
        last_pause_end: Instant,
        is_stopping: bool,
    ) -> Option<Overdue> {
        let since = |begin: Instant| {
            let passed = now.saturating_duration_since(begin.max(last_pause_end));
            passed.saturating_sub(self.grace)
        };
        let (phase_time, stalled_time) = (since(self.since), since(self.last_progress));
        match &self.phase {
            Phase::Head if self.input.is_empty() => {
                (phase_time >= IDLE_LIMIT).then_some(Overdue::Close)
            }
            Phase::Head => {
                let limit = if is_stopping {
                    STOPPING_HEAD_LIMIT
                } else {
                    HEAD_LIMIT
                };
                (phase_time >= limit)
                    .then_some(Overdue::Refuse("The request head arrived too slowly."))
            }
            Phase::Body {
                received, limit, ..
            } => {
                if since(*received) >= *limit {
                    Some(Overdue::Refuse("The request body arrived too slowly."))
                } else {
                    (stalled_time >= STALL_LIMIT)
                        .then_some(Overdue::Refuse("The request body stopped arriving."))
                }
            }
            Phase::Busy { .. } | Phase::Closed => None,
            Phase::Response { writer, .. } => {
                let limit = STALL_LIMIT + reading_time(writer);
                (stalled_time >= STALL_LIMIT || phase_time >= limit).then_some(Overdue::Close)
            }
            Phase::Skip(_) | Phase::Linger { .. } => (stalled_time >= LINGER_STALL_LIMIT
                || phase_time >= LINGER_LIMIT)
                .then_some(Overdue::Close),
        }
    }
}

/// What happens when a time limit has passed.
enum Overdue {
    /// The connection ends.
    Close,
    /// The client gets 408 with this text.
    Refuse(&'static str),
}

/// Time to read a response at the slowest acceptable rate.
pub(super) fn reading_time(writer: &ResponseWriter) -> Duration {
    Duration::from_secs(writer.size() as u64 / SLOWEST_BYTES_A_SECOND)
}
