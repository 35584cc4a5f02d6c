//! Inference: `/invocations`, and `/models/NAME/invoke` in multi-model mode. Finds the model and, if it has one, calls
//! its handler; `predict.rs` does the rest.

use std::mem;

use crate::api::Api;
use crate::api::attributes::{self, Attributes};
use crate::api::predict::Prediction;
use crate::error::RequestError;
use crate::handlers;
use crate::http::Request;
use crate::http::response::Response;

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
        let header = custom_attributes.as_deref().unwrap_or_default();
        let mut attributes = attributes::parse_for(header, |name| self.name_of(name).is_some())?;
        let for_tfs = |name| self.name_of(name).unwrap_or(name);
        attributes.model_name = attributes.model_name.map(for_tfs);
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
                rows: attributes.method.unwrap_or_default().rows(),
                signature_name: attributes.signature_name,
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
        let prediction = Prediction {
            attributes: &attributes,
            path: &path,
            content_type,
            content_encoding: head.list("Content-Encoding"),
            accept: accept.as_deref(),
            deadline,
        };
        self.predict(&model_backend, &prediction, mem::take(body))
    }
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
