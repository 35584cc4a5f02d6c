//! Managing models in multi-model mode: listing, loading, describing and unloading through `/models`.
//!
//! This file handles HTTP: it checks where a request comes from and wraps the results. `model_bodies.rs` reads and
//! writes the bodies; `models::registry` does the work.

use serde_json::Value;

use crate::api::{Api, Mode, model_bodies};
use crate::convert::request::GZIP_MAGIC;
use crate::error::{RequestError, shown};
use crate::http::Request;
use crate::http::head::Head;
use crate::http::response::Response;
use crate::models::registry::Registry;

/// Largest body of `POST /models`, which holds only a name and a path.
pub const MAX_LOAD_BYTES: usize = 64 << 10;

impl Api {
    fn registry(&self) -> Result<&Registry, RequestError> {
        match &self.mode {
            Mode::Registry(registry) => Ok(registry),
            // Unreachable: in this mode no route leads here.
            Mode::Fixed(_) => Err(RequestError::new(404, "Not Found")),
        }
    }

    pub(super) fn list_models(&self, query: &str) -> Result<Response, RequestError> {
        Ok(json(&model_bodies::list(self.registry()?, query)?))
    }

    pub(super) fn load_model(&self, request: &Request) -> Result<Response, RequestError> {
        check_not_from_a_page(&request.head)?;
        check_plain(request)?;
        Ok(success(&model_bodies::load(
            self.registry()?,
            &request.body,
        )?))
    }

    pub(super) fn unload_model(
        &self,
        request: &Request,
        name: &str,
    ) -> Result<Response, RequestError> {
        check_origin(&request.head)?;
        Ok(success(&model_bodies::unload(self.registry()?, name)?))
    }

    pub(super) fn describe_model(
        &self,
        request: &Request,
        name: &str,
    ) -> Result<Response, RequestError> {
        let registry = self.registry()?;
        let description = model_bodies::describe(registry, name, request.deadline)?;
        Ok(json(&description))
    }
}

/// Keeps web pages from loading models, which may contain scripts. A page open in a browser on this computer can send
/// requests to the server. So the server refuses content types that a browser sends without a CORS preflight, and
/// requests whose `Origin` is another site.
fn check_not_from_a_page(head: &Head) -> Result<(), RequestError> {
    let simple = [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ];
    for content_type in head.values("Content-Type") {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        if simple.iter().any(|name| essence.eq_ignore_ascii_case(name)) {
            let text = format!("Unsupported Media Type: {essence}; send application/json");
            return Err(RequestError::new(415, text));
        }
    }
    check_origin(head)
}

/// Refuses compressed bodies: they hold a name and a path, and nothing is gained.
///
/// # Errors
/// 415 for a `Content-Encoding`, and for a body that is gzip without saying so.
fn check_plain(request: &Request) -> Result<(), RequestError> {
    let encoding = request.head.list("Content-Encoding").unwrap_or_default();
    let mut encodings = encoding.split(',').map(str::trim);
    let is_plain = encodings.all(|name| name.is_empty() || name.eq_ignore_ascii_case("identity"));
    let what = match is_plain {
        false => format!("The Content-Encoding {} is not supported", shown(&encoding)),
        true if request.body.starts_with(GZIP_MAGIC) => {
            "The body is compressed with gzip".to_owned()
        }
        true => return Ok(()),
    };
    let text = format!("{what}; send the body of POST /models uncompressed.");
    Err(RequestError::new(415, text))
}

/// Refuses requests from web pages, except pages that this server's own loopback address served.
fn check_origin(head: &Head) -> Result<(), RequestError> {
    let is_same_origin = |origin: &str| {
        let host = head.first("Host").unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        ["localhost", "127.0.0.1", "[::1]"].contains(&name)
            && origin.strip_prefix("http://") == Some(host)
    };
    match head.values("Origin").all(is_same_origin) {
        true => Ok(()),
        false => Err(RequestError::new(
            403,
            "Forbidden: web pages of other origins may not manage models",
        )),
    }
}

fn json(value: &Value) -> Response {
    Response::json(200, value.to_string().into_bytes())
}

/// Formatted like the Python container's responses, which users match as text: with a space after the colon.
fn success(text: &str) -> Response {
    let body = format!("{{\"success\": {}}}", Value::from(text));
    Response::json(200, body.into_bytes())
}
