//! Time limits of a connection, and which connections are dispensable when there is no room for new ones.

use std::time::{Duration, Instant};

use super::{Connection, Phase, Step, Stream};
use crate::error::RequestError;
use crate::http::response::ResponseWriter;

/// Time for a whole head to arrive, from its first byte.
pub(super) const HEAD_LIMIT: Duration = Duration::from_secs(20);
/// The same while the server stops.
pub(super) const LAST_HEAD_LIMIT: Duration = Duration::from_secs(2);
/// A connection without a request for this long is closed; longer than load balancers keep idle connections, so
/// that it is not us who closes one just as it is used.
pub(super) const IDLE_LIMIT: Duration = Duration::from_secs(75);
/// Time in which at least a byte of a body or a response must move.
pub(super) const STALL_LIMIT: Duration = Duration::from_secs(75);
/// Slower than this, bytes a second, and a response is given up, after a first [`STALL_LIMIT`]. When there is no room
/// for new connections, a body may not come more slowly either.
pub(super) const SLOWEST_BYTES_A_SECOND: u64 = 16 * 1024;
/// How long a connection may be idle or still before it counts as dispensable: it may be a busy client's.
pub(super) const KEPT_STILL: Duration = Duration::from_secs(1);
/// Time to read over what a client still sends after its response, so that the response is not lost to a reset.
pub(super) const LINGER_LIMIT: Duration = Duration::from_secs(30);
/// The same without a byte.
const LINGER_STALL_LIMIT: Duration = Duration::from_secs(5);
/// Kinds of connections that are closed to make room for new ones, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dispensable {
    /// It has no request.
    Idle,
    /// Its head is incomplete.
    Head,
    /// Its body has stalled or comes very slowly.
    SlowBody,
    /// The client does not read its response.
    SlowReader,
}

impl<P> Connection<P> {
    /// Whether, and since when, this connection could be closed for a new one.
    pub fn dispensable(&self, now: Instant) -> Option<(Dispensable, Instant)> {
        let is_still = now.saturating_duration_since(self.moved) >= KEPT_STILL;
        let (what, since) = match &self.phase {
            Phase::Head if !self.input.is_empty() => (Dispensable::Head, self.since),
            Phase::Head | Phase::Linger { .. } | Phase::Skip(_) | Phase::Closed => {
                (Dispensable::Idle, self.since)
            }
            Phase::Body { body, received, .. } => {
                let seconds = now.saturating_duration_since(*received).as_secs();
                let is_slow = (body.received() as u64) < seconds * SLOWEST_BYTES_A_SECOND;
                (is_still || is_slow).then_some((Dispensable::SlowBody, *received))?
            }
            Phase::Response { .. } => is_still.then_some((Dispensable::SlowReader, self.moved))?,
            Phase::Busy { .. } => return None,
        };
        (now.saturating_duration_since(since) >= KEPT_STILL).then_some((what, since))
    }

    /// What to do about a connection on which something takes too long, if it does. Nothing counts from before
    /// `last_pause`. `is_last`: the server stops.
    pub fn overdue(
        &mut self,
        stream: &impl Stream,
        now: Instant,
        last_pause: Instant,
        is_last: bool,
    ) -> Option<Step<P>> {
        let what = self.find_overdue(now, last_pause, is_last)?;
        // If the socket is ready, this process was slow, not the client. What is read over may come without end.
        let is_read_over = matches!(self.phase, Phase::Skip(_) | Phase::Linger { .. });
        if !is_read_over && self.is_ready(stream) {
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

    fn find_overdue(&self, now: Instant, last_pause: Instant, is_last: bool) -> Option<Overdue> {
        let since = |begin: Instant| {
            let passed = now.saturating_duration_since(begin.max(last_pause));
            passed.saturating_sub(self.grace)
        };
        let (phase_time, still_time) = (since(self.since), since(self.moved));
        match &self.phase {
            Phase::Head if self.input.is_empty() => {
                (phase_time >= IDLE_LIMIT).then_some(Overdue::Close)
            }
            Phase::Head => {
                let limit = if is_last { LAST_HEAD_LIMIT } else { HEAD_LIMIT };
                (phase_time >= limit).then_some(Overdue::Refuse("The head came too slowly."))
            }
            Phase::Body {
                received, limit, ..
            } => {
                if since(*received) >= *limit {
                    Some(Overdue::Refuse("The body came too slowly."))
                } else {
                    (still_time >= STALL_LIMIT)
                        .then_some(Overdue::Refuse("The body stopped coming."))
                }
            }
            Phase::Busy { .. } | Phase::Closed => None,
            Phase::Response { writer, .. } => {
                let limit = STALL_LIMIT + reading_time(writer);
                (still_time >= STALL_LIMIT || phase_time >= limit).then_some(Overdue::Close)
            }
            Phase::Skip(_) | Phase::Linger { .. } => (still_time >= LINGER_STALL_LIMIT
                || phase_time >= LINGER_LIMIT)
                .then_some(Overdue::Close),
        }
    }
}

/// What is to be done about a connection on which something took too long.
enum Overdue {
    /// It ends.
    Close,
    /// The client gets this error.
    Refuse(&'static str),
}

/// Time that a client which is just quick enough needs to read a response.
pub(super) fn reading_time(writer: &ResponseWriter) -> Duration {
    Duration::from_secs(writer.size() as u64 / SLOWEST_BYTES_A_SECOND)
}
