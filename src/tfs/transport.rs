//! ureq's way to a model server: plain TCP on loopback, with as few system calls and wake-ups as can be.
//!
//! ureq's own transport sends head and body of a request in two writes, which wakes the model server twice, and
//! spends several more calls on each request. This one keeps small writes until the answer is waited for.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

use crate::tfs::framing::WatchedBuffers;

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
        // On loopback this either succeeds or is refused at once; a full backlog makes it wait.
        let stream = match details.timeout.not_zero() {
            Some(timeout) => TcpStream::connect_timeout(address, *timeout),
            None => TcpStream::connect(address),
        };
        let stream = stream.map_err(|e| match e.kind() {
            ErrorKind::TimedOut => Error::Timeout(details.timeout.reason),
            _ => Error::Io(e),
        })?;
        stream.set_nodelay(true)?;
        Ok(Some(LoopbackTransport {
            stream,
            buffers: WatchedBuffers::new(),
            unsent: Vec::new(),
        }))
    }
}

/// Output up to this many bytes waits for more.
const KEEP: usize = 16 * 1024;

/// A connection to a model server.
#[derive(Debug)]
pub struct LoopbackTransport {
    stream: TcpStream,
    buffers: WatchedBuffers,
    unsent: Vec<u8>,
}

impl LoopbackTransport {
    fn flush(&mut self) -> io::Result<()> {
        if !self.unsent.is_empty() {
            self.stream.write_all(&self.unsent)?;
            self.unsent.clear();
        }
        Ok(())
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
        self.stream
            .set_write_timeout(timeout.not_zero().map(|t| *t))?;
        let result = self
            .stream
            .write_all(&self.unsent)
            .and_then(|()| self.stream.write_all(output));
        self.unsent.clear();
        result.map_err(|e| timed(e, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.flush().map_err(|e| timed(e, timeout))?;
        loop {
            self.stream
                .set_read_timeout(timeout.not_zero().map(|t| *t))?;
            match self.stream.read(self.buffers.input_append_buf()) {
                Ok(amount) => {
                    self.buffers.input_appended(amount);
                    return Ok(amount > 0);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // ureq would take a reset for the end of an answer without a length.
                Err(e) if e.kind() == ErrorKind::ConnectionReset => {
                    return Err(Error::Io(io::Error::new(ErrorKind::BrokenPipe, e)));
                }
                Err(e) => return Err(timed(e, timeout)),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        use rustix::net::{RecvFlags, recv};
        if !self.buffers.is_sound() || !self.unsent.is_empty() {
            return false;
        }
        // Nothing to read and no end: the idle connection is still good.
        let mut byte = [0u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(&self.stream, &mut byte, flags) == Err(rustix::io::Errno::AGAIN)
    }
}

/// A socket's time-out is reported as "would block".
fn timed(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => Error::Io(error),
    }
}
