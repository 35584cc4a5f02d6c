//! Inference without a handler: converts the body, sends it to TensorFlow Serving, and converts its response to the
//! format that the client accepts.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use crate::api::attributes::Attributes;
use crate::api::content_encoding;
use crate::api::{Api, Mode};
use crate::budget::Buffer;
use crate::config::FormatConfig;
use crate::convert::request::{Conversion, Format, Target, json};
use crate::convert::response::{self, Accepted};
use crate::convert::signature::{Choice, Signature};
use crate::error::RequestError;
use crate::http::response::Response;
use crate::models::backend::ModelBackend;
use crate::models::exhaustion;
use crate::tfs::checked_body::CheckedBody;
use crate::tfs::message::{self, TfsRequest, TfsResponse};
use crate::wait::compute_large;

/// A client's request, with the parts that decide how it is converted and where it is sent.
#[derive(Debug)]
pub(super) struct Prediction<'a> {
    /// The custom attributes; the model is named, or the default.
    pub attributes: &'a Attributes<'a>,
    /// The path in TensorFlow Serving's REST API.
    pub path: &'a str,
    /// The header `Content-Type`.
    pub content_type: Option<&'a str>,
    /// The header `Content-Encoding`.
    pub content_encoding: Option<Cow<'a, str>>,
    /// The header `Accept`.
    pub accept: Option<&'a str>,
    /// When the request ends.
    pub deadline: Instant,
}

/// How the server converts, from the settings.
#[derive(Debug)]
pub(super) struct Formats {
    /// The settings.
    config: FormatConfig,
    /// The format of responses to requests that do not care.
    default_accept: Accepted,
}

impl Formats {
    /// The formats of these settings.
    pub fn new(config: &FormatConfig) -> Self {
        Self {
            config: config.clone(),
            default_accept: Accepted::default_of(config.default_accept),
        }
    }
}

impl Api {
    /// Runs inference with this body.
    pub(super) fn predict(
        &self,
        model: &ModelBackend,
        request: &Prediction,
        body: Buffer,
    ) -> Result<Response, RequestError> {
        let format = Format::of(request.content_type)?;
        let accepted = Accepted::negotiate(request.accept, self.formats.default_accept)?;
        let body = content_encoding::decoded(body, request.content_encoding.as_deref())?;
        let (body, choice) = self.converted(model, request, format, body)?;
        let body = CheckedBody::check(body)?;
        let sent = TfsRequest {
            method: message::Method::Post,
            path: request.path,
            content_type: Some("application/json"),
            body: &body,
        };
        let response = model.backend.call(&sent, &body, request.deadline);
        let TfsResponse {
            status,
            body: response,
            ..
        } = self.in_mode(response)?;
        let signature = match accepted.needs_signature() && status == 200 {
            true => signature_of_response(model, request, &body, choice),
            false => None,
        };
        drop(body);
        let (body, content_type) = compute_large(response.len(), move || {
            response::lay_out(status, response, accepted, signature.as_deref())
        })?;
        Ok(Response {
            content_type: Some(content_type.into()),
            ..Response::json(status, body)
        })
    }

    /// Lays out an error of TensorFlow Serving that a handler leaves to the server.
    pub(super) fn error_of_model(
        &self,
        response: TfsResponse,
        accept: Option<&str>,
    ) -> Result<Response, RequestError> {
        let TfsResponse { status, body, .. } = self.in_mode(Ok(response))?;
        // A format that only the script knows is no reason to hide the error.
        let default = self.formats.default_accept;
        let accepted = Accepted::negotiate(accept, default).unwrap_or(default);
        let (body, content_type) = response::lay_out(status, body, accepted, None)?;
        Ok(Response {
            content_type: Some(content_type.into()),
            ..Response::json(status, body)
        })
    }

    /// The response, or in multi-model mode the error that SageMaker expects in its place.
    fn in_mode(
        &self,
        response: Result<TfsResponse, RequestError>,
    ) -> Result<TfsResponse, RequestError> {
        match self.mode {
            Mode::Fixed(_) => response,
            Mode::Registry(_) => exhaustion::as_507(response),
        }
    }

    /// Converts a client's body to the body that TensorFlow Serving expects. Returns the signature, too, if it was
    /// looked up.
    fn converted(
        &self,
        model: &ModelBackend,
        request: &Prediction,
        format: Format,
        mut body: Buffer,
    ) -> Result<(Buffer, Option<Choice>), RequestError> {
        let signatures = &model.backend.signatures;
        let attributes = request.attributes;
        let mut choice = None;
        if format.needs_signature()
            || attributes.signature_name.is_some()
            || signatures.has_default_name()
        {
            choice = Some(choose(model, request)?);
        }
        loop {
            let rows = attributes.method.unwrap_or_default().rows();
            let target = Target::new(&self.formats.config, rows, choice.clone());
            let work = body.len().saturating_mul(format.growth(&target));
            let result = compute_large(work, move || {
                let conversion = format.to_tfs(&mut body, &target);
                conversion.map(|conversion| (body, conversion))
            });
            match result? {
                (body, Conversion::Done) => return Ok((body, choice)),
                (unchanged, Conversion::NeedsSignature) => body = unchanged,
            }
            choice = Some(choose(model, request)?);
        }
    }
}

/// Looks up the signature of a request. Waits until the model serves: before, its signatures are not known.
///
/// # Errors
/// 400 for a signature that the model does not have, 504 at the deadline, 499 when the client has hung up.
fn choose(model: &ModelBackend, request: &Prediction) -> Result<Choice, RequestError> {
    let serves = model.backend.pool.wait_until_serving(request.deadline);
    serves.map_err(|why| model.backend.unavailable(why))?;
    lookup(model, request, request.attributes.signature_name)
}

/// Looks up the signature `name`, or the default one, of the model and version that the request asks for.
fn lookup(
    model: &ModelBackend,
    request: &Prediction,
    name: Option<&str>,
) -> Result<Choice, RequestError> {
    let attributes = request.attributes;
    model.backend.signatures.choose(
        attributes.model_name.unwrap_or(&model.default_model),
        attributes.model_version,
        name,
    )
}

/// The signature that the response belongs to. A signature that the body names itself comes first.
fn signature_of_response(
    model: &ModelBackend,
    request: &Prediction,
    body: &Buffer,
    choice: Option<Choice>,
) -> Option<Arc<Signature>> {
    match (json::signature_name(body), choice) {
        (None, Some(choice)) => choice.signature,
        (name, _) => lookup(model, request, name.as_deref()).ok()?.signature,
    }
}
