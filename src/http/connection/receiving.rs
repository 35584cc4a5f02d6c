//! Receiving bytes from the client: chooses the buffer that they go to.
//!
//! Parsing them is left to `connection.rs`.

use std::cell::RefCell;
use std::io;
use std::mem;
use std::time::Instant;

use super::stream::Stream;
use super::{Connection, Phase, UNCOUNTED_HEAD_BYTES};
use crate::error::RequestError;
use crate::http::body;

/// Room for the first read of a request. Most requests fit.
pub(super) const READ_BYTES: usize = 4 * 1024;

thread_local! {
    /// Buffer for the first read of a request. Copying the bytes costs less than allocating this much for each
    /// connection.
    static ROOM: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(READ_BYTES));
}

/// Room for each further read of a body that is not received directly, if memory allows.
const LARGE_READ_BYTES: usize = 64 * 1024;

impl<P> Connection<P> {
    /// Receives the first bytes of a request.
    fn receive_first(&mut self, stream: &impl Stream) -> Result<io::Result<usize>, RequestError> {
        ROOM.with_borrow_mut(|room| {
            room.clear();
            let received = stream.receive(room);
            // These bytes do not count against the budget, so reserving them cannot fail.
            self.input.set_uncounted(READ_BYTES);
            self.input
                .reserve_exact(room.len())
                .map_err(body::no_room)?;
            self.input.bytes_mut().extend_from_slice(room);
            Ok(received)
        })
    }

    /// Reads from the socket once.
    pub(super) fn receive(
        &mut self,
        stream: &impl Stream,
    ) -> Result<io::Result<usize>, RequestError> {
        let was_empty = self.input.is_empty();
        let is_first = was_empty && matches!(self.phase, Phase::Head);
        let direct = match &mut self.phase {
            Phase::Body { body, .. } if was_empty => body.direct()?,
            _ => None,
        };
        let room = |bytes: &Vec<u8>| bytes.capacity() - bytes.len();
        let (room, received) = match direct {
            Some(bytes) => (room(bytes), stream.receive(bytes)),
            None if is_first => (READ_BYTES, self.receive_first(stream)?),
            None => {
                let large = !matches!(self.phase, Phase::Head)
                    && self
                        .input
                        .reserve(LARGE_READ_BYTES, LARGE_READ_BYTES)
                        .is_ok();
                if !large {
                    if was_empty {
                        self.input.set_uncounted(READ_BYTES);
                    }
                    let reserved = self.input.reserve_exact(READ_BYTES);
                    let left = UNCOUNTED_HEAD_BYTES.saturating_sub(self.input.len()).max(1);
                    let reserved = reserved.or_else(|_| self.input.reserve_exact(left));
                    reserved.map_err(body::no_room)?;
                }
                let bytes = self.input.bytes_mut();
                (room(bytes), stream.receive(bytes))
            }
        };
        self.is_drained = received.as_ref().map_or(true, |&amount| amount < room);
        if let Ok(1..) = received {
            self.last_progress = Instant::now();
            let had_grace = !mem::take(&mut self.grace).is_zero();
            match &mut self.phase {
                Phase::Body { body, received, .. } => {
                    if had_grace {
                        *received = self.last_progress;
                    }
                    if was_empty && self.input.is_empty() {
                        let more = body.received_directly();
                        self.input.extend(&more).map_err(body::no_room)?;
                    }
                }
                Phase::Head if was_empty || had_grace => self.since = self.last_progress,
                _ => {}
            }
        }
        Ok(received)
    }
}
