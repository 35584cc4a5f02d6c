//! TensorFlow Serving's own API, below `/tfs/` and, for KServe, at the root.

use std::borrow::Cow;

use crate::api::{Api, content_encoding};
use crate::error::RequestError;
use crate::http::Request;
use crate::http::response::Response;
use crate::tfs::checked_body::CheckedBody;
use crate::tfs::message::{Method, TfsRequest};

impl Api {
    /// Forwards a request to TensorFlow Serving. The bodies, the status and the content types pass unchanged.
    pub(super) fn pass_through(
        &self,
        request: &mut Request,
        method: Method,
        path: &str,
    ) -> Result<Response, RequestError> {
        let Request {
            head,
            body,
            deadline,
            ..
        } = request;
        // A compressed body is decompressed here, because TensorFlow Serving must get no JSON that was not checked.
        let encoding = head.list("Content-Encoding");
        let body = content_encoding::decoded(std::mem::take(body), encoding.as_deref())?;
        let body = CheckedBody::check(body)?;
        let path = self.with_name_for_tfs(path);
        let sent = TfsRequest {
            method,
            path: &path,
            content_type: head.first("Content-Type"),
            body: &body,
        };
        let model_backend = self.backend(|| named_in(&path), *deadline)?;
        let response = model_backend.backend.call(&sent, &body, *deadline)?;
        Ok(Response {
            content_type: response.content_type().map(|t| Cow::Owned(t.to_owned())),
            ..Response::json(response.status, response.body)
        })
    }
}

impl Api {
    /// The path with TensorFlow Serving's name for the model, if the path has the name of the model's folder.
    fn with_name_for_tfs<'p>(&self, path: &'p str) -> Cow<'p, str> {
        let (name, tail) = split(path);
        match self.name_of(&percent_decoded(name)) {
            Some(for_tfs) if for_tfs != name => Cow::Owned(format!("{MODELS}{for_tfs}{tail}")),
            _ => Cow::Borrowed(path),
        }
    }
}

/// Where models are in TensorFlow Serving's REST API.
const MODELS: &str = "/v1/models/";

/// The name of the model in a path of TensorFlow Serving's REST API.
///
/// # Errors
/// 404 if the path names none.
fn named_in(path: &str) -> Result<&str, RequestError> {
    match split(path).0 {
        "" => Err(RequestError::new(
            404,
            "The name of the model is missing in the path.",
        )),
        name => Ok(name),
    }
}

/// The name of the model in a path, and what follows it.
fn split(path: &str) -> (&str, &str) {
    let rest = path.strip_prefix(MODELS).unwrap_or_default();
    rest.split_at(rest.find(['/', ':', '?']).unwrap_or(rest.len()))
}

/// The text without percent-encoding. What is encoded wrongly stays as it is.
fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return text.into();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}
