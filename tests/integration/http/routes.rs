//! The routes: health, unknown paths, wrong methods.

use crate::support::{Setup, request};

#[test]
fn ping_answers_200_with_an_empty_body() {
    let server = Setup::new().start();
    for target in ["/ping", "/ping?x=1"] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{target}");
    }
}

#[test]
fn head_requests_get_the_head_and_the_connection_goes_on() {
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
fn unknown_paths_are_not_found() {
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
        let answer = server.exchange(&request(method, target, &[], b""));
        assert_eq!(answer.status, 404, "{method} {target}");
        assert_eq!(
            answer.text(),
            r#"{"error": "Not Found"}"#,
            "{method} {target}"
        );
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    assert!(
        server.requests().is_empty(),
        "TensorFlow Serving was not asked"
    );
}

#[test]
fn wrong_methods_are_told_the_right_ones() {
    let server = Setup::new().start();
    for (method, target, allowed) in [
        ("POST", "/ping", "GET, HEAD"),
        ("DELETE", "/ping", "GET, HEAD"),
        ("PUT", "/execution-parameters", "GET, HEAD"),
        ("GET", "/invocations", "POST"),
        ("PUT", "/invocations?x", "POST"),
    ] {
        let answer = server.exchange(&request(method, target, &[], b""));
        assert_eq!(answer.status, 405, "{method} {target}");
        assert_eq!(answer.header("allow"), Some(allowed), "{method} {target}");
        assert!(
            answer.error().contains("Method Not Allowed"),
            "{}",
            answer.error()
        );
    }
}

#[test]
fn a_body_nobody_wants_does_not_spoil_the_connection() {
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
