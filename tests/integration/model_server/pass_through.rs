//! `/tfs/...`: TensorFlow Serving's own REST API, unchanged in both directions.

use serde_json::json;

use crate::support::server::fake;
use crate::support::{INSTANCES, PREDICTIONS, Setup, request};

#[test]
fn the_status_of_a_model_passes_unchanged() {
    let server = Setup::new().start();
    let response = server.get("/tfs/v1/models/half_plus_three");
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("application/json"));
    let status: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(status["model_version_status"][0]["version"], "123");
    assert_eq!(status["model_version_status"][0]["state"], "AVAILABLE");
    assert!(response.text().contains("\n "), "the layout is unchanged");
}

#[test]
fn path_query_content_type_and_body_of_a_post_pass_unchanged() {
    let server = Setup::new().start();
    let body = b"not {json\n\x01";
    for (target, content_type) in [
        ("/v1/models/half_plus_three:predict", "application/json"),
        (
            "/v1/models/half_plus_three/versions/123:regress",
            "text/csv",
        ),
        ("/v1/models/x:predict?a=b&c=%20/d", "Application/X; a=\"b\""),
        ("/anything/at/all", "image/png"),
        ("/", "a/b"),
    ] {
        for body in [body.as_slice(), b""] {
            let headers = [("Content-Type", content_type), ("X-Other", "x")];
            server.post(&format!("/tfs{target}"), &headers, body);
            let got = server.last_request();
            assert_eq!((got.method.as_str(), got.path.as_str()), ("POST", target));
            assert_eq!(got.header("content-type"), Some(content_type), "{target}");
            let length = body.len().to_string();
            assert_eq!(got.header("content-length"), Some(length.as_str()));
            assert_eq!(got.body.as_deref().map(str::as_bytes), Some(body));
            // No other header of the client is sent.
            let mut names: Vec<_> = got.headers.iter().map(|(name, _)| name.as_str()).collect();
            names.sort_unstable();
            assert_eq!(names, ["content-length", "content-type", "host"]);
        }
    }
}

#[test]
fn get_and_head_pass_only_their_target() {
    let server = Setup::new().start();
    for method in ["GET", "HEAD"] {
        let headers = [("Content-Type", "a/b"), ("Range", "bytes=0-1")];
        let mut connection = server.connect();
        connection.send(&request(method, "/tfs/v1/x?y=%41", &headers, b""));
        assert_eq!(connection.head().status, 400);
        let got = server.last_request();
        assert_eq!(
            (got.method.as_str(), got.path.as_str()),
            ("GET", "/v1/x?y=%41")
        );
        let names: Vec<_> = got.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["host"], "{method}");
    }
}

#[test]
fn targets_are_sent_in_one_spelling_or_refused() {
    let server = Setup::new().start();
    for (target, sent) in [
        (
            "/tfs/v1/x{\"a\"}[0]|^`\\<>",
            "/v1/x%7B%22a%22%7D%5B0%5D%7C%5E%60%5C%3C%3E",
        ),
        ("/tfs/v1/x%7b?a={1}/..//b", "/v1/x%7b?a=%7B1%7D/..//b"),
        ("/tfs/v1/x%0D%0Ay", "/v1/x%0D%0Ay"),
        ("http://other:1/tfs/v1/x?y", "/v1/x?y"),
        ("http://other/tfs/http:/x", "/http:/x"),
    ] {
        server.post(target, &[], INSTANCES);
        assert_eq!(server.last_request().path, sent, "{target}");
    }
    let before = server.requests().len();
    for target in [
        "/tfs//v1/x",
        "/tfs//other/v1/x",
        "/tfs/v1//x",
        "/tfs/../x",
        "/tfs/v1/./x",
        "/tfs/v1/%2e%2E",
        "/tfs/v1/x%",
        "/tfs/v1/x?%4",
        "/tfs/v1/x#y",
    ] {
        let response = server.post(target, &[], INSTANCES);
        assert_eq!(response.status, 400, "{target}: {}", response.text());
    }
    let response = server.post("/tfs/v1/x", &[("Content-Type", "a/\u{e9}")], INSTANCES);
    assert_eq!(response.status, 400, "{}", response.text());
    assert_eq!(server.requests().len(), before);
}

#[test]
fn accept_and_custom_attributes_are_ignored() {
    let server = Setup::new().start();
    let headers = [
        ("Accept", "application/json"),
        ("X-Amzn-SageMaker-Custom-Attributes", "tfs-model-name=a/b"),
    ];
    let response = server.post(
        "/tfs/v1/models/half_plus_three:predict",
        &headers,
        INSTANCES,
    );
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, PREDICTIONS)
    );
}

#[test]
fn errors_from_tensorflow_serving_pass_through() {
    let server = Setup::new().start();
    let response = server.get("/tfs/v1/models/half_plus_three?x=1");
    assert_eq!(response.status, 400);
    assert!(
        response.error().contains("Malformed request"),
        "{}",
        response.error()
    );

    let escaped = r"\'instances\'";
    let body = fake(&json!({"status": 400, "body": escaped}));
    let target = "/tfs/v1/models/half_plus_three:predict";
    let response = server.post(target, &[], body.as_bytes());
    assert_eq!((response.status, response.text().as_str()), (400, escaped));
}
