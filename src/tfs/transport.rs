//! ureq's way to a model server: plain TCP on loopback, with as few system calls and wake-ups as can be.
//!
//! ureq's own transport sends head and body of a request in two writes, which wakes the model server twice, and
//! spends several more calls on each request. This one keeps small writes until the answer is waited for.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

use crate::tfs::framing::WatchedBuffers;
use crate::wait::{self, Interest, Stream};

/// Resolves every name to loopback: model servers run beside us. ureq's resolver would start a thread a request.
#[derive(Debug)]
pub struct Loopback;

impl Resolver for Loopback {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let port = uri
            .port_u16()
            .ok_or_else(|| Error::BadUri("no port".into()))?;
        let mut addresses = self.empty();
        addresses.push(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Ok(addresses)
    }
}

impl Connector for Loopback {
    type Out = LoopbackTransport;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        let address = details.addrs.first().ok_or(Error::HostNotFound)?;
        let stream = connect(address.port(), deadline(details.timeout))
            .map_err(|e| timed(e, details.timeout))?;
        stream.set_nodelay(true)?;
        Ok(Some(LoopbackTransport {
            stream,
            buffers: WatchedBuffers::new(),
            unsent: Vec::new(),
            has_answered: false,
        }))
    }
}

/// Connects to a port on loopback. The socket is in non-blocking mode.
///
/// On loopback this either succeeds or is refused at once; a full backlog makes it wait.
///
/// # Errors
/// The system's, and those of a wait.
pub fn connect(port: u16, deadline: Option<Instant>) -> io::Result<TcpStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port))) {
        Ok(()) => {}
        Err(Errno::INPROGRESS | Errno::INTR) => {
            wait::for_socket(&socket, Interest::Write, deadline)?;
            sockopt::socket_error(&socket)??;
        }
        Err(e) => return Err(e.into()),
    }
    Ok(socket.into())
}

/// Output up to this many bytes waits for more.
const KEEP: usize = 16 * 1024;

/// A connection to a model server.
#[derive(Debug)]
pub struct LoopbackTransport {
    stream: TcpStream,
    buffers: WatchedBuffers,
    unsent: Vec<u8>,
    /// Whether nobody has asked since the last bytes came.
    has_answered: bool,
}

impl LoopbackTransport {
    fn flush(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let result = Stream::new(&self.stream, deadline).write_all(&self.unsent);
        self.unsent.clear();
        result
    }
}

impl Transport for LoopbackTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.buffers.request_sent(amount);
        let output = &self.buffers.output()[..amount];
        if self.unsent.len() + amount <= KEEP {
            // This much fits into the socket's buffer: it can be written later without a deadline.
            self.unsent.extend_from_slice(output);
            return Ok(());
        }
        let mut stream = Stream::new(&self.stream, deadline(timeout));
        let result = stream
            .write_all(&self.unsent)
            .and_then(|()| stream.write_all(output));
        self.unsent.clear();
        result.map_err(|e| timed(e, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let deadline = deadline(timeout);
        self.flush(deadline).map_err(|e| timed(e, timeout))?;
        let mut stream = Stream::new(&self.stream, deadline);
        // There is nothing to read yet: this is asked for right after a request, or when all there was has been read.
        let read = stream
            .wait_for_input()
            .and_then(|()| stream.read(self.buffers.input_append_buf()));
        match read {
            Ok(amount) => {
                self.buffers.input_appended(amount);
                self.has_answered = true;
                Ok(amount > 0)
            }
            // ureq would take a reset for the end of an answer without a length.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {
                Err(Error::Io(io::Error::new(ErrorKind::BrokenPipe, e)))
            }
            Err(e) => Err(timed(e, timeout)),
        }
    }

    fn is_open(&mut self) -> bool {
        use rustix::net::{RecvFlags, recv};
        if !self.buffers.is_sound() || !self.unsent.is_empty() {
            return false;
        }
        // ureq asks when an answer has ended and once more before the next request. What the model server sends meanwhile
        // is seen then.
        if mem::take(&mut self.has_answered) {
            return true;
        }
        // Nothing to read and no end: the idle connection is still good.
        let mut byte = [0u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(&self.stream, &mut byte, flags) == Err(rustix::io::Errno::AGAIN)
    }
}

fn deadline(timeout: NextTimeout) -> Option<Instant> {
    timeout.not_zero().map(|left| Instant::now() + *left)
}

fn timed(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => Error::Io(error),
    }
}
