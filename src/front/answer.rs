//! Answers on the wire, one write for a small one.
//!
//! tiny_http's own responses are written in pieces and cannot say `Connection: close`, which clients need to hear
//! while we shut down; so heads are written here.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::SystemTime;

use tiny_http::{HTTPVersion, Method, Request, StatusCode};

use crate::convert::accept::DEFAULT_TYPE;
use crate::error::RequestError;
use crate::front::headers;

/// An answer to a request.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: Option<Cow<'static, str>>,
    pub body: Vec<u8>,
    pub header: Option<(&'static str, &'static str)>,
    /// Whether the client is told to end the connection.
    pub ends_connection: bool,
}

impl Answer {
    /// 200 without a body.
    pub fn empty() -> Self {
        Self {
            status: 200,
            content_type: None,
            body: Vec::new(),
            header: None,
            ends_connection: false,
        }
    }

    /// An answer with a JSON body.
    pub fn json(status: u16, body: Vec<u8>) -> Self {
        Self {
            status,
            content_type: Some(DEFAULT_TYPE.into()),
            body,
            header: None,
            ends_connection: false,
        }
    }
}

impl From<RequestError> for Answer {
    fn from(error: RequestError) -> Self {
        Self {
            header: error.header,
            ends_connection: error.ends_connection,
            ..Self::json(error.status, error.to_json())
        }
    }
}

/// Bodies up to this size are copied behind their head, so that both leave in one write.
const ONE_WRITE: usize = 16 * 1024;

/// Sends `answer`. `close`: tell the client in any case that this connection is at its end.
///
/// # Errors
/// When the client is gone or does not read.
pub fn send(request: Request, answer: &Answer, close: bool) -> io::Result<()> {
    let connection = connection_header(&request, close || answer.ends_connection);
    let with_body = *request.method() != Method::Head;
    let mut head = head(answer, connection);
    let mut writer = request.into_writer();
    if with_body && answer.body.len() <= ONE_WRITE {
        head.extend_from_slice(&answer.body);
        writer.write_all(&head)?;
    } else {
        writer.write_all(&head)?;
        if with_body {
            writer.write_all(&answer.body)?;
        }
    }
    writer.flush()
}

/// A whole answer, for [`send_prepared`].
pub fn prepare(answer: &Answer) -> Vec<u8> {
    let mut bytes = head(answer, None);
    bytes.extend_from_slice(&answer.body);
    bytes
}

/// Sends a prepared answer.
///
/// # Errors
/// As [`send`].
pub fn send_prepared(request: Request, bytes: &[u8]) -> io::Result<()> {
    let mut writer = request.into_writer();
    writer.write_all(bytes)?;
    writer.flush()
}

/// The head of an answer, up to and including the empty line.
fn head(answer: &Answer, connection: Option<&str>) -> Vec<u8> {
    let reason = StatusCode(answer.status).default_reason_phrase();
    let mut head = Vec::with_capacity(256 + answer.body.len().min(ONE_WRITE));
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        write!(head, "{name}{value}\r\n").expect("writing to memory does not fail");
    };
    line("HTTP/1.1 ", &format_args!("{} {reason}", answer.status));
    line("Server: ", &"sagemaker-tfs");
    line("Date: ", &httpdate::HttpDate::from(SystemTime::now()));
    if let Some(content_type) = &answer.content_type {
        line("Content-Type: ", content_type);
    }
    if let Some((name, value)) = answer.header {
        line(name, &format_args!(": {value}"));
    }
    line("Content-Length: ", &answer.body.len());
    if let Some(connection) = connection {
        line("Connection: ", &connection);
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// What to say about the connection: HTTP/1.1 keeps it unless told otherwise, HTTP/1.0 the other way round.
fn connection_header(request: &Request, close: bool) -> Option<&'static str> {
    let asks = |word| headers::connection_asks(request, word);
    if close || asks("close") || asks("upgrade") {
        Some("close")
    } else if *request.http_version() == HTTPVersion(1, 0) {
        Some(if asks("keep-alive") {
            "keep-alive"
        } else {
            "close"
        })
    } else {
        None
    }
}
