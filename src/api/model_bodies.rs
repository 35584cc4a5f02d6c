//! The bodies and queries of `/models`: parses load requests and list queries, and writes lists, descriptions and the
//! confirmations of loads and unloads.
//!
//! Field names and texts follow SageMaker's multi-model interface and the Python container, so they must not change.

use std::path::{Component, Path};
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::budget::Buffer;
use crate::config::is_model_name;
use crate::error::{RequestError, clipped, shown};
use crate::models::registry::Registry;
use crate::tfs::checked_body::CheckedBody;
use crate::tfs::message::{Method, TfsRequest};

/// Models on a page of the list, unless the request sets a limit.
const DEFAULT_PAGE: usize = 100;
/// The longest url, bytes. SageMaker's have fewer than 100. Messages repeat it.
const MAX_URL_BYTES: usize = 1024;

/// Loads the model that the body of `POST /models` names. Returns the confirmation once the model serves.
///
/// # Errors
/// 400 for an invalid body, name or url, 404 for a url without a model, 409 when the name is taken, 408 when the load
/// takes too long, 507 when memory, ports or processes run out, 500 when the model does not start.
pub fn load(registry: &Registry, body: &[u8]) -> Result<String, RequestError> {
    let LoadRequest { model_name, url } = LoadRequest::parse(body)?;
    let ports = registry.load(&model_name, &url)?;
    Ok(format!(
        "Successfully loaded model {model_name}, listening on rest port {}, grpc port {}.",
        ports.rest, ports.grpc
    ))
}

/// Unloads a model. Returns the confirmation.
///
/// # Errors
/// 404 when the model is not loaded.
pub fn unload(registry: &Registry, name: &str) -> Result<String, RequestError> {
    registry.unload(name)?;
    Ok(format!("Successfully unloaded model {name}."))
}

/// A page of the loaded models in the order of their names, with a token if another page follows.
///
/// # Errors
/// 400 for an invalid limit.
pub fn list(registry: &Registry, query: &str) -> Result<Value, RequestError> {
    let PageRequest { token, limit } = PageRequest::parse(query)?;
    let (page, has_more) = registry.list(token, limit);
    let describe = |(name, url): &(String, String)| json!({"modelName": name, "modelUrl": url});
    let mut response = json!({"models": page.iter().map(describe).collect::<Vec<_>>()});
    if let (Some((last, _)), true) = (page.last(), has_more) {
        response["nextPageToken"] = json!(last);
    }
    Ok(response)
}

/// Describes a loaded model, including the status of its versions as TensorFlow Serving reports it.
///
/// # Errors
/// 404 when the model is not loaded, and the errors of the call to TensorFlow Serving.
pub fn describe(registry: &Registry, name: &str, deadline: Instant) -> Result<Value, RequestError> {
    let model = registry.get(name)?;
    let status_request = TfsRequest {
        method: Method::Get,
        path: &format!("/v1/models/{name}"),
        content_type: None,
        body: &CheckedBody::default(),
    };
    let backend = &model.backend().backend;
    let response = backend.call(&status_request, &Buffer::default(), deadline)?;
    let mut description = json!({"modelName": name, "modelUrl": model.url()});
    if let Ok(Value::Object(status)) = serde_json::from_slice(&response.body) {
        for (key, value) in status {
            description[key] = value;
        }
    }
    Ok(description)
}

/// The body of `POST /models`. Parsing keeps only these two strings; other fields are ignored.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
struct LoadRequest {
    model_name: String,
    url: String,
}

impl LoadRequest {
    fn parse(body: &[u8]) -> Result<Self, RequestError> {
        const EXPECTED: &str = "The body must be a JSON object with the strings model_name and url";
        let bad_request = |text: String| Err(RequestError::bad_request(text));
        let load: Self = match serde_json::from_slice(body) {
            // serde also takes a list for a struct.
            Ok(_) if !body.trim_ascii_start().starts_with(b"{") => {
                return bad_request(format!("{EXPECTED}."));
            }
            Ok(load) => load,
            // The error may quote the body.
            Err(e) => return bad_request(format!("{EXPECTED}: {}", clipped(&e.to_string()))),
        };
        let (name, url) = (&load.model_name, &load.url);
        if !is_model_name(name) {
            return bad_request(format!(
                "model_name is {}; accepted: letters, digits, '.', '_' and '-', starting with a letter or digit, at \
                 most 255",
                shown(name)
            ));
        }
        let path = Path::new(url);
        if url.len() > MAX_URL_BYTES {
            return bad_request(format!(
                "url has {} bytes; accepted: at most {MAX_URL_BYTES}",
                url.len()
            ));
        }
        // The url appears in log lines, where control characters could forge other lines.
        if !path.is_absolute()
            || path.components().any(|c| c == Component::ParentDir)
            || url.contains(char::is_control)
        {
            return bad_request(format!(
                "url is {}; accepted: an absolute path without \"..\" or control characters",
                shown(url)
            ));
        }
        Ok(load)
    }
}

/// The query of `GET /models`.
#[derive(Debug, PartialEq, Eq)]
struct PageRequest<'a> {
    /// The last name of the previous page; empty for the first page.
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
                        let value = shown(value);
                        let text = format!("limit is {value}; accepted: a whole number from 1");
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
    fn load_requests_need_a_valid_name_and_url() {
        let good = br#"{"model_name": "m.1", "url": "/opt/ml/models/m.1/model"}"#;
        let load = LoadRequest::parse(good).unwrap();
        assert_eq!(load.model_name, "m.1");
        assert_eq!(load.url, "/opt/ml/models/m.1/model");
        for body in [
            "",
            "[]",
            r#"["m", "/m"]"#,
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
    fn errors_do_not_repeat_long_values() {
        let long = "\u{301}a".repeat(15_000);
        let texts = [
            format!("{{\"model_name\": \"m\", \"url\": \"/{long}\"}}"),
            format!("{{\"model_name\": \"m\", \"url\": \"{}\"}}", &long[..999]),
            format!("{{\"model_name\": \"{long}\", \"url\": \"/m\"}}"),
            format!("\"{long}\""),
        ];
        let mut errors = Vec::from_iter(
            texts
                .iter()
                .map(|text| LoadRequest::parse(text.as_bytes()).unwrap_err()),
        );
        errors.push(PageRequest::parse(&format!("limit={long}")).unwrap_err());
        for error in errors {
            assert_eq!(error.status, 400);
            assert!(error.text.len() < 1000, "{}", error.text.len());
        }
    }

    #[test]
    fn page_requests_default_the_token_and_limit_and_reject_bad_limits() {
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
