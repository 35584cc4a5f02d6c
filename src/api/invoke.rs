//! Inference: `/invocations`, and `/models/NAME/invoke` in multi-model mode. Finds the model and, if it has one, calls
//! its handler; `predict.rs` does the rest.

use std::borrow::Cow;
use std::mem;

use crate::api::Api;
use crate::api::attributes::{self, Attributes};
use crate::api::predict::Prediction;
use crate::error::{RequestError, shown};
use crate::handlers;
use crate::handlers::answer::Answer;
use crate::http::Request;
use crate::http::head::Head;
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
        let is_other_name = |name: &str| self.name_of(name).is_some();
        let mut attributes = attributes::parse(header, is_other_name, attributes::warn_unknown)?;
        let for_tfs = |name| self.name_of(name).unwrap_or(name);
        attributes.model_name = attributes.model_name.map(for_tfs);
        let model = || {
            let target = target_model(head)?;
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
        // A header without a value counts as absent.
        let content_type = head
            .first("Content-Type")
            .filter(|value| !value.trim().is_empty());
        let accept = head
            .list("Accept")
            .filter(|list| !list.trim_matches([' ', '\t', ',']).is_empty());
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
                content_length: body.len() as u64,
                headers: &headers_for_script(head),
                body,
            };
            let answer = handlers.invoke(&request, deadline)?;
            return self.answer(answer, accept.as_deref());
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

    /// The response for what a handler answers.
    fn answer(&self, answer: Answer, accept: Option<&str>) -> Result<Response, RequestError> {
        match answer {
            Answer::OfModel(error) => self.error_of_model(error, accept),
            Answer::OfScript {
                status,
                content_type,
                headers,
                body,
            } => Ok(Response {
                content_type: Some(content_type.into()),
                headers,
                ..Response::json(status, body)
            }),
        }
    }
}

/// The model that the header of multi-model endpoints names. A header without a value counts as absent.
///
/// # Errors
/// 400 for several headers with different values.
fn target_model(head: &Head) -> Result<Option<&str>, RequestError> {
    let values = head.values("X-Amzn-SageMaker-Target-Model");
    let mut values = values.filter(|value| !value.is_empty());
    let first = values.next();
    match values.find(|&value| Some(value) != first) {
        None => Ok(first),
        Some(other) => Err(RequestError::bad_request(format!(
            "The headers X-Amzn-SageMaker-Target-Model name different models: {} and {}.",
            shown(first.unwrap_or_default()),
            shown(other)
        ))),
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

/// Whether scripts see this header in `context.headers`: SageMaker's, those that follow a request through systems, and
/// the one that says how to read the body.
fn is_for_script(name: &str) -> bool {
    const PREFIX: &str = "x-amzn-sagemaker-";
    const NAMES: [&str; 4] = [
        "traceparent",
        "tracestate",
        "x-request-id",
        "content-encoding",
    ];
    let start = name.get(..PREFIX.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
        || NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// The headers that scripts see: names in lower case, and each once; the values of repeated ones are joined.
fn headers_for_script(head: &Head) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    let mut seen: Vec<(Cow<str>, Cow<str>)> = Vec::new();
    for (name, value) in head.headers().filter(|(name, _)| is_for_script(name)) {
        let name = name.to_ascii_lowercase();
        match seen.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => *values = format!("{values}, {value}").into(),
            None => seen.push((name.into(), value.into())),
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_multi_model_endpoints_name_one_model_or_none() {
        for (values, expected) in [
            (&[][..], Ok(None)),
            (&["", " "], Ok(None)),
            (&["a"], Ok(Some("a"))),
            (&["", "a", "a"], Ok(Some("a"))),
            (&["a", "b"], Err(400)),
            (&["a", "a", "A"], Err(400)),
        ] {
            let lines = values
                .iter()
                .map(|value| format!("X-Amzn-SageMaker-Target-Model: {value}\r\n"));
            let lines: String = lines.collect();
            let head = format!("POST /invocations HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
            let head = Head::parse(head.into()).unwrap();
            let target = target_model(&head).map_err(|error| error.status);
            assert_eq!(target, expected, "{values:?}");
        }
    }

    #[test]
    fn scripts_see_each_header_once_and_no_other() {
        let head = "POST /invocations HTTP/1.1\r\nHost: x\r\nX-AMZN-SageMaker-Session-Id: a\r\nAuthorization: secret\r\n\
            x-request-id: 1\r\nX-Request-ID:  2 \r\nTraceState:\r\nX-Amzn-SageMaker-: \u{e9}\r\nContent-Encoding: gzip\r\n\
            X-Amzn-SageMaker: no\r\n\r\n";
        let head = Head::parse(head.into()).unwrap();
        let seen = headers_for_script(&head);
        let seen: Vec<_> = seen.iter().map(|(n, v)| (&**n, &**v)).collect();
        let expected = [
            ("x-amzn-sagemaker-session-id", "a"),
            ("x-request-id", "1, 2"),
            ("tracestate", ""),
            ("x-amzn-sagemaker-", "\u{e9}"),
            ("content-encoding", "gzip"),
        ];
        assert_eq!(seen, expected);
    }
}
