//! Sockets that wait in gevent's hub, which runs other greenlets while a socket is not ready.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

use pyo3::prelude::*;

/// The function `wait` of `greenlets.py`.
pub struct Hub(pub Py<PyAny>);

impl Hub {
    /// Runs other greenlets until `file` is ready for reading, or for writing.
    ///
    /// # Errors
    /// The exception that Python raised.
    pub fn wait(&self, py: Python, file: impl AsFd, for_writing: bool) -> io::Result<()> {
        let arguments = (file.as_fd().as_raw_fd(), for_writing);
        self.0
            .bind(py)
            .call1(arguments)
            .map(drop)
            .map_err(|e| io::Error::other(e.to_string()))
    }
}

/// A channel's socket that lets other greenlets run while it is not ready.
pub struct Cooperative<'a, 'py> {
    /// The socket, in non-blocking mode.
    pub socket: &'a UnixStream,
    /// Waits for the socket.
    pub hub: &'a Hub,
    /// Python's lock, which the thread holds all the time.
    pub py: Python<'py>,
}

impl Read for Cooperative<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.socket.read(buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.hub.wait(self.py, self.socket, false)?;
                }
                read => return read,
            }
        }
    }
}

impl Write for Cooperative<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.socket.write(bytes) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.hub.wait(self.py, self.socket, true)?;
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
