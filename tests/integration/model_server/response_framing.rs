//! Responses of the model server that do not end where they should: their connection is not reused, and no client
//! gets the bytes that follow.

use serde_json::json;

use crate::support::server::fake;
use crate::support::{INSTANCES, PREDICTIONS, Server, Setup, wait_until};

/// The connections on which the model server got requests that contain this text.
fn connections_of(server: &Server, text: &str) -> Vec<u64> {
    let requests = server.requests();
    let with_text = requests
        .iter()
        .filter(|request| request.body.as_ref().is_some_and(|b| b.contains(text)));
    with_text.map(|request| request.connection).collect()
}

/// Asks the model server for the response that `command` describes, and asserts that its connection is not used again.
fn assert_not_reused(server: &Server, what: &str, command: serde_json::Value) {
    let before = server.requests().len();
    let response = server.invoke(fake(&command));
    let taken = connections_of(server, what);
    let connection = *taken.last().expect("the request arrived");
    let sent = server.requests().len() - before;
    if command["late"].is_string() {
        // The extra bytes have arrived before the next request is sent.
        wait_until("the late bytes were sent", || server.stat(0, "late") > 0);
    }
    for _ in 0..3 {
        let next = server.invoke(INSTANCES);
        assert_eq!(
            (next.status, next.text().as_str()),
            (200, PREDICTIONS),
            "after {what}: {}",
            response.text()
        );
    }
    let mut later = server.requests().split_off(before + sent);
    later.retain(|request| request.connection == connection);
    assert!(later.is_empty(), "{what}: {later:?}");
    assert_eq!(server.starts().len(), 1, "{what}");
}

fn text_of(head: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{head}\r\n{body}")
}

const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";

#[test]
fn a_connection_is_not_reused_after_extra_bytes() {
    let server = Setup::new().start();
    let whole = text_of("Content-Length: 2\r\n", "{}");
    let chunked = text_of("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n");
    let empty = text_of("Content-Length: 0\r\n", "");
    for (what, response) in [("length", whole), ("chunked", chunked), ("empty", empty)] {
        let with_more = json!({"raw": format!("{response}{EVIL}"), "key": what});
        assert_not_reused(&server, what, with_more);
    }
}

#[test]
fn a_connection_is_not_reused_after_late_extra_bytes() {
    let server = Setup::new().start();
    let command = json!({"late": EVIL, "late_ms": 100, "key": "late"});
    assert_not_reused(&server, "late", command);
}

#[test]
fn a_connection_is_not_reused_after_a_response_of_ambiguous_length() {
    let server = Setup::new().start();
    let both = text_of(
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        "2\r\n{}\r\n0\r\n\r\n",
    );
    let none = text_of("", "{}");
    let twice = text_of("Content-Length: 2\r\nContent-Length: 2\r\n", "{}");
    let other = text_of("Content-Length: 2\r\nTransfer-Encoding: gzip\r\n", "{}");
    for (what, response) in [
        ("both", both),
        ("none", none),
        ("twice", twice),
        ("other", other),
    ] {
        let mut command = json!({"raw": response, "key": what});
        if what == "none" {
            command["close"] = json!("after_answer");
        }
        assert_not_reused(&server, what, command);
    }
}

/// A response with status 204 has no body, whatever its head says.
#[test]
fn a_connection_is_not_reused_after_a_204_that_announces_a_body() {
    let server = Setup::new().start();
    for head in ["Content-Length: 40\r\n", "Transfer-Encoding: chunked\r\n"] {
        let raw = format!("HTTP/1.1 204 No Content\r\n{head}\r\n");
        assert_not_reused(&server, "204", json!({"raw": raw, "key": "204"}));
    }
}

#[test]
fn a_connection_is_not_reused_after_an_interim_response() {
    let server = Setup::new().start();
    let end = text_of("Content-Length: 2\r\n", "{}");
    for (what, first) in [
        ("100", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("102", "HTTP/1.1 102 Processing\r\n\r\n"),
        (
            "103",
            "HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n",
        ),
    ] {
        let command = json!({"raw": format!("{first}{end}"), "key": what});
        assert_not_reused(&server, what, command);
    }
}

#[test]
fn a_response_that_switches_protocols_reaches_no_client() {
    let server = Setup::new().start();
    let raw = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";
    let command = json!({"raw": raw, "key": "101"});
    assert_eq!(server.invoke(fake(&command)).status, 502);
    assert_not_reused(&server, "101", command);
}

#[test]
fn a_truncated_response_reaches_no_client() {
    let server = Setup::new().start();
    for (what, response) in [
        ("length", text_of("Content-Length: 9\r\n", "{}")),
        (
            "chunk",
            text_of("Transfer-Encoding: chunked\r\n", "9\r\n{}"),
        ),
        (
            "chunks",
            text_of("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n"),
        ),
        ("head", "HTTP/1.1 200 OK\r\nContent-Le".to_owned()),
    ] {
        let command = json!({"raw": response, "close": "after_answer", "key": what});
        let response = server.invoke(fake(&command));
        assert_eq!(response.status, 502, "{what}: {}", response.text());
        assert_not_reused(&server, what, command);
    }
}
