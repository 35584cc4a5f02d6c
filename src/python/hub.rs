//! Sockets that are waited for in gevent's hub, so that other greenlets run meanwhile.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

use pyo3::prelude::*;

/// Waits while other greenlets run.
pub struct Hub(pub Py<PyAny>);

impl Hub {
    /// Waits until `file` is ready.
    ///
    /// # Errors
    /// What Python raised.
    pub fn wait(&self, py: Python, file: impl AsFd, for_writing: bool) -> io::Result<()> {
        let arguments = (file.as_fd().as_raw_fd(), for_writing);
        self.0
            .bind(py)
            .call1(arguments)
            .map(drop)
            .map_err(|e| io::Error::other(e.to_string()))
    }
}

/// A channel's socket, which others must not be kept waiting for.
pub struct Cooperative<'a, 'py> {
    /// Non-blocking.
    pub socket: &'a UnixStream,
    /// What waits for it.
    pub hub: &'a Hub,
    /// Python's lock, which the thread keeps.
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
