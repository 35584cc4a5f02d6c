//! The routes: health, unknown paths, wrong methods.

use crate::support::{INSTANCES, PREDICTIONS, Setup, request};

#[test]
fn ping_answers_200_with_an_empty_body() {
    let server = Setup::new().start();
    for target in ["/ping", "/ping?x=1"] {
        let response = server.get(target);
        assert_eq!((response.status, response.body.len()), (200, 0), "{target}");
    }
}

#[test]
fn head_requests_get_only_a_head_and_keep_the_connection() {
    let server = Setup::new().start();
    let mut connection = server.connect();
    for (target, status) in [
        ("/ping", 200),
        ("/v2/health/live", 200),
        ("/v2/health/ready", 200),
        ("/execution-parameters", 200),
        ("/absent", 404),
    ] {
        connection.send(&request("HEAD", target, &[], b""));
        assert_eq!(connection.head().status, status, "{target}");
    }
    connection.send(&request("GET", "/ping", &[], b""));
    assert_eq!(connection.response().status, 200);
}

#[test]
fn unknown_paths_get_404() {
    let server = Setup::new().start();
    for (method, target) in [
        ("GET", "/"),
        ("GET", "/pings"),
        ("GET", "/ping/"),
        ("POST", "/invocations/x"),
        ("GET", "/tfs"),
        ("POST", "/tfsx/v1/models/half_plus_three:predict"),
        ("DELETE", "/nothing?at=all"),
        ("BREW", "/coffee"),
        ("GET", "/models"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/half_plus_three/"),
        ("POST", "/v1/models/half_plus_three:explain"),
        ("POST", "/v1/models/half_plus_three/../x:predict"),
        ("GET", "/v2/models/half_plus_three/ready"),
        ("GET", "/v2/health"),
        ("POST", "/v2/models/half_plus_three/infer"),
    ] {
        let response = server.exchange(&request(method, target, &[], b""));
        assert_eq!(response.status, 404, "{method} {target}");
        assert_eq!(
            response.text(),
            r#"{"error": "Not Found"}"#,
            "{method} {target}"
        );
        assert_eq!(response.header("content-type"), Some("application/json"));
    }
    assert!(
        server.requests().is_empty(),
        "TensorFlow Serving gets no request"
    );
}

#[test]
fn a_wrong_method_gets_405_with_the_allowed_methods() {
    let server = Setup::new().start();
    for (method, target, allowed) in [
        ("POST", "/ping", "GET, HEAD"),
        ("DELETE", "/ping", "GET, HEAD"),
        ("PUT", "/execution-parameters", "GET, HEAD"),
        ("GET", "/invocations", "POST"),
        ("PUT", "/invocations?x", "POST"),
        ("POST", "/v2/health/live", "GET, HEAD"),
        ("DELETE", "/v2/health/ready", "GET, HEAD"),
        ("GET", "/v1/models/half_plus_three:predict", "POST"),
        ("PUT", "/v1/models/m/versions/1:regress?x", "POST"),
        ("POST", "/v1/models/half_plus_three", "GET, HEAD"),
        ("DELETE", "/v1/models/m/metadata", "GET, HEAD"),
    ] {
        let response = server.exchange(&request(method, target, &[], b""));
        assert_eq!(response.status, 405, "{method} {target}");
        assert_eq!(response.header("allow"), Some(allowed), "{method} {target}");
        assert!(
            response.error().contains("Method Not Allowed"),
            "{}",
            response.error()
        );
    }
}

#[test]
fn a_body_that_no_route_reads_does_not_break_the_connection() {
    let server = Setup::new().start();
    let mut connection = server.connect();
    for length in [1, 1024, 1025, 300_000] {
        let body = vec![b'x'; length];
        for (target, status) in [("/absent", 404), ("/ping", 405)] {
            connection.send(&request("POST", target, &[], &body));
            assert_eq!(
                connection.response().status,
                status,
                "{target} with {length} bytes"
            );
        }
        connection.send(&request("GET", "/ping", &[], &body));
        assert_eq!(connection.response().status, 200, "GET with {length} bytes");
    }
}

/// The same rules as below `/tfs/`: `model_server/pass_through.rs` and `model_server/smuggling.rs`.
#[test]
fn kserve_paths_lead_to_the_model_server() {
    let server = Setup::new().start();
    let status = server.get("/v1/models/half_plus_three");
    assert_eq!(status.status, 200);
    assert_eq!(
        status.text(),
        server.get("/tfs/v1/models/half_plus_three").text()
    );
    for path in [
        "/v1/models/half_plus_three:predict",
        "/v1/models/half_plus_three/versions/123:regress",
        "/v1/models/half_plus_three/labels/stable:classify?a={1}",
    ] {
        server.post(
            path,
            &[("Content-Type", "text/csv"), ("X-Other", "x")],
            INSTANCES,
        );
        let got = server.last_request();
        let sent = path.replace("{1}", "%7B1%7D");
        assert_eq!(
            (got.method.as_str(), got.path.as_str()),
            ("POST", sent.as_str())
        );
        assert_eq!(got.header("content-type"), Some("text/csv"));
        assert_eq!(got.header("x-other"), None);
        assert_eq!(got.body.as_deref().map(str::as_bytes), Some(INSTANCES));
    }
    let path = "/v1/models/half_plus_three:predict";
    assert_eq!(server.post(path, &[], INSTANCES).text(), PREDICTIONS);
    let mut connection = server.connect();
    connection.send(&request("HEAD", "/v1/models/half_plus_three", &[], b""));
    assert_eq!(connection.head().status, 200);
    connection.send(&request("GET", "/v1/models/absent", &[], b""));
    assert_eq!(connection.response().status, 404);

    let before = server.requests().len();
    for (method, target, body) in [
        ("GET", "/v1/models/half_plus_three", INSTANCES),
        ("GET", "/v1/models/..", b""),
        ("GET", "/v1/models/%2e%2E/metadata", b""),
        ("GET", "/v1/models/x/labels//metadata", b""),
        ("POST", "/v1/models/..:predict/..", b""),
        ("POST", "/v1/models/x%:predict", INSTANCES),
        ("POST", "/v1/models/x:predict#y", INSTANCES),
    ] {
        let response = server.exchange(&request(method, target, &[], body));
        let status = response.status;
        assert!(
            [400, 404].contains(&status),
            "{method} {target}: {}",
            response.text()
        );
        assert!(
            status == 400 || target.contains("predict"),
            "{method} {target}"
        );
    }
    let deep = "[".repeat(600);
    assert_eq!(server.post(path, &[], deep.as_bytes()).status, 400);
    assert_eq!(
        server.requests().len(),
        before,
        "TensorFlow Serving was not asked"
    );
}

#[test]
fn the_process_is_live_while_the_model_server_is_not_ready() {
    let server = Setup::new().start();
    for path in ["/v2/health/live", "/v2/health/ready"] {
        let response = server.get(path);
        assert_eq!((response.status, response.body.len()), (200, 0), "{path}");
    }
    server.control(0, &serde_json::json!({"state": "UNLOADING"}));
    let reason = server.wait_until_unhealthy();
    let ready = server.get("/v2/health/ready");
    assert_eq!((ready.status, ready.header("retry-after")), (503, None));
    assert!(!ready.error().is_empty() && !reason.is_empty());
    assert_eq!(server.get("/v2/health/live").status, 200);
    server.control(0, &serde_json::json!({"state": "AVAILABLE"}));
    server.wait_until_healthy();
    assert_eq!(server.get("/v2/health/ready").status, 200);
}
