//! The socket as the state machine sees it, so that tests and the fuzzer can replace it.

use std::io::{self, ErrorKind, IoSlice};

/// A non-blocking stream of bytes to and from the client.
pub trait Stream {
    /// Appends bytes that have arrived to `bytes`, up to its spare capacity. Returns their number; 0 means that the
    /// client will send nothing more.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has arrived.
    fn receive(&self, bytes: &mut Vec<u8>) -> io::Result<usize>;

    /// Sends as much as the socket takes now. Returns the number of bytes.
    ///
    /// # Errors
    /// `WouldBlock` when the socket takes nothing.
    fn send(&self, parts: &[IoSlice]) -> io::Result<usize>;

    /// Whether the socket is ready: for `In`, bytes or their end have arrived; for `Out`, it takes bytes.
    fn is_ready(&self, direction: Direction) -> bool;

    /// Shuts down the sending side, so that the client sees the end.
    fn finish(&self);
}

/// The direction of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    In,
    /// To the client.
    Out,
}

/// Sends as much as the socket takes now, at least one byte.
pub(super) fn send_some(stream: &impl Stream, parts: &[IoSlice]) -> io::Result<usize> {
    loop {
        match stream.send(parts) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
