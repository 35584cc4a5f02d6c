//! A connection to a TFS instance: plain TCP on loopback, with as few system calls and wake-ups as possible.
//!
//! ureq's own transport sends the head and the body of a request in two writes, which wakes TFS twice, and makes
//! several more system calls for each request. This one collects small writes and sends them when it waits for the
//! response.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, sockopt};
use ureq::unversioned::transport::Buffers;

use crate::tfs::framing::WatchedBuffers;
use crate::wait::{self, Interest, Stream};

/// Connects to a port on loopback. The socket is in non-blocking mode.
///
/// On loopback the connection is made or refused at once, unless the listener's backlog is full: then this waits.
///
/// # Errors
/// Those of the system and of the wait: `TimedOut` at the deadline, or the error of a cancelled request.
pub fn connect(port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port))) {
        Ok(()) => {}
        Err(Errno::INPROGRESS | Errno::INTR) => {
            wait::for_socket(&socket, Interest::Write, Some(deadline))?;
            sockopt::socket_error(&socket)??;
        }
        Err(e) => return Err(e.into()),
    }
    Ok(socket.into())
}

/// Up to this many bytes of output are collected before they are sent.
const KEEP: usize = 16 * 1024;

/// A connection with its buffers.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    port: u16,
    buffers: WatchedBuffers,
    /// Output that is collected and not sent yet.
    unsent: Vec<u8>,
}

impl Connection {
    /// Connects to the instance on this port.
    ///
    /// # Errors
    /// Those of [`connect`].
    pub fn new(port: u16, deadline: Instant) -> io::Result<Self> {
        let stream = connect(port, deadline)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            port,
            buffers: WatchedBuffers::new(),
            unsent: Vec::new(),
        })
    }

    /// The port of the instance.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Our port, by which tests identify the connection.
    #[cfg(test)]
    pub fn local_port(&self) -> u16 {
        self.stream.local_addr().unwrap().port()
    }

    /// The buffers, into which ureq writes requests and from which it reads responses.
    pub fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    /// Sends `amount` bytes of the output buffer, at once or together with later output.
    ///
    /// # Errors
    /// Those of the system and of the wait.
    pub fn send(&mut self, amount: usize, deadline: Instant) -> io::Result<()> {
        self.buffers.request_sent(amount);
        if self.unsent.len() + amount > KEEP {
            self.flush(deadline)?;
            let output = &self.buffers.output()[..amount];
            return Stream::new(&self.stream, Some(deadline)).write_all(output);
        }
        // The socket's buffer has room for this much, so the later write will not wait.
        self.unsent
            .extend_from_slice(&self.buffers.output()[..amount]);
        Ok(())
    }

    fn flush(&mut self, deadline: Instant) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let result = Stream::new(&self.stream, Some(deadline)).write_all(&self.unsent);
        self.unsent.clear();
        result
    }

    /// Sends what is collected, waits for input and reads it into the input buffer. Returns the number of bytes, 0 at
    /// the end.
    ///
    /// # Errors
    /// Those of the system and of the wait.
    pub fn receive(&mut self, deadline: Instant) -> io::Result<usize> {
        self.flush(deadline)?;
        let mut stream = Stream::new(&self.stream, Some(deadline));
        // Wait first: ureq calls this right after a request, or when all input has been read, so a read would fail.
        stream.wait_for_input()?;
        let amount = stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount)
    }

    /// Whether the connection can carry another request: no part of an earlier request or response is left on it.
    pub fn is_sound(&self) -> bool {
        self.buffers.is_sound() && self.unsent.is_empty()
    }

    /// Whether the peer has neither sent anything nor closed the connection.
    pub fn is_quiet(&self) -> bool {
        let mut byte = [0u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(&self.stream, &mut byte, flags) == Err(Errno::AGAIN)
    }
}
