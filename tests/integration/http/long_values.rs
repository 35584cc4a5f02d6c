//! Long values of clients: none reaches TensorFlow Serving where its HTTP client has no room for it, and neither errors
//! nor log lines repeat more than the beginning.

use serde_json::json;

use crate::support::{INSTANCES, Server, Setup, request};

/// The most bytes of an error.
const MAX_ERROR: usize = 4 << 10;

/// A status, and a request with a value of thousands of bytes in it.
type Case = (u16, Vec<u8>);

fn long() -> String {
    "a\"\\".repeat(5_000)
}

/// What both modes refuse.
fn cases(model: &str) -> Vec<Case> {
    let long = long();
    let path = long.replace(['"', '\\'], "b");
    let header = |name, value: &str| request("POST", "/invocations", &[(name, value)], INSTANCES);
    let attribute = |name: &str| {
        header(
            "X-Amzn-SageMaker-Custom-Attributes",
            &format!("{name}={long}"),
        )
    };
    let own = |target: &str| request("POST", target, &[], INSTANCES);
    vec![
        (404, own(&format!("/{path}"))),
        (405, request("PUT", &format!("/tfs/{path}"), &[], b"")),
        (405, request(&path, "/ping", &[], b"")),
        (414, own(&format!("/tfs/v1/models/{model}/{path}"))),
        (414, own(&format!("/tfs/v1/models/{model}:predict?{path}"))),
        (
            414,
            own(&format!("/v1/models/{model}/labels/{path}:predict")),
        ),
        (
            414,
            request("GET", &format!("/v1/models/{model}?{path}"), &[], b""),
        ),
        (
            400,
            request(
                "POST",
                &format!("/tfs/v1/models/{model}:predict"),
                &[("Content-Type", &long)],
                INSTANCES,
            ),
        ),
        (415, header("Content-Type", &long)),
        (415, header("Content-Encoding", &long)),
        (
            400,
            header("Content-Type", &format!("text/csv; header={path}")),
        ),
        (406, header("Accept", &long)),
        (417, header("Expect", &long)),
        (400, attribute("tfs-model-name")),
        (400, attribute("tfs_model_name")),
        (400, attribute("tfs-model-version")),
        (400, attribute("tfs-method")),
        (
            400,
            header(
                "X-Amzn-SageMaker-Custom-Attributes",
                &format!("tfs-model-version={}1", "0".repeat(8_199)),
            ),
        ),
    ]
}

/// Asserts that these are refused with short errors, that TensorFlow Serving gets none of them, and that the log stays
/// short.
fn assert_short(server: &Server, cases: Vec<Case>) {
    let before = server.requests().len();
    for (status, bytes) in cases {
        let response = server.exchange(&bytes);
        let start = String::from_utf8_lossy(&bytes[..100]).into_owned();
        assert_eq!(response.status, status, "{start}: {}", response.text());
        assert!(
            response.body.len() <= MAX_ERROR,
            "{start}: {}",
            response.body.len()
        );
    }
    assert_eq!(server.requests().len(), before);
    server.wait_for_log("\"GET /ends-the-log");
    let log = server.log();
    let longest = log
        .lines()
        .max_by_key(|line| line.len())
        .unwrap_or_default();
    assert!(longest.len() < 1_000, "{longest}");
}

#[test]
fn long_values_are_refused_with_short_errors() {
    let server = Setup::new()
        .var("SAGEMAKER_TFS_NGINX_LOGLEVEL", "info")
        .start();
    let mut cases = cases("half_plus_three");
    cases.push((404, request("GET", "/ends-the-log", &[("X", &long())], b"")));
    assert_short(&server, cases);
    server.assert_serves();
}

#[test]
fn long_values_are_refused_with_short_errors_in_multi_model_mode() {
    let setup = Setup::multi_model(1).var("SAGEMAKER_TFS_NGINX_LOGLEVEL", "info");
    let server = setup.start();
    server.add_loaded(&["m"]);
    let long = long();
    let path = long.replace(['"', '\\'], "b");
    let load = |name: &str, url: &str| {
        let body = json!({"model_name": name, "url": url}).to_string();
        let headers = [("Content-Type", "application/json")];
        request("POST", "/models", &headers, body.as_bytes())
    };
    let target = [("X-Amzn-SageMaker-Target-Model", &*long)];
    let mut cases: Vec<Case> = cases("m").into_iter().filter(is_for_a_model).collect();
    cases.extend([
        (404, request("POST", "/invocations", &target, INSTANCES)),
        (404, request("GET", &format!("/models/{path}"), &[], b"")),
        (404, request("DELETE", &format!("/models/{path}"), &[], b"")),
        (
            404,
            request("POST", &format!("/models/{path}/invoke"), &[], INSTANCES),
        ),
        (
            404,
            request(
                "POST",
                &format!("/v1/models/{path}:predict"),
                &[],
                INSTANCES,
            ),
        ),
        (405, request("PUT", &format!("/models/{path}"), &[], b"")),
        (
            400,
            request("GET", &format!("/models?limit={path}"), &[], b""),
        ),
        (400, load(&long, "/m")),
        (400, load("n", &long)),
        (400, load("n", &format!("/{long}"))),
        (404, load("n", &format!("/{}", "\u{301}".repeat(500)))),
        (404, request("GET", "/ends-the-log", &[("X", &long)], b"")),
    ]);
    assert_short(&server, cases);
    server.assert_model_serves("m");
}

/// In multi-model mode, the headers of `/invocations` are judged after the name of the model, which is missing here.
fn is_for_a_model((status, _): &Case) -> bool {
    matches!(status, 404 | 405 | 414 | 417)
}
