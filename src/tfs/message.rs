//! Requests to TensorFlow Serving's REST API, as the rest of the program words them, and its answers.
//!
//! Checking a request is left to `outgoing.rs`, sending it to `client.rs`.

use ureq::http::{HeaderMap, header};

use crate::budget::Buffer;
use crate::tfs::checked_body::CheckedBody;

/// The methods that TensorFlow Serving may get; see `outgoing.rs` for why there are no others.
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
    pub body: &'a CheckedBody,
}

/// Its answer.
#[derive(Debug)]
pub struct TfsAnswer {
    /// HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Buffer,
}

impl TfsAnswer {
    /// The body's type.
    pub fn content_type(&self) -> Option<&str> {
        let value = self.headers.get(header::CONTENT_TYPE)?;
        value.to_str().ok()
    }
}
