//! Responses, and their bytes on the wire.
//!
//! [`ResponseWriter`] holds the bytes and counts what has been sent; the connection's state machine (`connection.rs`)
//! sends them.

use std::borrow::Cow;
use std::io::{IoSlice, Write};
use std::time::SystemTime;

use ureq::http::StatusCode;

use crate::budget::Buffer;
use crate::error::RequestError;
use crate::http::head::Head;

/// A response to a request.
#[derive(Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The `Content-Type` header.
    pub content_type: Option<Cow<'static, str>>,
    /// The body, which may be empty.
    pub body: Buffer,
    /// An additional header.
    pub header: Option<(&'static str, &'static str)>,
    /// More headers, which a handler chose. They must be checked: their bytes are sent as they are.
    pub headers: Vec<(String, String)>,
    /// Whether the connection ends after this response.
    pub ends_connection: bool,
}

impl Response {
    /// A response with status 200 and an empty body.
    pub fn empty() -> Self {
        Self {
            status: 200,
            content_type: None,
            body: Buffer::default(),
            header: None,
            headers: Vec::new(),
            ends_connection: false,
        }
    }

    /// A response with a JSON body.
    pub fn json(status: u16, body: impl Into<Buffer>) -> Self {
        Self {
            status,
            content_type: Some("application/json".into()),
            body: body.into(),
            header: None,
            headers: Vec::new(),
            ends_connection: false,
        }
    }
}

impl From<RequestError> for Response {
    fn from(error: RequestError) -> Self {
        Self {
            header: error.header,
            ends_connection: error.ends_connection,
            ..Self::json(error.status, error.to_json())
        }
    }
}

/// The bytes of a response that is being sent.
#[derive(Debug)]
pub struct ResponseWriter {
    head: Cow<'static, [u8]>,
    body: Buffer,
    sent: usize,
}

impl ResponseWriter {
    /// Serializes `response` for the request with the head `to`. `to` is `None` if the head could not be read. `keep`:
    /// whether the connection stays open.
    pub fn new(mut response: Response, to: Option<&Head>, keep: bool) -> Self {
        if response.status == 205 {
            response.body = Buffer::default(); // must be empty (RFC 9110, 15.3.6)
        }
        let connection = match to {
            _ if !keep => Some("close"),
            Some(head) if head.is_http_1_0 => Some("keep-alive"),
            _ => None,
        };
        Self {
            head: head(&response, connection, Some(SystemTime::now())).into(),
            body: match to {
                Some(head) if head.method() == "HEAD" => Buffer::default(),
                _ if !has_body(response.status) => Buffer::default(),
                _ => response.body,
            },
            sent: 0,
        }
    }

    /// A writer for a response that [`prepare`] has serialized.
    pub fn prepared(bytes: &'static [u8]) -> Self {
        Self {
            head: bytes.into(),
            body: Buffer::default(),
            sent: 0,
        }
    }

    /// Size of the whole response in bytes.
    pub fn size(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Whether the whole response has been sent.
    pub fn is_sent(&self) -> bool {
        self.sent == self.size()
    }

    /// The bytes still to be sent: the rest of the head and of the body.
    pub fn parts(&self) -> [IoSlice<'_>; 2] {
        let in_head = self.sent.min(self.head.len());
        let in_body = self.sent - in_head;
        [
            IoSlice::new(&self.head[in_head..]),
            IoSlice::new(&self.body[in_body..]),
        ]
    }

    /// Records that `amount` more bytes have been sent.
    pub fn advance(&mut self, amount: usize) {
        self.sent += amount;
    }
}

/// Serializes a whole response for [`ResponseWriter::prepared`]. It has no `Date`, because the same bytes are sent at
/// different times.
pub fn prepare(response: &Response) -> Vec<u8> {
    let mut bytes = head(response, None, None);
    bytes.extend_from_slice(&response.body);
    bytes
}

/// Whether responses with this status have a body and a `Content-Length` (RFC 9110, 8.6; RFC 9112, 6.3).
fn has_body(status: u16) -> bool {
    !matches!(status, 100..200 | 204 | 304)
}

/// The head of a response, up to and including the empty line.
fn head(response: &Response, connection: Option<&str>, date: Option<SystemTime>) -> Vec<u8> {
    let reason = StatusCode::from_u16(response.status).ok();
    let reason = reason
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default();
    let mut head = Vec::with_capacity(256);
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        write!(head, "{name}{value}\r\n").expect("writing to memory does not fail");
    };
    line("HTTP/1.1 ", &format_args!("{} {reason}", response.status));
    line("Server: ", &"sagemaker-tfs");
    if let Some(date) = date {
        line("Date: ", &httpdate::HttpDate::from(date));
    }
    if let Some(content_type) = &response.content_type {
        line("Content-Type: ", content_type);
    }
    if let Some((name, value)) = response.header {
        line(name, &format_args!(": {value}"));
    }
    for (name, value) in &response.headers {
        line(name, &format_args!(": {value}"));
    }
    if has_body(response.status) {
        line("Content-Length: ", &response.body.len());
    }
    if let Some(connection) = connection {
        line("Connection: ", &connection);
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(writer: &ResponseWriter) -> Vec<u8> {
        writer.parts().map(|part| part.to_vec()).concat()
    }

    #[test]
    fn writes_head_and_body_split_at_any_point() {
        for piece in 1..200 {
            let mut writer = ResponseWriter::new(Response::json(200, b"{}".to_vec()), None, true);
            let (mut sent, whole) = (Vec::new(), bytes(&writer));
            while !writer.is_sent() {
                let left = bytes(&writer);
                let piece = piece.min(left.len());
                sent.extend_from_slice(&left[..piece]);
                writer.advance(piece);
            }
            assert_eq!(sent, whole);
            assert!(sent.ends_with(b"Content-Length: 2\r\n\r\n{}"));
        }
    }

    #[test]
    fn statuses_without_a_body_have_no_content_length() {
        for (status, expected) in [(200, "\r\n\r\n{}"), (204, "\r\n\r\n"), (304, "\r\n\r\n")] {
            let writer = ResponseWriter::new(Response::json(status, b"{}".to_vec()), None, true);
            let text = String::from_utf8(bytes(&writer)).unwrap();
            assert!(text.ends_with(expected), "{text}");
            assert_eq!(text.contains("Content-Length"), status == 200, "{text}");
            assert_eq!(writer.size(), text.len());
        }
    }

    #[test]
    fn sets_the_connection_header_for_the_version_and_drops_the_body_for_head() {
        let respond = |head: &str, keep| {
            let head = Head::parse(head.into()).unwrap();
            let writer =
                ResponseWriter::new(Response::json(404, b"{}".to_vec()), Some(&head), keep);
            String::from_utf8(bytes(&writer)).unwrap()
        };
        let old = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
        assert!(respond(old, true).contains("\r\nConnection: keep-alive\r\n"));
        assert!(respond(old, false).contains("\r\nConnection: close\r\n"));
        let new = respond("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", true);
        assert!(new.starts_with("HTTP/1.1 404 Not Found\r\n"));
        assert!(!new.contains("Connection:"));
        assert!(
            new.ends_with("Content-Length: 2\r\n\r\n"),
            "no body to HEAD"
        );
    }
}
