//! HTTP as real clients use it: kept connections, pipelining, old versions, `Expect`, upgrades.

use std::io::Write;

use crate::support::{INSTANCES, PREDICTIONS, Setup, request, wait_until};

#[test]
fn a_connection_serves_one_request_after_another() {
    let server = Setup::new().start();
    let mut connection = server.connect();
    for round in 0..20 {
        connection.send(&request("POST", "/invocations", &[], INSTANCES));
        let response = connection.response();
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, PREDICTIONS),
            "{round}"
        );
        assert_ne!(response.header("connection"), Some("close"), "{round}");
        connection.send(&request("GET", "/ping", &[], b""));
        assert_eq!(connection.response().status, 200, "{round}");
    }
}

/// No connection closes before all have a response, so the server must read all of them.
#[test]
fn connections_opened_at_the_same_time_are_all_served() {
    let server = Setup::new().start();
    let ping = request("GET", "/ping", &[], b"");
    for _ in 0..5 {
        let mut connections: Vec<_> = (0..200)
            .map(|_| {
                let mut connection = server.connect();
                connection.send(&ping);
                connection
            })
            .collect();
        wait_until("all are answered", || {
            connections.iter_mut().all(|c| c.is_readable())
        });
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Setup::new().var("FAKE_TFS_ANSWER", "echo").start();
    let mut connection = server.connect();
    let body = |n: usize| {
        // The first request is the slowest, so responses would be ready in another order than their requests.
        let delay = if n == 0 { 300 } else { 0 };
        let padding = "x".repeat(2000 * (n % 2));
        format!(
            r#"{{"instances": [{n}, "{padding}"], "fake": {{"delay_ms": {delay}, "answer_echo": true}}}}"#
        )
    };
    let mut bytes = Vec::new();
    for n in 0..10 {
        bytes.extend(request("POST", "/invocations", &[], body(n).as_bytes()));
        bytes.extend(request("GET", "/absent", &[], b""));
    }
    connection.send(&bytes);
    for n in 0..10 {
        let response = connection.response();
        assert_eq!((response.status, response.text()), (200, body(n)));
        assert_eq!(connection.response().status, 404);
    }
}

#[test]
fn http_1_0_connections_close_unless_the_client_keeps_them_alive() {
    let server = Setup::new().start();
    let mut connection = server.connect();
    let head = "POST /invocations HTTP/1.0\r\nContent-Length: ";
    let body = str::from_utf8(INSTANCES).unwrap();
    connection.send(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes());
    let response = connection.response();
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, PREDICTIONS)
    );
    assert!(connection.is_at_end());

    let mut connection = server.connect();
    for _ in 0..2 {
        connection.send(b"GET /ping HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        let response = connection.response();
        assert_eq!(response.status, 200);
        let connection = response.header("connection").map(str::to_ascii_lowercase);
        assert_eq!(connection.as_deref(), Some("keep-alive"));
    }
}

#[test]
fn the_server_obeys_connection_close_and_repeats_the_header() {
    let server = Setup::new().start();
    for bytes in [
        request("GET", "/ping", &[("Connection", "close")], b""),
        request(
            "POST",
            "/invocations",
            &[("connection", "Close")],
            INSTANCES,
        ),
        request("GET", "/absent", &[("Connection", "close")], b""),
        request(
            "POST",
            "/invocations",
            &[("Connection", "close")],
            &[b' '; 5000],
        ),
    ] {
        let mut connection = server.connect();
        connection.send(&bytes);
        assert_eq!(connection.response().header("connection"), Some("close"));
        assert!(connection.is_at_end());
    }
}

#[test]
fn expect_100_continue_is_answered_before_the_body_is_sent() {
    let server = Setup::new().start();
    for (target, content_type, length, status) in [
        ("/invocations", "application/json", INSTANCES.len(), 200),
        ("/invocations", "application/json", 300_000, 200),
        ("/invocations", "application/foo", 300_000, 415),
        ("/absent", "application/json", 300_000, 404),
    ] {
        let mut body = INSTANCES.to_vec();
        body.resize(length, b' ');
        let headers = [("Content-Type", content_type), ("Expect", "100-continue")];
        let bytes = request("POST", target, &headers, &body);
        let (head, body) = bytes.split_at(bytes.len() - body.len());

        let mut connection = server.connect();
        connection.send(head);
        assert_eq!(
            connection.response().status,
            100,
            "{target} {content_type} {length}"
        );
        connection.send(body);
        assert_eq!(
            connection.response().status,
            status,
            "{target} {content_type} {length}"
        );
        // Whatever the status, no part of the body is read as a request.
        connection.send(&request("GET", "/ping", &[], b""));
        assert_eq!(
            connection.response().status,
            200,
            "{target} {content_type} {length}"
        );
    }
}

#[test]
fn a_client_that_does_not_wait_for_100_continue_is_served_too() {
    let server = Setup::new().start();
    let mut connection = server.connect();
    connection.send(&request(
        "POST",
        "/invocations",
        &[("Expect", "100-continue")],
        INSTANCES,
    ));
    let mut response = connection.response();
    if response.status == 100 {
        response = connection.response();
    }
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, PREDICTIONS)
    );
}

#[test]
fn clients_that_disconnect_before_100_continue_affect_no_other_client() {
    let server = Setup::new().start();
    // More than the number of slots, so the test notices a slot that is not freed.
    for _ in 0..80 {
        let head =
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n";
        server.connect().send(head);
    }
    server.assert_serves();
}

#[test]
fn an_unknown_expectation_gets_417() {
    let server = Setup::new().start();
    let response = server.exchange(&request(
        "POST",
        "/invocations",
        &[("Expect", "x")],
        INSTANCES,
    ));
    assert_eq!(response.status, 417);
    server.assert_serves();
}

/// Java's HTTP client offers HTTP/2 with its first request.
const UPGRADE: [(&str, &str); 3] = [
    ("Connection", "Upgrade, HTTP2-Settings"),
    ("Upgrade", "h2c"),
    ("HTTP2-Settings", "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"),
];

#[test]
fn an_offer_to_upgrade_to_http_2_gets_a_normal_http_1_1_response() {
    let server = Setup::new().start();
    for length in [INSTANCES.len(), 1025, 200_000] {
        let mut body = INSTANCES.to_vec();
        body.resize(length, b' ');
        let response = server.exchange(&request("POST", "/invocations", &UPGRADE, &body));
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, PREDICTIONS),
            "{length}"
        );
    }
    assert_eq!(
        server
            .exchange(&request("GET", "/ping", &UPGRADE, b""))
            .status,
        200
    );
}

#[test]
fn an_offer_to_upgrade_may_come_with_a_chunked_body() {
    let server = Setup::new().start();
    let mut bytes =
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n".to_vec();
    for (name, value) in UPGRADE {
        write!(bytes, "{name}: {value}\r\n").unwrap();
    }
    write!(bytes, "\r\n{:x}\r\n", INSTANCES.len()).unwrap();
    bytes.extend_from_slice(INSTANCES);
    bytes.extend_from_slice(b"\r\n0\r\n\r\n");
    let response = server.exchange(&bytes);
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, PREDICTIONS)
    );
    assert_eq!(server.last_request().body.unwrap().as_bytes(), INSTANCES);
}

#[test]
fn a_request_may_arrive_byte_by_byte() {
    let server = Setup::new().start();
    let mut connection = server.connect();
    for byte in request("POST", "/invocations", &[], INSTANCES) {
        connection.send(&[byte]);
    }
    assert_eq!(connection.response().status, 200);
}

/// RFC 9112, 3.2.
#[test]
fn an_http_1_1_request_must_name_exactly_one_host() {
    let server = Setup::new().start();
    for (head, expected) in [
        ("HTTP/1.1\r\n", 400),
        ("HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400),
        ("HTTP/1.1\r\nHost: a b\r\n", 400),
        ("HTTP/1.1\r\nHost:\r\n", 200),
        ("HTTP/1.0\r\n", 200),
    ] {
        let response = server.exchange(format!("GET /ping {head}\r\n").as_bytes());
        assert_eq!(response.status, expected, "{head:?}");
    }
}

#[test]
fn an_absolute_url_as_target_is_parsed_as_a_url() {
    let server = Setup::new().start();
    for (target, expected) in [
        ("http://a/ping", 200),
        ("HTTPS://a/ping", 200),
        ("http://a?x=/ping", 404),
        ("http://a", 404),
        ("/ping#x", 400),
        ("http://a/ping#x", 400),
        ("ftp://a/ping", 400),
    ] {
        let response = server.get(target);
        assert_eq!(response.status, expected, "{target}: {}", response.text());
    }
}

#[test]
fn every_expectation_is_checked_except_in_http_1_0() {
    let server = Setup::new().start();
    let length = INSTANCES.len();
    for (head, expected) in [
        (
            "1.1\r\nHost: x\r\nExpect: 100-continue\r\nExpect: more\r\n",
            417,
        ),
        ("1.1\r\nHost: x\r\nExpect: 100-Continue, more\r\n", 417),
        ("1.0\r\nExpect: more\r\n", 200),
        // HTTP/1.0 has no interim responses.
        ("1.0\r\nExpect: 100-continue\r\n", 200),
    ] {
        let mut connection = server.connect();
        let head = format!("POST /invocations HTTP/{head}Content-Length: {length}\r\n\r\n");
        connection.send(head.as_bytes());
        if expected == 200 {
            connection.send(INSTANCES);
        }
        assert_eq!(connection.response().status, expected, "{head:?}");
    }
}
