//! HTTP to TensorFlow Serving: one agent, its connections kept and shared by all workers.

use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use ureq::http::uri::Scheme;
use ureq::http::{self, HeaderMap, HeaderValue, Uri, header};
use ureq::{Agent, AsSendBody, Body, Error};

use crate::supervise::lifecycle::Status;
use crate::tfs::error_body::{self, MAX_ERROR_BYTES};
use crate::tfs::outgoing::{Content, Outgoing};
use crate::tfs::transport::Loopback;

/// The methods that TensorFlow Serving may get; see [`Outgoing`] for why there are no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Without a body.
    Get,
    /// With a body, which may be empty.
    Post,
}

/// A request to TensorFlow Serving.
#[derive(Debug, Clone, Copy)]
pub struct TfsRequest<'a> {
    /// HTTP method.
    pub method: Method,
    /// Path and query, starting with `/`.
    pub path: &'a str,
    /// The body's type, of [`Method::Post`].
    pub content_type: Option<&'a str>,
    /// The body, of [`Method::Post`].
    pub body: &'a [u8],
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TfsAnswer {
    /// HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl TfsAnswer {
    /// The body's type.
    pub fn content_type(&self) -> Option<&str> {
        let value = self.headers.get(header::CONTENT_TYPE)?;
        value.to_str().ok()
    }
}

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
    /// The connection broke before the whole answer arrived.
    #[error("connection lost: {0}")]
    Lost(String),
}

/// The client. Cheap to share by reference.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
}

/// Room for a large body to move in few steps; small ones do not touch most of it.
const BUFFER_BYTES: usize = 128 * 1024;
/// Room reserved at once for an announced body; larger ones grow as they arrive.
const MAX_RESERVED_BYTES: u64 = 64 * 1024 * 1024;
/// Of an error that is cut, this much is read and dropped to keep the connection.
const MAX_SKIPPED_BYTES: u64 = 256 * 1024;
/// Status answers are small and come at once, or the server hangs.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait for a descriptor, or for another request's connection, before the next try.
pub const LOCAL_PAUSE: Duration = Duration::from_millis(20);

impl Client {
    /// A client that keeps up to `connections` idle connections.
    pub fn new(connections: usize) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent("")
            .accept("")
            .accept_encoding("")
            .max_idle_connections(connections)
            .max_idle_connections_per_host(connections)
            .input_buffer_size(BUFFER_BYTES)
            .output_buffer_size(BUFFER_BYTES)
            .build();
        Self {
            agent: Agent::with_parts(config, Loopback, Loopback),
        }
    }

    /// Sends `request` to the model server on this port and reads the whole answer.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send(
        &self,
        port: u16,
        request: &Outgoing,
        deadline: Instant,
    ) -> Result<TfsAnswer, SendError> {
        let lost = |e: http::Error| SendError::Lost(e.to_string());
        let uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(format!("localhost:{port}"))
            .path_and_query(request.target.clone())
            .build()
            .map_err(lost)?;
        match &request.content {
            Content::None => self.run(http::Request::get(uri).body(()).map_err(lost)?, deadline),
            Content::Body { content_type, body } => {
                let mut builder = http::Request::post(uri);
                if let Some(content_type) = content_type {
                    builder = builder.header(header::CONTENT_TYPE, content_type);
                }
                self.run(builder.body(*body).map_err(lost)?, deadline)
            }
        }
    }

    fn run(
        &self,
        request: http::Request<impl AsSendBody>,
        deadline: Instant,
    ) -> Result<TfsAnswer, SendError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(SendError::Deadline);
        }
        let request = self
            .agent
            .configure_request(request)
            .timeout_global(Some(left))
            .build();
        let (mut head, body) = self.agent.run(request).map_err(send_error)?.into_parts();
        let status = head.status.as_u16();
        if status < 200 {
            return Err(SendError::Lost(format!("an answer with status {status}")));
        }
        let bytes = match status {
            400.. => read_error(body, &mut head.headers),
            _ => read_all(body),
        };
        Ok(TfsAnswer {
            status,
            body: bytes.map_err(|e| send_error(Error::from(e)))?,
            headers: head.headers,
        })
    }

    /// Whether somebody listens on this port.
    pub fn is_open(&self, port: u16) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match TcpStream::connect_timeout(&address, STATUS_TIMEOUT) {
            Ok(_) => true,
            // A full queue of connections is one of somebody who listens. Other errors, such as a lack of descriptors,
            // say nothing about the model server.
            Err(e) => e.kind() != ErrorKind::ConnectionRefused,
        }
    }

    /// Asks the model server on this port whether some version of `model` is AVAILABLE.
    ///
    /// # Errors
    /// When it could not be asked, for a reason of ours.
    pub fn status(&self, port: u16, model: &str) -> Result<Status, String> {
        let request = TfsRequest {
            method: Method::Get,
            path: &format!("/v1/models/{model}"),
            content_type: None,
            body: b"",
        };
        let request = Outgoing::new(&request).map_err(|e| e.text)?;
        let deadline = Instant::now() + STATUS_TIMEOUT;
        let send = || loop {
            match self.send(port, &request, deadline) {
                Err(SendError::Local(_)) if Instant::now() + LOCAL_PAUSE < deadline => {
                    thread::sleep(LOCAL_PAUSE);
                }
                other => break other,
            }
        };
        let answer = match send() {
            // The connection was kept, and closed just as it was used.
            Err(SendError::Lost(_)) => send(),
            other => other,
        };
        Ok(match answer {
            Ok(answer) => status_of(&answer),
            Err(SendError::Local(why)) => return Err(why),
            Err(SendError::Deadline) => Status::Other(format!(
                "no answer to a status request within {} s",
                STATUS_TIMEOUT.as_secs()
            )),
            Err(error) => Status::Other(error.to_string()),
        })
    }
}

fn read_all(mut body: Body) -> io::Result<Vec<u8>> {
    let announced = body.content_length().unwrap_or(0);
    let mut bytes = Vec::with_capacity(announced.min(MAX_RESERVED_BYTES) as usize);
    let mut reader = body.with_config().limit(u64::MAX).reader();
    reader.read_to_end(&mut bytes)?;
    Ok(bytes)
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

/// What an answer to a status request says of the model.
pub fn status_of(answer: &TfsAnswer) -> Status {
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let versions = json["model_version_status"].as_array();
    let mut states = versions
        .into_iter()
        .flatten()
        .filter_map(|version| version["state"].as_str());
    if answer.status == 200 && states.clone().any(|state| state == "AVAILABLE") {
        return Status::Available;
    }
    Status::Other(match states.next() {
        Some(state) => format!("its model is {state}"),
        None => format!("its status answer has HTTP status {}", answer.status),
    })
}

fn send_error(error: Error) -> SendError {
    match error {
        Error::Timeout(_) => SendError::Deadline,
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
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> TfsAnswer {
        TfsAnswer {
            status,
            headers: HeaderMap::new(),
            body: body.into(),
        }
    }

    #[test]
    fn what_runs_out_here_is_not_the_model_servers_fault() {
        for errno in [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOMEM,
            Errno::NOBUFS,
            Errno::ADDRNOTAVAIL,
            Errno::AGAIN,
        ] {
            let error = Error::Io(io::Error::from_raw_os_error(errno.raw_os_error()));
            assert!(matches!(send_error(error), SendError::Local(_)), "{errno}");
        }
        for errno in [Errno::CONNRESET, Errno::PIPE] {
            let error = Error::Io(io::Error::from_raw_os_error(errno.raw_os_error()));
            assert!(matches!(send_error(error), SendError::Lost(_)), "{errno}");
        }
        let refused = io::Error::from_raw_os_error(Errno::CONNREFUSED.raw_os_error());
        assert!(matches!(send_error(Error::Io(refused)), SendError::Refused));
    }

    #[test]
    fn one_available_version_is_enough() {
        let body = r#"{"model_version_status": [{"version": "2", "state": "LOADING"}, {"version": "1", "state": "AVAILABLE"}]}"#;
        assert_eq!(status_of(&answer(200, body)), Status::Available);
    }

    #[test]
    fn anything_else_is_told() {
        let loading = r#"{"model_version_status": [{"version": "2", "state": "LOADING"}]}"#;
        assert_eq!(
            status_of(&answer(200, loading)),
            Status::Other("its model is LOADING".into())
        );
        for body in [
            "",
            "[]",
            "{\"model_version_status\": 1}",
            "{\"error\": \"x\"}",
        ] {
            assert_eq!(
                status_of(&answer(404, body)),
                Status::Other("its status answer has HTTP status 404".into())
            );
        }
    }
}
