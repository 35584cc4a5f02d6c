//! The HTTP client for TFS: sends a request to one instance and reads the response.
//!
//! Each worker has a ureq agent with idle connections of its own. Waiting for an instance and sending lost requests
//! again is left to `backend.rs`.

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
use crate::tfs::message::TfsResponse;
use crate::tfs::outgoing::{Content, Outgoing};
use crate::tfs::transport::{new_agent, with_deadline};
use crate::wait;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The deadline has passed.
    #[error("deadline passed")]
    Deadline,
    /// No process listens on the port: nothing was sent.
    #[error("connection refused")]
    Refused,
    /// This process ran out of descriptors, memory or ports. Nothing was sent, and TFS is not to blame.
    #[error("cannot open a connection: {0}")]
    Local(String),
    /// There is no memory for the response.
    #[error("no memory for the response")]
    NoRoom(NoRoom),
    /// The client has hung up, so the response is not needed.
    #[error("the client has hung up")]
    Cancelled,
    /// The connection broke before the whole response arrived.
    #[error("connection lost: {0}")]
    Lost(String),
}

/// The address of a TFS instance: a port on loopback.
#[derive(Debug, Clone)]
pub struct Address(Authority);

impl Address {
    /// The address with this port.
    pub fn new(port: u16) -> Self {
        let text = format!("localhost:{port}");
        Self(Authority::try_from(text).expect("a host and a port"))
    }
}

/// The client; shared by all workers.
#[derive(Debug)]
pub struct Client {
    /// One agent for each worker, because an agent's connections are behind a lock. Beyond [`MAX_AGENTS`] workers share
    /// them.
    agents: [OnceLock<Agent>; MAX_AGENTS],
    /// The most idle connections that each agent keeps.
    connections: usize,
}

/// The number of agents of a client.
const MAX_AGENTS: usize = 16;

/// The most memory reserved at once for a response with a Content-Length; the buffer of a longer one grows as it
/// arrives.
const MAX_RESERVED_BYTES: usize = 64 << 20;
/// The most bytes of a shortened error that are read and dropped, so that the connection can be used again.
const MAX_SKIPPED_BYTES: u64 = 256 * 1024;
/// The time limit of a connection that only shows whether a process listens.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before the next try when no connection could be opened: a descriptor or port may become free.
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

    /// Sends `request` to the instance at this address and reads the whole response, whose memory counts toward the
    /// request that `memory` belongs to.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send(
        &self,
        to: &Address,
        request: &Outgoing,
        memory: &Buffer,
        deadline: Instant,
    ) -> Result<TfsResponse, SendError> {
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
    ) -> Result<TfsResponse, SendError> {
        if Instant::now() >= deadline {
            return Err(SendError::Deadline);
        }
        let _buffer = reserve_large_buffer(memory, sent)?;
        let (mut head, body) = with_deadline(deadline, || self.agent().run(request))
            .map_err(send_error)?
            .into_parts();
        let status = head.status.as_u16();
        if status < 200 {
            return Err(SendError::Lost(format!("unexpected status {status}")));
        }
        let body = match status {
            400.. => read_error(body, &mut head.headers)
                .map_err(|e| send_error(Error::from(e)))?
                .into(),
            _ => read_all(body, memory.sibling())?,
        };
        Ok(TfsResponse {
            status,
            body,
            headers: head.headers,
        })
    }

    /// Whether a process listens on this port.
    pub fn is_open(&self, port: u16) -> bool {
        match connection::connect(port, Instant::now() + LOOK_TIMEOUT) {
            Ok(_) => true,
            // A full backlog (a timeout) means that a process listens. Other errors, for example a lack of descriptors,
            // say nothing about TFS.
            Err(e) => e.kind() != ErrorKind::ConnectionRefused,
        }
    }
}

/// Reserves memory for the connection's large buffer if this many bytes will make it large.
fn reserve_large_buffer(memory: &Buffer, bytes: usize) -> Result<Option<Reservation>, SendError> {
    match bytes > SMALL_BYTES {
        true => memory
            .reserve_outside(LARGE_BYTES)
            .map_err(SendError::NoRoom),
        false => Ok(None),
    }
}

fn read_all(mut body: Body, mut bytes: Buffer) -> Result<Buffer, SendError> {
    let content_length = body.content_length().unwrap_or(u64::MAX);
    let most = usize::try_from(content_length).unwrap_or(usize::MAX);
    let mut reader = body.with_config().limit(u64::MAX).reader();
    let _buffer = reserve_large_buffer(&bytes, most)?;
    if content_length < u64::MAX {
        let likely = most.min(MAX_RESERVED_BYTES);
        bytes.reserve_exact(likely).map_err(SendError::NoRoom)?;
    }
    loop {
        let room = bytes.room();
        // Reads no more than fits, so that `read_to_end` allocates nothing.
        let mut piece = reader.by_ref().take(room as u64);
        let read = piece.read_to_end(bytes.bytes_mut());
        if read.map_err(|e| send_error(Error::from(e)))? < room {
            return Ok(bytes);
        }
        // One more byte shows whether the body has ended.
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

/// Reads the body of an error and shortens it if it is too long. Dropping a body before its end closes the connection,
/// so this reads on for a while.
fn read_error(mut body: Body, headers: &mut HeaderMap) -> io::Result<Vec<u8>> {
    let content_length = body.content_length();
    let mut reader = body.with_config().limit(u64::MAX).reader();
    let mut bytes = Vec::new();
    (&mut reader)
        .take(MAX_ERROR_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() <= MAX_ERROR_BYTES {
        return Ok(bytes);
    }
    if content_length.is_none_or(|bytes| bytes <= MAX_SKIPPED_BYTES) {
        // We have all of the response that we pass on, even if this fails.
        let _ = io::copy(&mut reader.take(MAX_SKIPPED_BYTES), &mut io::sink());
    }
    let cut = error_body::cut(&bytes, content_length);
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

/// Whether this process ran out of a resource. EAGAIN is one such error here; socket timeouts, which use it too, have
/// been converted before.
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
