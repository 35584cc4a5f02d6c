//! What clients of `/models` send and read: the body of a load, the query and pages of the list, descriptions, and the
//! sentences that say what was done.
//!
//! Field names and texts are those of SageMaker's multi-model interface and of the older container.

use std::path::{Component, Path};
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::budget::Buffer;
use crate::config::is_model_name;
use crate::error::RequestError;
use crate::models::registry::Registry;
use crate::tfs::checked_body::CheckedBody;
use crate::tfs::message::{Method, TfsRequest};

/// Models in a page when the request does not say.
const DEFAULT_PAGE: usize = 100;

/// Loads a model as the body of `POST /models` says. Returns when it can be used: the sentence that says so.
///
/// # Errors
/// 400 for a wrong body, name or url, 404 for a url without a model, 409 when the model is there, 408 when it takes too
/// long, 507 when something runs out, 500 when it does not start.
pub fn load(registry: &Registry, body: &[u8]) -> Result<String, RequestError> {
    let LoadRequest { model_name, url } = LoadRequest::parse(body)?;
    let ports = registry.load(&model_name, &url)?;
    Ok(format!(
        "Successfully loaded model {model_name}, listening on rest port {}, grpc port {}.",
        ports.rest, ports.grpc
    ))
}

/// Unloads a model: the sentence that says so.
///
/// # Errors
/// 404 when it is not loaded.
pub fn unload(registry: &Registry, name: &str) -> Result<String, RequestError> {
    registry.unload(name)?;
    Ok(format!("Successfully unloaded model {name}."))
}

/// A page of the loaded models by name, with the token for the next page if there is one.
///
/// # Errors
/// 400 for a wrong limit.
pub fn list(registry: &Registry, query: &str) -> Result<Value, RequestError> {
    let PageRequest { token, limit } = PageRequest::parse(query)?;
    let (page, has_more) = registry.list(token, limit);
    let describe = |(name, url): &(String, String)| json!({"modelName": name, "modelUrl": url});
    let mut answer = json!({"models": page.iter().map(describe).collect::<Vec<_>>()});
    if let (Some((last, _)), true) = (page.last(), has_more) {
        answer["nextPageToken"] = json!(last);
    }
    Ok(answer)
}

/// A loaded model, and what TensorFlow Serving says about its versions.
///
/// # Errors
/// 404 when it is not loaded, and what TensorFlow Serving's client says.
pub fn describe(registry: &Registry, name: &str, deadline: Instant) -> Result<Value, RequestError> {
    let model = registry.get(name)?;
    let question = TfsRequest {
        method: Method::Get,
        path: &format!("/v1/models/{name}"),
        content_type: None,
        body: &CheckedBody::default(),
    };
    let backend = &model.backend().backend;
    let answer = backend.call(&question, &Buffer::default(), deadline)?;
    let mut description = json!({"modelName": name, "modelUrl": model.url()});
    if let Ok(Value::Object(status)) = serde_json::from_slice(&answer.body) {
        for (key, value) in status {
            description[key] = value;
        }
    }
    Ok(description)
}

/// The body of `POST /models`. Nothing but its two strings is kept, however large the body is.
#[derive(Debug, Deserialize)]
struct LoadRequest {
    model_name: String,
    url: String,
}

impl LoadRequest {
    fn parse(body: &[u8]) -> Result<Self, RequestError> {
        let wrong = |text: String| Err(RequestError::bad_request(text));
        let load: Self = match serde_json::from_slice(body) {
            Ok(load) => load,
            Err(e) => {
                return wrong(format!(
                    "The body is not a JSON object with model_name and url, both as strings: {e}"
                ));
            }
        };
        let (name, url) = (&load.model_name, &load.url);
        if !is_model_name(name) {
            return wrong(format!(
                "model_name is {name:?}; accepted: letters, digits, '.', '_' and '-', starting with a letter or digit, \
                 at most 255"
            ));
        }
        let path = Path::new(url);
        // The url goes into messages, which are lines of the log.
        if !path.is_absolute()
            || path.components().any(|c| c == Component::ParentDir)
            || url.contains(char::is_control)
        {
            return wrong(format!(
                "url is {url:?}; accepted: an absolute path without \"..\" and control characters"
            ));
        }
        Ok(load)
    }
}

/// The query of `GET /models`.
#[derive(Debug, PartialEq, Eq)]
struct PageRequest<'a> {
    /// The last name of the page before.
    token: &'a str,
    limit: usize,
}

impl<'a> PageRequest<'a> {
    fn parse(query: &'a str) -> Result<Self, RequestError> {
        let (mut token, mut limit) = ("", DEFAULT_PAGE);
        for pair in query.split('&') {
            match pair.split_once('=') {
                Some(("next_page_token", value)) => token = value,
                Some(("limit", value)) if !value.is_empty() => {
                    let number = value.parse().ok().filter(|&n| n > 0);
                    limit = number.ok_or_else(|| {
                        let text = format!("limit is {value:?}; accepted: a whole number from 1");
                        RequestError::bad_request(text)
                    })?;
                }
                _ => {}
            }
        }
        Ok(Self { token, limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_needs_name_and_url() {
        let good = br#"{"model_name": "m.1", "url": "/opt/ml/models/m.1/model"}"#;
        let load = LoadRequest::parse(good).unwrap();
        assert_eq!(load.model_name, "m.1");
        assert_eq!(load.url, "/opt/ml/models/m.1/model");
        for body in [
            "",
            "[]",
            "{}",
            r#"{"model_name": "m"}"#,
            r#"{"model_name": 1, "url": "/m"}"#,
            r#"{"model_name": "../m", "url": "/m"}"#,
            r#"{"model_name": "", "url": "/m"}"#,
            r#"{"model_name": "m", "url": "m"}"#,
            r#"{"model_name": "m", "url": "/opt/../etc"}"#,
            r#"{"model_name": "m", "url": "/opt/ml\nmodels"}"#,
            r#"{"model_name": "m\n", "url": "/m"}"#,
        ] {
            assert_eq!(
                LoadRequest::parse(body.as_bytes()).unwrap_err().status,
                400,
                "{body}"
            );
        }
    }

    #[test]
    fn a_page_has_a_token_and_a_limit() {
        for (query, token, limit) in [
            ("", "", DEFAULT_PAGE),
            ("limit=&next_page_token=", "", DEFAULT_PAGE),
            ("limit=2&x=y&next_page_token=m", "m", 2),
        ] {
            let page = PageRequest::parse(query).unwrap();
            assert_eq!(page, PageRequest { token, limit }, "{query}");
        }
        for query in ["limit=0", "limit=-1", "limit=x", "limit=2.5"] {
            assert_eq!(
                PageRequest::parse(query).unwrap_err().status,
                400,
                "{query}"
            );
        }
    }
}
