//! Admission: decides by a request's head, before its body is read, whether the server accepts the request.
//!
//! The service's plan says whether the body is wanted and how large it may be. A request is refused if its body is too
//! large, if no memory is left for it, or if neither a slot nor the backlog has room.

use crate::budget::Buffer;
use crate::error::RequestError;
use crate::http::body::{self, BodyDecoder, BodyLength};
use crate::http::connection::Admission;
use crate::http::head::Head;
use crate::http::service::{Planned, Service};
use crate::http::shared::Shared;

/// The error text when neither a slot nor the backlog has room.
pub const TOO_MANY_REQUESTS: &str = "Too many requests are waiting; try again.";

/// The server reads and discards the rest of a refused body up to this size, to keep the connection. If more is to
/// come, it closes the connection.
const MAX_SKIPPED_BYTES: usize = 1 << 20;

impl<S: Service> Shared<S> {
    /// Decides whether to accept a request, by its head and the bytes that have arrived after the head.
    pub fn admit(&self, head: &Head, arrived: &Buffer) -> Admission<Planned<S::Plan>> {
        let plan = self.service.plan(head);
        let wanted = plan.max_body;
        let limit = body::limit(&self.budget).min(wanted.unwrap_or(usize::MAX));
        let length = match body::length(head, limit) {
            Ok(length) => length,
            Err(error) => return Admission::Refused { error, rest: None },
        };
        let body = |is_kept| BodyDecoder::new(length, is_kept, limit, arrived.arriving_sibling());
        let to_come = match length {
            BodyLength::Length(length) => length.saturating_sub(arrived.len()),
            BodyLength::Chunked => 1, // unknown; at least one byte
        };
        let has_no_expectation = head.expectations().next().is_none();
        let mut expectations = head.expectations();
        let error = if expectations.any(|name| !name.eq_ignore_ascii_case("100-continue")) {
            RequestError::new(417, "The only supported expectation is 100-continue.")
        } else if wanted.is_some() && to_come > 0 && self.slots.is_full() {
            RequestError::busy(TOO_MANY_REQUESTS)
        } else if let Some(Err(why)) = wanted.map(|_| arrived.check_room(to_come)) {
            why.into()
        } else {
            return Admission::Admitted {
                body: body(wanted.is_some()),
                limit: self.deadline,
                plan,
            };
        };
        // After a refusal, a client that sent `Expect: 100-continue` may send the body or the next request: the server
        // cannot tell which follows.
        let can_continue = has_no_expectation && to_come <= MAX_SKIPPED_BYTES;
        Admission::Refused {
            error: RequestError {
                ends_connection: !can_continue,
                ..error
            },
            rest: can_continue.then(|| body(false)),
        }
    }
}
