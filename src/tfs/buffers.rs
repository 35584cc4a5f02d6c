//! The buffers of a connection to TFS: small, and large only while a large request or response passes through.
//!
//! ureq's own buffers keep one size from their first use on. The server may hold hundreds of idle connections, most of
//! which carry small requests.

use ureq::unversioned::transport::Buffers;

/// The size of a small buffer, which holds a small request or response with its head.
pub const SMALL_BYTES: usize = 8 << 10;
/// The size of a large buffer, through which a large body passes in few steps.
pub const LARGE_BYTES: usize = 128 << 10;

/// The input and output buffers of one connection.
#[derive(Debug, Default)]
pub struct ConnectionBuffers {
    output: Vec<u8>,
    has_large_output: bool,
    input: Vec<u8>,
    /// `input` holds unread bytes from `consumed` to `filled`.
    consumed: usize,
    filled: usize,
    has_large_input: bool,
    has_progress: bool,
}

impl ConnectionBuffers {
    /// Notes that `amount` bytes of output are sent. If they fill a small buffer, more output is likely, and the buffer
    /// becomes large.
    pub fn output_sent(&mut self, amount: usize) {
        self.has_large_output |= amount >= SMALL_BYTES;
    }

    /// Notes the end of a response: frees large buffers until the next request.
    pub fn response_ended(&mut self) {
        if self.has_large_output {
            (self.output, self.has_large_output) = (Vec::new(), false);
        }
        if self.has_large_input && self.input().is_empty() {
            (self.input, self.has_large_input) = (Vec::new(), false);
            (self.consumed, self.filled) = (0, 0);
        }
    }

    fn make_input_room(&mut self, room: usize) {
        if self.consumed > 0 {
            self.input.copy_within(self.consumed..self.filled, 0);
            self.filled -= self.consumed;
            self.consumed = 0;
        }
        let size = if self.has_large_input {
            LARGE_BYTES
        } else {
            SMALL_BYTES
        };
        let size = size.max(self.filled + room);
        if self.input.len() < size {
            self.input.resize(size, 0);
        }
    }
}

impl Buffers for ConnectionBuffers {
    fn output(&mut self) -> &mut [u8] {
        let size = if self.has_large_output {
            LARGE_BYTES
        } else {
            SMALL_BYTES
        };
        if self.output.len() < size {
            self.output.resize(size, 0);
        }
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        &self.input[self.consumed..self.filled]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        // The buffer has filled up, so more input is likely.
        self.has_large_input |= self.filled == self.input.len() && self.filled > 0;
        let room = usize::from(self.input().len() < LARGE_BYTES);
        self.make_input_room(room);
        &mut self.input[self.filled..]
    }

    fn input_appended(&mut self, amount: usize) {
        self.filled += amount;
    }

    fn input_consume(&mut self, amount: usize) {
        self.has_progress = amount > 0;
        self.consumed += amount;
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        self.output();
        // ureq needs this space only for bodies from a reader; ours are slices.
        self.make_input_room(SMALL_BYTES);
        (&mut self.input[self.filled..], &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        !self.input().is_empty() && self.has_progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(buffers: &mut ConnectionBuffers, bytes: &[u8]) -> usize {
        let room = buffers.input_append_buf();
        let amount = room.len().min(bytes.len());
        room[..amount].copy_from_slice(&bytes[..amount]);
        buffers.input_appended(amount);
        amount
    }

    #[test]
    fn input_is_read_unchanged_in_pieces_of_any_size() {
        let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        let mut buffers = ConnectionBuffers::default();
        let (mut sent, mut got) = (0, Vec::new());
        for step in 0.. {
            if got.len() == bytes.len() {
                break;
            }
            let amount = append(&mut buffers, &bytes[sent..]);
            sent += amount;
            let take = (step * 7919) % (buffers.input().len() + 1);
            got.extend_from_slice(&buffers.input()[..take]);
            buffers.input_consume(take);
            let has_more = !buffers.input().is_empty();
            assert_eq!(buffers.can_use_input(), take > 0 && has_more);
        }
        assert_eq!(got, bytes);
        assert_eq!(buffers.input.len(), LARGE_BYTES);
        buffers.response_ended();
        assert_eq!(buffers.input.capacity(), 0);
    }

    #[test]
    fn buffers_stay_small_for_small_requests_and_shrink_after_large_ones() {
        let mut buffers = ConnectionBuffers::default();
        for _ in 0..100 {
            assert_eq!(buffers.output().len(), SMALL_BYTES);
            buffers.output_sent(300);
            assert_eq!(append(&mut buffers, &[0; 500]), 500);
            buffers.input_consume(500);
            buffers.response_ended();
        }
        assert_eq!(buffers.input.len(), SMALL_BYTES);
        buffers.output_sent(SMALL_BYTES);
        assert_eq!(buffers.output().len(), LARGE_BYTES);
        buffers.response_ended();
        assert_eq!(buffers.output().len(), SMALL_BYTES);
    }

    #[test]
    fn unread_input_is_limited_to_the_large_size() {
        let mut buffers = ConnectionBuffers::default();
        let sum: usize = (0..100)
            .map(|_| append(&mut buffers, &[1; LARGE_BYTES]))
            .sum();
        assert_eq!(sum, LARGE_BYTES);
    }
}
