//! HTTP to TensorFlow Serving: one agent, its connections kept and shared by all workers.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ureq::http::{self, HeaderMap, Method, header};
use ureq::{Agent, AsSendBody, Error};

use crate::supervise::lifecycle::Status;
use crate::tfs::status::{self, Versions};
use crate::tfs::transport::Loopback;

/// A request to TensorFlow Serving.
#[derive(Debug, Clone, Copy)]
pub struct TfsRequest<'a> {
    /// HTTP method, upper case.
    pub method: &'a str,
    /// Path and query, starting with `/`.
    pub path: &'a str,
    /// The body's type.
    pub content_type: Option<&'a str>,
    /// The body; nothing is sent with methods that have none when it is empty.
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
    /// The connection broke before the whole answer arrived.
    #[error("connection lost: {0}")]
    Lost(String),
    /// This cannot be sent as an HTTP request.
    #[error("{0}")]
    Malformed(String),
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
/// Status answers are small and come at once, or the server hangs.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

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
        request: &TfsRequest,
        deadline: Instant,
    ) -> Result<TfsAnswer, SendError> {
        let mut builder = http::Request::builder()
            .method(request.method)
            .uri(format!("http://localhost:{port}{}", request.path));
        if let Some(content_type) = request.content_type {
            builder = builder.header(header::CONTENT_TYPE, content_type);
        }
        let malformed = |e: http::Error| SendError::Malformed(e.to_string());
        let takes_body = matches!(request.method, "POST" | "PUT" | "PATCH");
        if takes_body || !request.body.is_empty() {
            self.run(builder.body(request.body).map_err(malformed)?, deadline)
        } else {
            self.run(builder.body(()).map_err(malformed)?, deadline)
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
            .allow_non_standard_methods(true)
            .build();
        let (head, mut body) = self.agent.run(request).map_err(send_error)?.into_parts();
        let announced = body.content_length().unwrap_or(0);
        let mut bytes = Vec::with_capacity(announced.min(MAX_RESERVED_BYTES) as usize);
        body.with_config()
            .limit(u64::MAX)
            .reader()
            .read_to_end(&mut bytes)
            .map_err(|e| send_error(Error::from(e)))?;
        Ok(TfsAnswer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: bytes,
        })
    }

    /// Whether somebody listens on this port.
    pub fn is_open(&self, port: u16) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match TcpStream::connect_timeout(&address, STATUS_TIMEOUT) {
            Ok(_) => true,
            // A full queue of connections is one of somebody who listens.
            Err(e) => e.kind() != ErrorKind::ConnectionRefused,
        }
    }

    /// Asks the model server on this port whether all these versions of models are AVAILABLE.
    pub fn status(&self, port: u16, models: &[Versions]) -> Status {
        let mut first_problem = None;
        for model in models {
            let status = match self.ask_for_status(port, &model.name) {
                Ok(answer) => status::of_model(&answer, model),
                // It will not answer about the others either.
                Err(problem) => return Status::Other(problem),
            };
            match status {
                Status::Available => {}
                Status::Failed { .. } => return status,
                Status::Other(_) => {
                    first_problem.get_or_insert(status);
                }
            }
        }
        first_problem.unwrap_or(Status::Available)
    }

    fn ask_for_status(&self, port: u16, model: &str) -> Result<TfsAnswer, String> {
        let request = TfsRequest {
            method: Method::GET.as_str(),
            path: &format!("/v1/models/{model}"),
            content_type: None,
            body: b"",
        };
        let deadline = Instant::now() + STATUS_TIMEOUT;
        let answer = match self.send(port, &request, deadline) {
            // The connection was kept, and closed just as it was used.
            Err(SendError::Lost(_)) => self.send(port, &request, deadline),
            other => other,
        };
        answer.map_err(|error| match error {
            SendError::Deadline => format!(
                "no answer to a status request within {} s",
                STATUS_TIMEOUT.as_secs()
            ),
            error => error.to_string(),
        })
    }
}

fn send_error(error: Error) -> SendError {
    match error {
        Error::Timeout(_) => SendError::Deadline,
        Error::Io(e) if e.kind() == ErrorKind::ConnectionRefused => SendError::Refused,
        Error::BadUri(_) | Error::Http(_) => SendError::Malformed(error.to_string()),
        other => SendError::Lost(other.to_string()),
    }
}
