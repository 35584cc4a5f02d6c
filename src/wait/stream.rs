//! Non-blocking sockets, used as if they blocked.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::AsFd;
use std::time::Instant;

use super::{Cancelling, Interest, WaitError, WaitFor, count_moved, wait};

/// A non-blocking socket whose reads and writes wait, up to a deadline, where they would block.
#[derive(Debug, Clone, Copy)]
pub struct Stream<'a, S> {
    socket: &'a S,
    deadline: Option<Instant>,
}

impl<'a, S: AsFd> Stream<'a, S> {
    /// Wraps a socket, which must be in non-blocking mode.
    pub fn new(socket: &'a S, deadline: Option<Instant>) -> Self {
        Self { socket, deadline }
    }

    /// Waits until bytes have arrived. After sending a request this saves a read that would find nothing.
    ///
    /// # Errors
    /// As [`for_socket`](super::for_socket).
    pub fn wait_for_input(&self) -> io::Result<()> {
        self.wait(Interest::Read)
    }

    fn wait(&self, interest: Interest) -> io::Result<()> {
        let event = WaitFor::Socket(self.socket.as_fd(), interest);
        wait(event, self.deadline, Cancelling::Ends)?.map_err(error)
    }

    /// Repeats `attempt` until it succeeds, waiting each time it would block.
    fn retry(
        &self,
        interest: Interest,
        mut attempt: impl FnMut() -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match attempt() {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.wait(interest)?;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Ok(amount) => {
                    count_moved(amount);
                    return Ok(amount);
                }
                Err(e) => return Err(e),
            }
        }
    }
}

impl<'a, S: AsFd> Read for Stream<'a, S>
where
    &'a S: Read,
{
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut socket = self.socket;
        self.retry(Interest::Read, || socket.read(bytes))
    }
}

impl<'a, S: AsFd> Write for Stream<'a, S>
where
    &'a S: Write,
{
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut socket = self.socket;
        self.retry(Interest::Write, || socket.write(bytes))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut socket = self.socket;
        self.retry(Interest::Write, || socket.write_vectored(parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Wraps a [`WaitError`] in an [`io::Error`].
pub(super) fn error(error: WaitError) -> io::Error {
    let kind = match error {
        WaitError::TimedOut => ErrorKind::TimedOut,
        WaitError::Cancelled => ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// Whether `error` wraps [`WaitError::Cancelled`].
pub fn is_cancelled(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<WaitError>());
    inner == Some(&WaitError::Cancelled)
}
