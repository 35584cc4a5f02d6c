//! Whether a request may come: decided by its head, before its body is read.

use crate::budget::Buffer;
use crate::error::RequestError;
use crate::http::body::{self, BodyDecoder, BodyLength};
use crate::http::connection::Admission;
use crate::http::head::Head;
use crate::http::service::{Planned, Service};
use crate::http::shared::Shared;

/// Why a request is turned away.
pub const TOO_MANY_REQUESTS: &str = "Too many requests are waiting; try again.";

/// The rest of a body that was refused is read over if it is not longer; else the connection ends.
const MAX_SKIPPED_BYTES: usize = 1 << 20;

impl<S: Service> Shared<S> {
    /// Decides whether a request may come, by its head and by what has arrived behind it.
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
            BodyLength::Chunked => 1, // at least
        };
        let expects_nothing = head.expectations().next().is_none();
        let mut others = head.expectations();
        let error = if others.any(|name| !name.eq_ignore_ascii_case("100-continue")) {
            RequestError::new(417, "The only expectation met is: 100-continue")
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
        // A client that waits for a word may send its body then, or the next request instead.
        let can_go_on = expects_nothing && to_come <= MAX_SKIPPED_BYTES;
        Admission::Refused {
            error: RequestError {
                ends_connection: !can_go_on,
                ..error
            },
            rest: can_go_on.then(|| body(false)),
        }
    }
}
