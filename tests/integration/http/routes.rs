//! The routes: health, unknown paths, wrong methods.

use crate::support::{Setup, request};

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
