//! A connection to a model server: plain TCP on loopback, with as few system calls and wake-ups as can be.
//!
//! ureq's own transport sends head and body of a request in two writes, which wakes the model server twice, and
//! spends several more calls on each request. This one keeps small writes until the answer is waited for.

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
/// On loopback this either succeeds or is refused at once; a full backlog makes it wait.
///
/// # Errors
/// The system's, and those of a wait.
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

/// Output up to this many bytes waits for more.
const KEEP: usize = 16 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    port: u16,
    buffers: WatchedBuffers,
    unsent: Vec<u8>,
}

impl Connection {
    /// Connects to the model server on this port.
    ///
    /// # Errors
    /// As [`connect`].
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

    /// The model server's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What tells it from others in a test.
    #[cfg(test)]
    pub fn local_port(&self) -> u16 {
        self.stream.local_addr().unwrap().port()
    }

    /// Its buffers, in which ureq writes requests and reads answers.
    pub fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    /// Sends so much of the output buffer, now or with what follows.
    ///
    /// # Errors
    /// The system's, and those of a wait.
    pub fn send(&mut self, amount: usize, deadline: Instant) -> io::Result<()> {
        self.buffers.request_sent(amount);
        if self.unsent.len() + amount > KEEP {
            self.flush(deadline)?;
            let output = &self.buffers.output()[..amount];
            return Stream::new(&self.stream, Some(deadline)).write_all(output);
        }
        // This much fits into the socket's buffer: it can be written later without a wait.
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

    /// Waits for input, and reads what there is. The number of bytes; 0 at the end.
    ///
    /// # Errors
    /// The system's, and those of a wait.
    pub fn receive(&mut self, deadline: Instant) -> io::Result<usize> {
        self.flush(deadline)?;
        let mut stream = Stream::new(&self.stream, Some(deadline));
        // There is nothing to read yet: this is asked for right after a request, or when all there was has been read.
        stream.wait_for_input()?;
        let amount = stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount)
    }

    /// Whether the next answer on it will be that to the next request.
    pub fn is_sound(&self) -> bool {
        self.buffers.is_sound() && self.unsent.is_empty()
    }

    /// Whether there is nothing to read and no end.
    pub fn is_quiet(&self) -> bool {
        let mut byte = [0u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(&self.stream, &mut byte, flags) == Err(Errno::AGAIN)
    }
}
