//! Which request wants what, by method and path.

use tiny_http::Method;

use crate::error::RequestError;

/// What a request wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// SageMaker's health check.
    Ping,
    /// SageMaker batch transform asks how to call us.
    ExecutionParameters,
    /// Inference.
    Invocations,
    /// TensorFlow Serving's own API; path and query there.
    Tfs(&'a str),
    /// Multi-model mode: the list of models; the query.
    ListModels(&'a str),
    /// Multi-model mode: load a model.
    LoadModel,
    /// Multi-model mode: tell of this model.
    DescribeModel(&'a str),
    /// Multi-model mode: unload this model.
    UnloadModel(&'a str),
    /// Multi-model mode: inference with this model.
    InvokeModel(&'a str),
}

/// Finds the route. `multi_model`: whether there are those of multi-model mode.
///
/// # Errors
/// 404 for unknown paths, 405 for known ones with another method.
pub fn route<'a>(
    method: &Method,
    url: &'a str,
    multi_model: bool,
) -> Result<Route<'a>, RequestError> {
    let url = match url.strip_prefix("http://") {
        // Absolute form, as sent to proxies: the path begins behind the host.
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => url,
    };
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let (route, accepted) = match path {
        "/ping" => (Route::Ping, "GET, HEAD"),
        "/execution-parameters" => (Route::ExecutionParameters, "GET, HEAD"),
        "/invocations" => (Route::Invocations, "POST"),
        _ => match url.strip_prefix("/tfs") {
            // TensorFlow Serving judges methods by itself.
            Some(inner) if path.starts_with("/tfs/") => return Ok(Route::Tfs(inner)),
            _ if multi_model && path == "/models" => match method {
                Method::Post => (Route::LoadModel, "GET, POST"),
                _ => (Route::ListModels(query), "GET, POST"),
            },
            _ if multi_model && path.starts_with("/models/") => {
                let name = &path["/models/".len()..];
                match (name.strip_suffix("/invoke"), method) {
                    (Some(name), _) => (Route::InvokeModel(name), "POST"),
                    (None, Method::Delete) => (Route::UnloadModel(name), "GET, DELETE"),
                    (None, _) => (Route::DescribeModel(name), "GET, DELETE"),
                }
            }
            _ => return Err(RequestError::new(404, "Not Found")),
        },
    };
    if accepted.split(", ").any(|name| name == method.as_str()) {
        Ok(route)
    } else {
        let text = format!("Method Not Allowed: {path} takes {accepted}");
        Err(RequestError {
            header: Some(("Allow", accepted)),
            ..RequestError::new(405, text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_routes() {
        for (method, url, expected) in [
            (Method::Get, "/ping", Route::Ping),
            (Method::Head, "/ping?x=1", Route::Ping),
            (
                Method::Get,
                "/execution-parameters",
                Route::ExecutionParameters,
            ),
            (Method::Post, "/invocations", Route::Invocations),
            (Method::Post, "/invocations?a=b", Route::Invocations),
            (Method::Get, "/tfs/v1/models/m", Route::Tfs("/v1/models/m")),
            (
                Method::Post,
                "/tfs/v1/models/m:predict?q",
                Route::Tfs("/v1/models/m:predict?q"),
            ),
            (Method::Delete, "/tfs/", Route::Tfs("/")),
            (Method::Get, "http://host:8080/ping?x", Route::Ping),
        ] {
            assert_eq!(
                route(&method, url, false).unwrap(),
                expected,
                "{method} {url}"
            );
        }
    }

    #[test]
    fn the_rest_is_404_or_405() {
        for (method, url, status) in [
            (Method::Get, "/", 404),
            (Method::Get, "http://host", 404),
            (Method::Get, "", 404),
            (Method::Get, "/ping/", 404),
            (Method::Get, "/pinger", 404),
            (Method::Get, "/tfs", 404),
            (Method::Get, "/tfs?x=/tfs/", 404),
            (Method::Get, "/tfsx/v1", 404),
            (Method::Post, "/ping", 405),
            (Method::Get, "/invocations", 405),
            (Method::Put, "/execution-parameters", 405),
        ] {
            assert_eq!(
                route(&method, url, false).unwrap_err().status,
                status,
                "{method} {url}"
            );
        }
        assert_eq!(
            route(&Method::Get, "/x", false).unwrap_err().to_json(),
            br#"{"error": "Not Found"}"#
        );
    }
}
