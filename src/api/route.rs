//! Routing: finds the route for a method and a path.
//!
//! `Api::plan` decides where each route runs and whether it takes a body; `Api::run` does its work.

use crate::error::{RequestError, clipped};
use crate::tfs::message::Method;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// `/ping`: SageMaker's health check.
    Ping,
    /// `/v2/health/live`: KServe's check that the process serves.
    Live,
    /// `/v2/health/ready`: KServe's check that models can be used.
    Ready,
    /// `/execution-parameters`: SageMaker batch transform asks for concurrency and payload limits.
    ExecutionParameters,
    /// `/invocations`: inference.
    Invocations,
    /// TensorFlow Serving's own API, below `/tfs/` or at the paths of KServe's first protocol, with the method, path and
    /// query to send there. HEAD becomes GET; the HTTP server drops the body of the response.
    Tfs(Method, String),
    /// `GET /models?QUERY` in multi-model mode: lists the models.
    ListModels(String),
    /// `POST /models` in multi-model mode: loads a model.
    LoadModel,
    /// `GET /models/NAME` in multi-model mode: describes a model.
    DescribeModel(String),
    /// `DELETE /models/NAME` in multi-model mode: unloads a model.
    UnloadModel(String),
    /// `POST /models/NAME/invoke` in multi-model mode: inference with a model.
    InvokeModel(String),
}

/// Finds the route of a request target. `multi_model` adds the routes of multi-model mode.
///
/// # Errors
/// 404 for an unknown path, 405 for a known path with a method it does not accept.
pub fn route(method: &str, url: &str, multi_model: bool) -> Result<Route, RequestError> {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let (route, accepted) = match path {
        "/ping" => (Route::Ping, "GET, HEAD"),
        "/v2/health/live" => (Route::Live, "GET, HEAD"),
        "/v2/health/ready" => (Route::Ready, "GET, HEAD"),
        "/execution-parameters" => (Route::ExecutionParameters, "GET, HEAD"),
        "/invocations" => (Route::Invocations, "POST"),
        _ => match url.strip_prefix("/tfs") {
            Some(inner) if path.starts_with("/tfs/") => match method {
                "POST" => (Route::Tfs(Method::Post, inner.into()), "GET, HEAD, POST"),
                _ => (Route::Tfs(Method::Get, inner.into()), "GET, HEAD, POST"),
            },
            _ if path.starts_with("/v1/models/") => match model_call(path) {
                Some(Call::Infer) => (Route::Tfs(Method::Post, url.into()), "POST"),
                Some(Call::Ask) => (Route::Tfs(Method::Get, url.into()), "GET, HEAD"),
                Some(Call::Unnamed) => return Err(no_name()),
                None => return Err(RequestError::new(404, "Not Found")),
            },
            _ if multi_model && path == "/models" => match method {
                "POST" => (Route::LoadModel, "GET, POST"),
                _ => (Route::ListModels(query.into()), "GET, POST"),
            },
            _ if multi_model && path.starts_with("/models/") => {
                let name = &path["/models/".len()..];
                match (name.strip_suffix("/invoke"), method) {
                    _ if name.is_empty() || name == "/invoke" => return Err(no_name()),
                    (Some(name), _) => (Route::InvokeModel(name.into()), "POST"),
                    (None, "DELETE") => (Route::UnloadModel(name.into()), "GET, DELETE"),
                    (None, _) => (Route::DescribeModel(name.into()), "GET, DELETE"),
                }
            }
            _ => return Err(RequestError::new(404, "Not Found")),
        },
    };
    if accepted.split(", ").any(|name| name == method) {
        Ok(route)
    } else {
        let text = format!("Method Not Allowed: {} accepts {accepted}", clipped(path));
        Err(RequestError {
            header: Some(("Allow", accepted)),
            ..RequestError::new(405, text)
        })
    }
}

fn no_name() -> RequestError {
    RequestError::new(404, "The name of the model is missing in the path.")
}

/// What a path of KServe's first protocol, which took its paths from TensorFlow Serving, does.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    /// Inference.
    Infer,
    /// The status or the metadata of a model.
    Ask,
    /// Nothing: the name of the model is empty.
    Unnamed,
}

/// What `/v1/models/NAME`, with `/versions/V` or `/labels/L` or neither, and `:METHOD` or `/metadata` or neither, does;
/// `None` for another path. Wrong names are left to the checks that all paths for TensorFlow Serving pass.
fn model_call(path: &str) -> Option<Call> {
    let path = path.strip_prefix("/v1/models/")?;
    let (path, method) = match path.split_once(':') {
        Some((path, method)) => (path, Some(method)),
        None => (path, None),
    };
    let segments: Vec<&str> = path.split('/').collect();
    if segments[0].is_empty() {
        return Some(Call::Unnamed);
    }
    let rest = match segments[1..] {
        ["versions" | "labels", _, ref rest @ ..] => rest,
        ref rest => rest,
    };
    match (rest, method) {
        ([], Some("predict" | "classify" | "regress")) => Some(Call::Infer),
        ([] | ["metadata"], None) => Some(Call::Ask),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_known_routes() {
        for (method, url, expected) in [
            ("GET", "/ping", Route::Ping),
            ("HEAD", "/ping?x=1", Route::Ping),
            ("GET", "/execution-parameters", Route::ExecutionParameters),
            ("POST", "/invocations", Route::Invocations),
            ("POST", "/invocations?a=b", Route::Invocations),
            (
                "GET",
                "/tfs/v1/models/m",
                Route::Tfs(Method::Get, "/v1/models/m".into()),
            ),
            (
                "POST",
                "/tfs/v1/models/m:predict?q",
                Route::Tfs(Method::Post, "/v1/models/m:predict?q".into()),
            ),
            ("HEAD", "/tfs/", Route::Tfs(Method::Get, "/".into())),
            ("GET", "/v2/health/live", Route::Live),
            ("HEAD", "/v2/health/ready?x", Route::Ready),
            (
                "GET",
                "/tfs/http://other/x",
                Route::Tfs(Method::Get, "/http://other/x".into()),
            ),
        ] {
            assert_eq!(
                route(method, url, false).unwrap(),
                expected,
                "{method} {url}"
            );
        }
    }

    #[test]
    fn finds_the_paths_of_kserve_in_both_modes() {
        let (get, post) = (Method::Get, Method::Post);
        for (method, url, expected) in [
            ("GET", "/v1/models/m", get),
            ("HEAD", "/v1/models/m?x=:predict", get),
            ("GET", "/v1/models/m/metadata", get),
            ("GET", "/v1/models/m/versions/1", get),
            ("GET", "/v1/models/m/labels/stable/metadata", get),
            ("GET", "/v1/models/versions", get),
            ("POST", "/v1/models/m:predict", post),
            ("POST", "/v1/models/m:classify?x=y", post),
            ("POST", "/v1/models/m/versions/1:regress", post),
            ("POST", "/v1/models/m/labels/stable:predict", post),
            // Refused before they reach TensorFlow Serving, like those below /tfs/.
            ("GET", "/v1/models/..", get),
        ] {
            for multi_model in [false, true] {
                let expected = Route::Tfs(expected, url.into());
                assert_eq!(route(method, url, multi_model).unwrap(), expected, "{url}");
            }
        }
        for (method, url, status) in [
            ("GET", "/v1", 404),
            ("GET", "/v1/models", 404),
            ("GET", "/v1/models/", 404),
            ("POST", "/v1/models/:predict", 404),
            ("GET", "/v1/models//versions/1", 404),
            ("GET", "/v1/other/m", 404),
            ("POST", "/v1/models/m:predict:predict", 404),
            ("POST", "/v1/models/m:Predict", 404),
            ("POST", "/v1/models/m:explain", 404),
            ("POST", "/v1/models/m/infer", 404),
            ("POST", "/v1/models/m/metadata:predict", 404),
            ("GET", "/v1/models/m/", 404),
            ("GET", "/v1/models/m/versions", 404),
            ("GET", "/v1/models/m/versions/1/labels/a", 404),
            ("GET", "/v1/models/m/../../x", 404),
            ("GET", "//v1/models/m", 404),
            ("GET", "/v2", 404),
            ("GET", "/v2/health", 404),
            ("GET", "/v2/health/live/", 404),
            ("GET", "/v2/models/m/ready", 404),
            ("POST", "/v2/models/m/infer", 404),
            ("GET", "/v1/models/m:predict", 405),
            ("POST", "/v1/models/m", 405),
            ("DELETE", "/v1/models/m/metadata", 405),
            ("POST", "/v2/health/live", 405),
            ("PUT", "/v2/health/ready", 405),
        ] {
            let error = route(method, url, false).unwrap_err();
            assert_eq!(error.status, status, "{method} {url}");
        }
    }

    #[test]
    fn returns_404_for_unknown_paths_and_405_for_other_methods() {
        for (method, url, status) in [
            ("GET", "/", 404),
            ("GET", "?x=/ping", 404),
            ("GET", "", 404),
            ("GET", "/ping/", 404),
            ("GET", "/pinger", 404),
            ("GET", "/tfs", 404),
            ("GET", "/tfs?x=/tfs/", 404),
            ("GET", "/tfsx/v1", 404),
            ("POST", "/ping", 405),
            ("GET", "/invocations", 405),
            ("PUT", "/execution-parameters", 405),
            ("DELETE", "/tfs/v1/models/m", 405),
            ("CONNECT", "/tfs/", 405),
            ("get", "/tfs/v1/models/m", 405),
            ("post", "/tfs/v1/models/m:predict", 405),
        ] {
            assert_eq!(
                route(method, url, false).unwrap_err().status,
                status,
                "{method} {url}"
            );
        }
        for (method, url) in [
            ("GET", "/v1/models/"),
            ("POST", "/v1/models/:predict"),
            ("GET", "/models/"),
            ("DELETE", "/models/"),
            ("POST", "/models//invoke"),
        ] {
            let error = route(method, url, true).unwrap_err();
            assert_eq!(error.status, 404, "{method} {url}");
            assert!(error.text.contains("missing"), "{}", error.text);
        }
        let long = format!("/tfs/{}", "a".repeat(30_000));
        let error = route("PUT", &long, false).unwrap_err();
        assert!(error.status == 405 && error.text.len() < 400);
        assert_eq!(
            route("GET", "/x", false).unwrap_err().to_json(),
            br#"{"error": "Not Found"}"#
        );
    }
}
