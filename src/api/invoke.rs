//! Inference: `/invocations`, and `/models/NAME/invoke` in multi-model mode.

use std::mem;
use std::time::Instant;

use crate::api::attributes::{self, Attributes};
use crate::api::{Api, Mode};
use crate::budget::Buffer;
use crate::convert::request::{Format, Target};
use crate::convert::response::{self, Accepted};
use crate::error::RequestError;
use crate::handlers;
use crate::http::Request;
use crate::http::response::Response;
use crate::models::backend::ModelBackend;
use crate::models::exhaustion;
use crate::tfs::checked_body::CheckedBody;
use crate::tfs::message::{Method, TfsRequest, TfsResponse};
use crate::wait::compute_large;

impl Api {
    /// Runs inference. `named` is the model named by the path, if any.
    pub(super) fn invoke(
        &self,
        request: &mut Request,
        named: Option<&str>,
    ) -> Result<Response, RequestError> {
        let Request {
            head,
            body,
            deadline,
            ..
        } = request;
        let deadline = *deadline;
        let custom_attributes = head.list("X-Amzn-SageMaker-Custom-Attributes");
        let mut attributes = attributes::parse(custom_attributes.as_deref().unwrap_or_default())?;
        let model = || {
            let target = head.first("X-Amzn-SageMaker-Target-Model");
            let name = named.or(target).or(attributes.model_name).ok_or_else(|| {
                RequestError::bad_request(
                    "The request names no model: send the header X-Amzn-SageMaker-Target-Model or the custom \
                     attribute tfs-model-name.",
                )
            })?;
            attributes.model_name = Some(name);
            Ok(name)
        };
        let model_backend = self.backend(model, deadline)?;
        let content_type = head.first("Content-Type");
        let accept = head.list("Accept");
        let path = model_path(&attributes, &model_backend.default_model);
        if let Some(handlers) = &model_backend.handlers {
            let request = handlers::invocation::Request {
                model_name: attributes.model_name,
                model_version: attributes.model_version,
                method: attributes.method.map(attributes::Method::as_str),
                custom_attributes: custom_attributes.as_deref(),
                path: &path,
                content_type,
                accept: accept.as_deref(),
                content_length: head
                    .first("Content-Length")
                    .and_then(|length| length.parse().ok()),
                body,
            };
            let response = handlers.invoke(&request, deadline)?;
            return Ok(Response {
                content_type: Some(response.content_type.into()),
                ..Response::json(200, response.body)
            });
        }
        let body = converted(Format::of(content_type)?, mem::take(body))?;
        self.predict(&model_backend, &path, &body, accept.as_deref(), deadline)
    }

    /// Sends the converted request to TensorFlow Serving and lays out its response.
    fn predict(
        &self,
        model_backend: &ModelBackend,
        path: &str,
        body: &CheckedBody,
        accept: Option<&str>,
        deadline: Instant,
    ) -> Result<Response, RequestError> {
        let sent = TfsRequest {
            method: Method::Post,
            path,
            content_type: Some("application/json"),
            body,
        };
        let response = model_backend.backend.call(&sent, body, deadline);
        let TfsResponse { status, body, .. } = match self.mode {
            Mode::Fixed(_) => response?,
            Mode::Registry(_) => exhaustion::as_507(response)?,
        };
        let (body, content_type) = laid_out(status, body, accept)?;
        Ok(Response {
            content_type: Some(content_type.into()),
            ..Response::json(status, body)
        })
    }
}

/// Converts a client's body to the body that TensorFlow Serving expects.
fn converted(format: Format, mut body: Buffer) -> Result<CheckedBody, RequestError> {
    let body = compute_large(body.len(), move || {
        let _ = format.to_tfs(&mut body, &Target::default())?;
        Ok::<_, RequestError>(body)
    })?;
    CheckedBody::check(body)
}

/// Lays out a response body as `accept` asks. Returns the body and its content type.
fn laid_out(
    status: u16,
    body: Buffer,
    accept: Option<&str>,
) -> Result<(Buffer, &'static str), RequestError> {
    let accepted = Accepted::negotiate(accept, Accepted::Json { one_line: false })?;
    compute_large(body.len(), move || {
        response::lay_out(status, body, accepted, None)
    })
}

/// The path of the request in TensorFlow Serving's REST API.
fn model_path(attributes: &Attributes, default_model: &str) -> String {
    let name = attributes.model_name.unwrap_or(default_model);
    let method = attributes.method.unwrap_or_default().as_str();
    match attributes.model_version {
        Some(version) => format!("/v1/models/{name}/versions/{version}:{method}"),
        None => format!("/v1/models/{name}:{method}"),
    }
}
