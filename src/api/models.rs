//! The management of models in multi-model mode: `/models`.

use serde_json::Value;

use crate::api::{Api, Mode, model_bodies};
use crate::error::RequestError;
use crate::http::Request;
use crate::http::head::Head;
use crate::http::response::Response;
use crate::models::registry::Registry;

/// The body of `POST /models` is a name and a path.
pub const MAX_LOAD_BYTES: usize = 64 << 10;

impl Api {
    fn registry(&self) -> Result<&Registry, RequestError> {
        match &self.mode {
            Mode::Registry(registry) => Ok(registry),
            // There are no routes to it then.
            Mode::Fixed(_) => Err(RequestError::new(404, "Not Found")),
        }
    }

    pub(super) fn list_models(&self, query: &str) -> Result<Response, RequestError> {
        Ok(json(&model_bodies::list(self.registry()?, query)?))
    }

    pub(super) fn load_model(&self, request: &Request) -> Result<Response, RequestError> {
        check_not_from_a_page(&request.head)?;
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

/// A page in somebody's browser can send requests to this computer. Models, which bring scripts along, are not loaded
/// for it: what a page can send without the browser asking us first is refused, and so is what a browser says comes
/// from elsewhere.
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

/// Refuses requests of pages that are not from this computer's own address.
fn check_origin(head: &Head) -> Result<(), RequestError> {
    let is_ours = |origin: &str| {
        let host = head.first("Host").unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        ["localhost", "127.0.0.1", "[::1]"].contains(&name)
            && origin.strip_prefix("http://") == Some(host)
    };
    match head.values("Origin").all(is_ours) {
        true => Ok(()),
        false => Err(RequestError::new(
            403,
            "Forbidden: models are not managed for pages of other origins",
        )),
    }
}

fn json(value: &Value) -> Response {
    Response::json(200, value.to_string().into_bytes())
}

/// Written as users of the older container match it: with a space after the colon.
fn success(text: &str) -> Response {
    let body = format!("{{\"success\": {}}}", Value::from(text));
    Response::json(200, body.into_bytes())
}
