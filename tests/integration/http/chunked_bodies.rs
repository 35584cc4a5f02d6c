//! Chunked request bodies, well-formed and malformed.

use crate::support::{Connection, INSTANCES, PREDICTIONS, Server, Setup, request};

const HEAD: &[u8] = b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";

#[track_caller]
fn send_chunked(server: &Server, body: &[u8]) -> Connection {
    let mut connection = server.connect();
    connection.send(&[HEAD, body].concat());
    connection
}

#[test]
fn a_chunked_body_arrives_whole() {
    let server = Setup::new().start();
    for body in [
        &b"1E\r\n{\"instances\": [1.0, 2.0, 5.0]}\r\n0\r\n\r\n"[..],
        b"1\r\n{\r\n1d\r\n\"instances\": [1.0, 2.0, 5.0]}\r\n0\r\n\r\n",
        b"001e;name=value\r\n{\"instances\": [1.0, 2.0, 5.0]}\r\n0;last\r\n\r\n",
    ] {
        let mut connection = send_chunked(&server, body);
        let response = connection.response();
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, PREDICTIONS)
        );
        let got = server.last_request().body;
        assert_eq!(got.as_deref().map(str::as_bytes), Some(INSTANCES));
        connection.send(&request("GET", "/ping", &[], b""));
        assert_eq!(
            connection.response().status,
            200,
            "the connection stays open"
        );
    }
}

#[test]
fn trailers_after_the_last_chunk_are_ignored() {
    let server = Setup::new().start();
    let body = b"1e\r\n{\"instances\": [1.0, 2.0, 5.0]}\r\n0\r\nX-Checksum: 1\r\nB: c\r\n\r\n";
    let mut connection = send_chunked(&server, body);
    let response = connection.response();
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, PREDICTIONS)
    );
    connection.send(&request("GET", "/ping", &[], b""));
    assert_eq!(
        connection.response().status,
        200,
        "the connection stays open"
    );
}

#[test]
fn an_empty_chunked_body_is_passed_on_as_an_empty_body() {
    let server = Setup::new().start();
    let response = send_chunked(&server, b"0\r\n\r\n").response();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(server.last_request().body.as_deref(), Some(""));
}

#[test]
fn a_chunked_body_of_five_megabytes_comes_back_unchanged() {
    let server = Setup::new().var("FAKE_TFS_ANSWER", "echo").start();
    let row = "[0.125, 1.0, -2.5e-3, 77.0, 12345.678],";
    let body = format!(
        "{{\"instances\": [{}[0]]}}",
        row.repeat(5_000_000 / row.len())
    );
    let mut bytes = HEAD.to_vec();
    // Chunks of many sizes, so buffers end at every possible place.
    for (n, chunk) in body.as_bytes().chunks(7919).enumerate() {
        for part in chunk.split_at((n * 37) % chunk.len()).into_iter_nonempty() {
            bytes.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            bytes.extend_from_slice(part);
            bytes.extend_from_slice(b"\r\n");
        }
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    let response = server.exchange(&bytes);
    assert_eq!(response.status, 200);
    assert!(
        response.body == body.as_bytes(),
        "the body came back changed"
    );
}

#[test]
fn malformed_chunks_get_400() {
    let server = Setup::new().start();
    for body in [
        &b"zz\r\n{}\r\n0\r\n\r\n"[..],
        b"-1\r\n{}\r\n0\r\n\r\n",
        b"\r\n{}\r\n0\r\n\r\n",
        b"fffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}}}\r\n0\r\n\r\n",
        b"2\n{}\n0\n\n",
    ] {
        let mut connection = send_chunked(&server, body);
        connection.half_close();
        let response = connection.response();
        let shown = String::from_utf8_lossy(body);
        assert_eq!(response.status, 400, "{shown:?}: {}", response.text());
        assert!(
            response.error().contains("body"),
            "{shown:?}: {}",
            response.error()
        );
    }
    assert!(
        server.requests().is_empty(),
        "TensorFlow Serving gets no request"
    );
    server.assert_serves();
}

/// The bytes that follow could be anything, for example a request smuggled past a proxy.
#[test]
fn the_connection_closes_after_malformed_chunks() {
    let server = Setup::new().start();
    let smuggled = b"zz\r\n{}\r\n0\r\n\r\nGET /ping HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut connection = send_chunked(&server, smuggled);
    let response = connection.response();
    assert_eq!(response.status, 400);
    assert_eq!(response.header("connection"), Some("close"));
    assert!(connection.is_at_end());
}

#[test]
fn a_chunked_body_without_its_last_chunk_gets_400() {
    let server = Setup::new().start();
    for body in [
        &b"1e\r\n{\"instances\": [1.0, 2.0, 5.0]}\r\n"[..],
        b"1",
        b"",
    ] {
        let mut connection = send_chunked(&server, body);
        connection.half_close();
        let shown = String::from_utf8_lossy(body);
        let response = connection.response();
        assert_eq!(response.status, 400, "{shown:?}: {}", response.text());
        assert!(
            response.error().contains("before the end of its chunks"),
            "{}",
            response.error()
        );
    }
    assert!(
        server.requests().is_empty(),
        "half a body is never passed on"
    );
    server.assert_serves();
}

#[test]
fn clients_that_disconnect_within_a_chunk_affect_no_other_client() {
    let server = Setup::new().start();
    for body in [&b"1e\r\n{\"instances\""[..], b"40\r\n{}"] {
        for _ in 0..80 {
            send_chunked(&server, body);
        }
    }
    server.assert_serves();
    assert_eq!(server.requests().len(), 1, "half a body is never passed on");
}

/// The non-empty parts of a split: an empty chunk would end the body.
trait NonEmpty<'a> {
    fn into_iter_nonempty(self) -> impl Iterator<Item = &'a [u8]>;
}

impl<'a> NonEmpty<'a> for (&'a [u8], &'a [u8]) {
    fn into_iter_nonempty(self) -> impl Iterator<Item = &'a [u8]> {
        [self.0, self.1].into_iter().filter(|part| !part.is_empty())
    }
}
