//! Inference: `/invocations`, and `/models/NAME/invoke` in multi-model mode.

use std::mem;
use std::time::Instant;

use crate::api::attributes::{self, Attributes};
use crate::api::{Api, Mode};
use crate::convert::{Format, accept};
use crate::error::RequestError;
use crate::handlers;
use crate::http::Request;
use crate::http::budget::Buffer;
use crate::http::response::Response;
use crate::models::backend::ModelBackend;
use crate::models::exhaustion;
use crate::tfs::checked_body::CheckedBody;
use crate::tfs::message::{Method, TfsAnswer, TfsRequest};
use crate::wait::compute_large;

impl Api {
    /// Inference; `named` is the model of the path, where the path names one.
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
        let mut in_use;
        let served = match &self.mode {
            Mode::Fixed(served) => served,
            Mode::Registry(registry) => {
                let target = head.first("X-Amzn-SageMaker-Target-Model");
                let name = named.or(target).or(attributes.model_name).ok_or_else(|| {
                    RequestError::bad_request(
                        "The request names no model: X-Amzn-SageMaker-Target-Model or tfs-model-name is needed.",
                    )
                })?;
                attributes.model_name = Some(name);
                in_use = registry.get(name)?;
                in_use.wait_for_turn(deadline)?;
                in_use.backend()
            }
        };
        let content_type = head.first("Content-Type");
        let accept = head.list("Accept");
        let path = model_path(&attributes, &served.default_model);
        if let Some(handlers) = &served.handlers {
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
            let answer = handlers.invoke(&request, deadline)?;
            return Ok(Response {
                content_type: Some(answer.content_type.into()),
                ..Response::json(200, answer.body)
            });
        }
        let body = converted(Format::of(content_type)?, mem::take(body))?;
        self.predict(served, &path, &body, accept.as_deref(), deadline)
    }

    /// Asks TensorFlow Serving.
    fn predict(
        &self,
        served: &ModelBackend,
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
        let answer = served.backend.call(&sent, body, deadline);
        let TfsAnswer { status, body, .. } = match self.mode {
            Mode::Fixed(_) => answer?,
            Mode::Registry(_) => exhaustion::as_507(answer)?,
        };
        let (body, content_type) = laid_out(status, body, accept);
        Ok(Response {
            content_type: Some(content_type.into()),
            ..Response::json(status, body)
        })
    }
}

/// The body of a request to TensorFlow Serving.
fn converted(format: Format, mut body: Buffer) -> Result<CheckedBody, RequestError> {
    let body = compute_large(body.len(), move || {
        format.to_tfs(&mut body)?;
        Ok::<_, RequestError>(body)
    })?;
    CheckedBody::check(body)
}

/// The body as the client wants it, and its content type.
fn laid_out(status: u16, mut body: Buffer, accept: Option<&str>) -> (Buffer, &'static str) {
    let accept = accept.map(str::to_owned);
    compute_large(body.len(), move || {
        let content_type = accept::lay_out(status, body.bytes_mut(), accept.as_deref());
        (body, content_type)
    })
}

/// The path of a request in TensorFlow Serving's API.
fn model_path(attributes: &Attributes, default_model: &str) -> String {
    let name = attributes.model_name.unwrap_or(default_model);
    let method = attributes.method.unwrap_or_default().as_str();
    match attributes.model_version {
        Some(version) => format!("/v1/models/{name}/versions/{version}:{method}"),
        None => format!("/v1/models/{name}:{method}"),
    }
}
