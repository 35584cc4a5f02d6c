//! HTTP to TensorFlow Serving: an agent for each worker, with kept connections of its own.

use std::io::{self, ErrorKind, Read};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use ureq::http::uri::{Authority, Parts, Scheme};
use ureq::http::{self, HeaderMap, HeaderValue, Uri, header};
use ureq::{Agent, AsSendBody, Body, Error};

use crate::budget::{Buffer, NoRoom, Reservation};
use crate::tfs::buffers::{LARGE_BYTES, SMALL_BYTES};
use crate::tfs::connection;
use crate::tfs::error_body::{self, MAX_ERROR_BYTES};
use crate::tfs::message::TfsAnswer;
use crate::tfs::outgoing::{Content, Outgoing};
use crate::tfs::transport::{new_agent, with_deadline};
use crate::wait;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The deadline passed.
    #[error("deadline passed")]
    Deadline,
    /// Nobody listens on the port: nothing was sent.
    #[error("connection refused")]
    Refused,
    /// This process ran out of descriptors, memory or ports. Nothing was sent, and it is not the model server's fault.
    #[error("no connection can be opened: {0}")]
    Local(String),
    /// There is no memory for the answer.
    #[error("no memory for the answer")]
    NoRoom(NoRoom),
    /// Nobody needs the answer any more.
    #[error("the client has hung up")]
    Cancelled,
    /// The connection broke before the whole answer arrived.
    #[error("connection lost: {0}")]
    Lost(String),
}

/// Where a model server listens: a port on loopback.
#[derive(Debug, Clone)]
pub struct Address(Authority);

impl Address {
    /// The address with this port.
    pub fn new(port: u16) -> Self {
        let text = format!("localhost:{port}");
        Self(Authority::try_from(text).expect("a host and a port"))
    }
}

/// The client. Cheap to share by reference.
#[derive(Debug)]
pub struct Client {
    /// One for each worker: an agent's connections are behind a lock. Further workers share them.
    agents: [OnceLock<Agent>; MAX_AGENTS],
    /// Idle connections that an agent keeps.
    connections: usize,
}

/// Agents of a client.
const MAX_AGENTS: usize = 16;

/// Room made at once for an answer of announced length; larger ones grow as they arrive.
const MAX_RESERVED_BYTES: usize = 64 << 20;
/// Of an error that is cut, this much is read and dropped to keep the connection.
const MAX_SKIPPED_BYTES: u64 = 256 * 1024;
/// How long a connection may take that only shows whether somebody listens.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait for a descriptor, or for another request's connection, before the next try.
pub const LOCAL_PAUSE: Duration = Duration::from_millis(20);

impl Client {
    /// A client that keeps up to `connections` idle connections.
    pub fn new(connections: usize) -> Self {
        Self {
            agents: Default::default(),
            connections,
        }
    }

    fn agent(&self) -> &Agent {
        let agent = &self.agents[wait::worker_number() % MAX_AGENTS];
        agent.get_or_init(|| new_agent(self.connections))
    }

    /// Sends `request` to the model server at this address and reads the whole answer, which is counted where `memory` is.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send(
        &self,
        to: &Address,
        request: &Outgoing,
        memory: &Buffer,
        deadline: Instant,
    ) -> Result<TfsAnswer, SendError> {
        let lost = |e: http::Error| SendError::Lost(e.to_string());
        let mut uri = Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(to.0.clone());
        uri.path_and_query = Some(request.target.clone());
        let uri = Uri::from_parts(uri).map_err(|e| lost(e.into()))?;
        match &request.content {
            Content::None => {
                let request = http::Request::get(uri).body(()).map_err(lost)?;
                self.run(request, 0, memory, deadline)
            }
            Content::Body { content_type, body } => {
                let mut builder = http::Request::post(uri);
                if let Some(content_type) = content_type {
                    builder = builder.header(header::CONTENT_TYPE, content_type);
                }
                let request = builder.body(*body).map_err(lost)?;
                self.run(request, body.len(), memory, deadline)
            }
        }
    }

    fn run(
        &self,
        request: http::Request<impl AsSendBody>,
        sent: usize,
        memory: &Buffer,
        deadline: Instant,
    ) -> Result<TfsAnswer, SendError> {
        if Instant::now() >= deadline {
            return Err(SendError::Deadline);
        }
        let _buffer = reserve_large_buffer(memory, sent)?;
        let (mut head, body) = with_deadline(deadline, || self.agent().run(request))
            .map_err(send_error)?
            .into_parts();
        let status = head.status.as_u16();
        if status < 200 {
            return Err(SendError::Lost(format!("an answer with status {status}")));
        }
        let body = match status {
            400.. => read_error(body, &mut head.headers)
                .map_err(|e| send_error(Error::from(e)))?
                .into(),
            _ => read_all(body, memory.sibling())?,
        };
        Ok(TfsAnswer {
            status,
            body,
            headers: head.headers,
        })
    }

    /// Whether somebody listens on this port.
    pub fn is_open(&self, port: u16) -> bool {
        match connection::connect(port, Instant::now() + LOOK_TIMEOUT) {
            Ok(_) => true,
            // A full queue of connections is one of somebody who listens. Other errors, such as a lack of descriptors,
            // say nothing about the model server.
            Err(e) => e.kind() != ErrorKind::ConnectionRefused,
        }
    }
}

/// The connection's buffer becomes large when so many bytes pass through it.
fn reserve_large_buffer(memory: &Buffer, bytes: usize) -> Result<Option<Reservation>, SendError> {
    match bytes > SMALL_BYTES {
        true => memory
            .reserve_outside(LARGE_BYTES)
            .map_err(SendError::NoRoom),
        false => Ok(None),
    }
}

fn read_all(mut body: Body, mut bytes: Buffer) -> Result<Buffer, SendError> {
    let announced = body.content_length().unwrap_or(u64::MAX);
    let most = usize::try_from(announced).unwrap_or(usize::MAX);
    let mut reader = body.with_config().limit(u64::MAX).reader();
    let _buffer = reserve_large_buffer(&bytes, most)?;
    if announced < u64::MAX {
        let likely = most.min(MAX_RESERVED_BYTES);
        bytes.reserve_exact(likely).map_err(SendError::NoRoom)?;
    }
    loop {
        let room = bytes.room();
        // Not more than there is room for, so that nothing is allocated here.
        let mut piece = reader.by_ref().take(room as u64);
        let read = piece.read_to_end(bytes.bytes_mut());
        if read.map_err(|e| send_error(Error::from(e)))? < room {
            return Ok(bytes);
        }
        // One byte more tells whether that is all.
        let mut next = [0];
        let read = loop {
            match reader.read(&mut next) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        if read.map_err(|e| send_error(Error::from(e)))? == 0 {
            return Ok(bytes);
        }
        bytes.reserve(1, most).map_err(SendError::NoRoom)?;
        bytes.bytes_mut().push(next[0]);
    }
}

/// Reads the body of an error and cuts it if it is too long. Dropping a body that was not read to its end closes its
/// connection.
fn read_error(mut body: Body, headers: &mut HeaderMap) -> io::Result<Vec<u8>> {
    let announced = body.content_length();
    let mut reader = body.with_config().limit(u64::MAX).reader();
    let mut bytes = Vec::new();
    (&mut reader)
        .take(MAX_ERROR_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() <= MAX_ERROR_BYTES {
        return Ok(bytes);
    }
    if announced.is_none_or(|bytes| bytes <= MAX_SKIPPED_BYTES) {
        // The answer is complete enough, however this ends.
        let _ = io::copy(&mut reader.take(MAX_SKIPPED_BYTES), &mut io::sink());
    }
    let cut = error_body::cut(&bytes, announced);
    headers.remove(header::TRANSFER_ENCODING);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(cut.len()));
    Ok(cut)
}

fn send_error(error: Error) -> SendError {
    match error {
        Error::Timeout(_) => SendError::Deadline,
        Error::Io(e) if wait::is_cancelled(&e) => SendError::Cancelled,
        Error::Io(e) if e.kind() == ErrorKind::ConnectionRefused => SendError::Refused,
        Error::Io(e) if is_local(&e) => SendError::Local(e.to_string()),
        other => SendError::Lost(other.to_string()),
    }
}

/// Whether this process ran out of something. Socket time-outs, which are EAGAIN too, are converted before this is asked.
fn is_local(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(
            Errno::MFILE
                | Errno::NFILE
                | Errno::NOMEM
                | Errno::NOBUFS
                | Errno::ADDRNOTAVAIL
                | Errno::AGAIN
        )
    )
}

#[cfg(test)]
mod tests;
