//! TensorFlow Serving's own API, below `/tfs/`.

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
        let sent = TfsRequest {
            method,
            path,
            content_type: head.first("Content-Type"),
            body: &body,
        };
        let model_backend = self.backend(|| Ok(model_in(path)), *deadline)?;
        let response = model_backend.backend.call(&sent, &body, *deadline)?;
        Ok(Response {
            content_type: response.content_type().map(|t| Cow::Owned(t.to_owned())),
            ..Response::json(response.status, response.body)
        })
    }
}

/// The name of the model in a path of TensorFlow Serving's REST API; empty if the path names none.
fn model_in(path: &str) -> &str {
    let rest = path.strip_prefix("/v1/models/").unwrap_or_default();
    rest.split(['/', ':', '?']).next().unwrap_or_default()
}
