//! Requests to TFS's REST API, as the rest of the program describes them, and TFS's responses.
//!
//! `outgoing.rs` checks a request, and `client.rs` sends it.

use ureq::http::{HeaderMap, header};

use crate::budget::Buffer;
use crate::tfs::checked_body::CheckedBody;

/// The HTTP methods that we send to TFS; `outgoing.rs` says why there are no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET, without a body.
    Get,
    /// POST, with a body that may be empty.
    Post,
}

/// A request to TFS.
#[derive(Debug, Clone, Copy)]
pub struct TfsRequest<'a> {
    /// The HTTP method.
    pub method: Method,
    /// The path and query, starting with `/`.
    pub path: &'a str,
    /// The content type; sent with [`Method::Post`] only.
    pub content_type: Option<&'a str>,
    /// The body; sent with [`Method::Post`] only.
    pub body: &'a CheckedBody,
}

/// A response from TFS.
#[derive(Debug)]
pub struct TfsResponse {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Buffer,
}

impl TfsResponse {
    /// The content type, if it is ASCII text.
    pub fn content_type(&self) -> Option<&str> {
        let value = self.headers.get(header::CONTENT_TYPE)?;
        value.to_str().ok()
    }
}
