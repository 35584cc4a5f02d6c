//! Clients that disconnect early, lie about lengths or do not speak HTTP: they get a response or a closed connection,
//! and no other client notices.

use serde_json::json;

use crate::support::{Connection, INSTANCES, Setup, request, wait_until};

/// More than the number of slots, so the tests notice a slot that is not freed.
const MANY: usize = 80;

fn post_head(content_length: &str) -> Vec<u8> {
    format!("POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {content_length}\r\n\r\n")
        .into_bytes()
}

#[test]
fn clients_that_disconnect_within_a_body_leave_nothing_behind() {
    let server = Setup::new().start();
    for sent in [0, 1, 500, 9_999] {
        for _ in 0..MANY / 2 {
            let mut connection = server.connect();
            connection.send(&post_head("10000"));
            connection.send(&vec![b' '; sent]);
        }
    }
    server.assert_serves();
    assert_eq!(server.requests().len(), 1, "half a body is never passed on");
}

#[test]
fn clients_that_disconnect_before_their_response_leave_nothing_behind() {
    let server = Setup::new().start();
    let slow = crate::support::server::fake(&json!({"delay_ms": 300}));
    let clients = (0..MANY).map(|_| {
        let mut client = server.connect();
        client.send(&request("POST", "/invocations", &[], slow.as_bytes()));
        client
    });
    let clients = Vec::from_iter(clients);
    wait_until("the model server has all requests", || {
        server.stat(0, "requests") >= MANY as u64
    });
    drop(clients);
    wait_until("the requests are over", || server.stat(0, "in_flight") == 0);
    server.assert_serves();
}

#[test]
fn a_body_shorter_than_its_content_length_gets_400() {
    let server = Setup::new().start();
    for length in [100, 1_025, 10_000] {
        let mut connection = server.connect();
        connection.send(&post_head(&length.to_string()));
        connection.send(INSTANCES);
        connection.half_close();
        let response = connection.response();
        assert_eq!(response.status, 400, "{length}: {}", response.text());
        let counts = format!("{} of {length}", INSTANCES.len());
        assert!(response.error().contains(&counts), "{}", response.error());
        assert!(connection.is_at_end());
    }
    assert!(
        server.requests().is_empty(),
        "half a body is never passed on"
    );
    server.assert_serves();
}

#[test]
fn bytes_beyond_the_content_length_are_not_part_of_the_body() {
    let server = Setup::new().start();
    let mut connection = server.connect();
    connection.send(&post_head(&INSTANCES.len().to_string()));
    connection.send(INSTANCES);
    connection.send(b"}}}and more\r\n\r\n");
    connection.half_close();
    assert_eq!(connection.response().status, 200);
    assert_eq!(server.last_request().body.unwrap().as_bytes(), INSTANCES);
    assert_eq!(connection.response().status, 400);
    assert!(connection.is_at_end());
    server.assert_serves();
}

/// Waits for an error status or the end of the connection.
#[track_caller]
fn assert_refused(connection: &mut Connection, what: &str) {
    match connection.try_response() {
        Ok(None) => {}
        Ok(Some(response)) => {
            assert!(
                (400..=505).contains(&response.status),
                "{what}: {response:?}"
            );
            assert!(connection.is_at_end(), "{what}");
        }
        Err(e) => panic!("{what}: neither a response nor a closed connection: {e}"),
    }
}

#[test]
fn input_that_is_not_http_is_refused() {
    let server = Setup::new().start();
    for garbage in [
        &b"\r\n\r\n"[..],
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /ping\r\n\r\n",
        b"GET /ping HTTP/9.9\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: x\r\nA: \xff\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: x\r\nA: b",
        b"\0\0\0\0\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03 not TLS\r\n\r\n",
    ] {
        let mut connection = server.connect();
        connection.send(garbage);
        connection.half_close();
        assert_refused(&mut connection, &String::from_utf8_lossy(garbage));
    }
    server.assert_serves();
}

#[test]
fn other_http_versions_are_refused() {
    let server = Setup::new().start();
    for preface in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..],
        b"GET /ping HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET /ping HTTP/3.0\r\nHost: x\r\n\r\n",
    ] {
        for _ in 0..MANY {
            let mut connection = server.connect();
            connection.send(preface);
            assert_eq!(connection.response().status, 505);
            assert!(connection.is_at_end());
        }
        server.assert_serves();
    }
}

#[test]
fn connections_that_open_and_close_affect_no_other_client() {
    let server = Setup::new().start();
    for _ in 0..300 {
        drop(server.connect());
    }
    let held: Vec<Connection> = (0..300).map(|_| server.connect()).collect();
    server.assert_serves();
    drop(held);
    server.assert_serves();
}

#[test]
fn thousands_of_headers_are_refused() {
    let server = Setup::new().start();
    let many: String = (0..5_000).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let long = format!("X: {}\r\n", "x".repeat(1_000_000));
    for headers in [many, long] {
        let mut connection = server.connect();
        let head = format!("GET /ping HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        // The server may refuse the request before all of it is sent.
        let _ = connection.try_send(head.as_bytes());
        assert_eq!(connection.response().status, 431);
        server.assert_serves();
    }
}

#[test]
fn conflicting_lengths_get_400() {
    let server = Setup::new().start();
    for head in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 30\r\n",
    ] {
        let mut connection = server.connect();
        let head = format!("POST /invocations HTTP/1.1\r\nHost: x\r\n{head}\r\n");
        connection.send(&[head.as_bytes(), b"0\r\n\r\n"].concat());
        let response = connection.response();
        assert_eq!(response.status, 400, "{head:?}: {}", response.text());
    }
    assert!(
        server.requests().is_empty(),
        "TensorFlow Serving gets no request"
    );
    server.assert_serves();
}

#[test]
fn a_content_length_that_is_not_a_number_gets_400() {
    let server = Setup::new().start();
    for length in ["abc", "-1", "1.5", "0x5", "5 5", "5, 6", "", "+5"] {
        let mut connection = server.connect();
        connection.send(&[post_head(length).as_slice(), b"12345"].concat());
        connection.half_close();
        let response = connection
            .try_response()
            .expect("a response or a closed connection");
        let Some(response) = response else {
            panic!("{length:?}: closed without a response");
        };
        assert_eq!(response.status, 400, "{length:?}: {}", response.text());
        assert!(
            response.error().contains("Content-Length"),
            "{}",
            response.error()
        );
    }
    server.assert_serves();
}

/// A proxy may disagree about where the body ends.
#[test]
fn the_connection_closes_after_a_body_of_unknown_length() {
    let server = Setup::new().start();
    for head in [
        "Content-Length: abc\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let mut connection = server.connect();
        let smuggled = "0\r\n\r\nGET /ping HTTP/1.1\r\nHost: x\r\n\r\n";
        connection.send(
            format!("POST /invocations HTTP/1.1\r\nHost: x\r\n{head}\r\n{smuggled}").as_bytes(),
        );
        let response = connection.response();
        assert_eq!(response.status, 400, "{head:?}");
        assert_eq!(response.header("connection"), Some("close"), "{head:?}");
        assert!(connection.is_at_end(), "{head:?}");
    }
    assert!(
        server.requests().is_empty(),
        "TensorFlow Serving gets no request"
    );
}

#[test]
fn absurd_lengths_are_refused_at_once_and_do_not_crash_the_server() {
    let server = Setup::new().start();
    for length in [
        "1000000000000000",
        "9223372036854775807",
        "18446744073709551615",
        "1073741825",
    ] {
        for (method, target) in [
            ("POST", "/invocations"),
            ("POST", "/absent"),
            ("GET", "/ping"),
        ] {
            let mut connection = server.connect();
            let head = format!(
                "{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
            );
            connection.send(head.as_bytes());
            let response = connection.response();
            assert_eq!(response.status, 413, "{method} {target} {length}");
            assert!(response.error().contains("larger"), "{}", response.error());
            assert!(connection.is_at_end());
        }
        // A client that expects 100 Continue is refused at once, too.
        let expect = [("Expect", "100-continue"), ("Content-Length", length)];
        let bytes = request("PUT", "/invocations", &expect, b"");
        assert_eq!(server.exchange(&bytes).status, 413, "{length}");
        // With part of the body, and without waiting for the response.
        let mut connection = server.connect();
        connection.send(&post_head(length));
        let _ = connection.try_send(&[b'x'; 50_000]);
        drop(connection);
        server.assert_serves();
    }
}

#[test]
fn a_body_that_stalls_gets_408_at_the_deadline() {
    let server = Setup::new().deadline(1).start();
    let mut connection = server.connect();
    connection.send(&post_head("10000"));
    connection.send(&[b'x'; 5_000]);
    let response = connection.response();
    assert_eq!(response.status, 408, "{response:?}");
    assert!(!response.error().is_empty());
    server.assert_serves();
}

#[test]
fn lengths_that_are_both_malformed_and_absurd_affect_no_other_client() {
    let server = Setup::new().start();
    for lengths in [
        "Content-Length: +1000000000000000\r\n",
        "Content-Length: 1000000000000000\r\nContent-Length: 5\r\n",
    ] {
        for line in ["POST /invocations", "GET /ping"] {
            let mut connection = server.connect();
            connection.send(format!("{line} HTTP/1.1\r\nHost: x\r\n{lengths}\r\n").as_bytes());
            assert_eq!(connection.response().status, 400, "{line} {lengths}");
            drop(connection);
            server.assert_serves();
        }
    }
}

#[test]
fn conflicting_lengths_without_a_body_get_400_at_once() {
    let server = Setup::new().start();
    let held: Vec<_> = (0..2 * MANY)
        .map(|_| {
            let mut connection = server.connect();
            connection
                .send(b"GET /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\nContent-Length: 5\r\n\r\n");
            connection
        })
        .collect();
    for mut connection in held {
        assert_eq!(connection.response().status, 400);
    }
    server.assert_serves();
}

#[test]
fn bodies_that_drip_get_408_at_the_deadline() {
    let server = Setup::new().deadline(1).start();
    let mut dripping: Vec<_> = (0..MANY)
        .map(|_| {
            let mut connection = server.connect();
            connection.send(&post_head("1000000"));
            connection
        })
        .collect();
    wait_until("all have a response", || {
        dripping.iter_mut().all(|connection| {
            let _ = connection.try_send(b" ");
            connection.is_readable()
        })
    });
    server.assert_serves();
    for mut connection in dripping {
        let response = connection.response();
        assert_eq!(response.status, 408, "{response:?}");
    }
}

#[test]
fn headers_that_are_too_large_are_refused() {
    let server = Setup::new().start();
    let large = "x".repeat(35_000);
    for (target, body) in [
        ("/invocations", INSTANCES),
        ("/invocations", b""),
        ("/ping", b""),
    ] {
        let response = server.post(target, &[("Accept", &large)], body);
        assert_eq!(response.status, 431, "{}", response.text());
        assert!(
            response.error().contains("32768 bytes"),
            "{}",
            response.error()
        );
    }
    let response = server.post("/invocations", &[("X-Large", &large[..30_000])], INSTANCES);
    assert_eq!(response.status, 200, "{}", response.text());
    server.assert_serves();
}
