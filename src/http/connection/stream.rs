//! The bytes of a connection, as its state machine sees them: a socket, or what a test gives.

use std::io::{self, ErrorKind, IoSlice};

/// The connection's bytes.
pub trait Stream {
    /// Appends what has arrived to `bytes`, as much as it has room for. 0: the client sends nothing more.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has.
    fn receive(&self, bytes: &mut Vec<u8>) -> io::Result<usize>;

    /// Sends what can be sent now; says how much that is.
    ///
    /// # Errors
    /// `WouldBlock` when nothing can.
    fn send(&self, parts: &[IoSlice]) -> io::Result<usize>;

    /// Whether bytes are waiting to be received, the end of them included, or for `Direction::Out` can be sent.
    fn is_ready(&self, direction: Direction) -> bool;

    /// Tells the client that nothing more comes.
    fn finish(&self);
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    In,
    /// To the client.
    Out,
}

/// Sends what can be sent now, at least a byte.
pub(super) fn send_some(stream: &impl Stream, parts: &[IoSlice]) -> io::Result<usize> {
    loop {
        match stream.send(parts) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
