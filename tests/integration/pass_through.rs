//! `/tfs/...`: TensorFlow Serving's own REST API, unchanged in both directions.

use serde_json::json;

use crate::support::server::fake;
use crate::support::{INSTANCES, PREDICTIONS, Setup, request};

#[test]
fn the_status_of_a_model_is_asked_through_the_front() {
    let server = Setup::new().start();
    let answer = server.get("/tfs/v1/models/half_plus_three");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let status: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(status["model_version_status"][0]["version"], "123");
    assert_eq!(status["model_version_status"][0]["state"], "AVAILABLE");
    assert!(answer.text().contains("\n "), "its layout is kept");
}

#[test]
fn method_path_query_type_and_body_pass_unchanged() {
    let server = Setup::new().start();
    let body = b"not {json\n\x01";
    for (method, target, content_type) in [
        (
            "POST",
            "/v1/models/half_plus_three:predict",
            "application/json",
        ),
        (
            "POST",
            "/v1/models/half_plus_three/versions/123:regress",
            "text/csv",
        ),
        (
            "POST",
            "/v1/models/x:predict?a=b&c=%20/d",
            "Application/X; a=\"b\"",
        ),
        ("PUT", "/anything/at/all", "image/png"),
        ("PATCH", "/", "a/b"),
        ("DELETE", "/v1/models/half_plus_three", "a/b"),
    ] {
        let target_here = format!("/tfs{target}");
        let bytes = request(
            method,
            &target_here,
            &[("Content-Type", content_type)],
            body,
        );
        server.exchange(&bytes);
        let got = server.last_request();
        assert_eq!((got.method.as_str(), got.path.as_str()), (method, target));
        assert_eq!(got.header("content-type"), Some(content_type), "{target}");
        assert_eq!(
            got.body.as_deref().map(str::as_bytes),
            Some(&body[..]),
            "{target}"
        );
    }
    server.exchange(&request("DELETE", "/tfs/v1/x", &[], b""));
    let got = server.last_request();
    assert_eq!(
        (got.method.as_str(), got.path.as_str()),
        ("DELETE", "/v1/x")
    );
    assert_eq!(got.header("content-type"), None);
}

#[test]
fn accept_and_custom_attributes_do_not_matter() {
    let server = Setup::new().start();
    let headers = [
        ("Accept", "application/json"),
        ("X-Amzn-SageMaker-Custom-Attributes", "tfs-model-name=a/b"),
    ];
    let answer = server.post(
        "/tfs/v1/models/half_plus_three:predict",
        &headers,
        INSTANCES,
    );
    assert_eq!((answer.status, answer.text().as_str()), (200, PREDICTIONS));
}

#[test]
fn errors_of_tensorflow_serving_pass() {
    let server = Setup::new().start();
    let answer = server.get("/tfs/v1/models/half_plus_three?x=1");
    assert_eq!(answer.status, 400);
    assert!(
        answer.error().contains("Malformed request"),
        "{}",
        answer.error()
    );

    let escaped = r"\'instances\'";
    let body = fake(&json!({"status": 400, "body": escaped}));
    let target = "/tfs/v1/models/half_plus_three:predict";
    let answer = server.post(target, &[], body.as_bytes());
    assert_eq!((answer.status, answer.text().as_str()), (400, escaped));
}
