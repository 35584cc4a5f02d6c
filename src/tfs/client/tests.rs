//! The client with a model server that follows a script: on a plain thread, and in a coroutine.

mod connections;
mod ends;

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::bounded;

use super::*;
use crate::budget::Budget;
use crate::supervisor::readiness::Readiness;
use crate::tfs::checked_body::CheckedBody;
use crate::tfs::message::{Method, TfsRequest};
use crate::tfs::probe::readiness_of;
use crate::tfs::status::Versions;
use crate::wait::testing::{CANCELLABLE, LIMIT, PLACES, SHORT, everywhere, start};

/// A model server that follows a script on a thread of its own.
struct Script {
    port: u16,
    thread: JoinHandle<()>,
}

impl Script {
    fn new(script: impl FnOnce(&TcpListener) + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self {
            port: listener.local_addr().unwrap().port(),
            thread: thread::spawn(move || script(&listener)),
        }
    }

    /// Waits for the end of the script, and panics if the script did.
    fn join(self) {
        self.thread.join().unwrap();
    }
}

/// A connection as the model server sees it.
struct Served(TcpStream);

impl Served {
    fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self(stream)
    }

    /// Reads a request. Returns its head and its body.
    fn read(&mut self) -> (String, Vec<u8>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let lower = head.to_lowercase();
        let length = lower
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.0.read_exact(&mut body).unwrap();
        (head, body)
    }

    fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    /// Reads a request and answers it.
    fn answer(&mut self, body: &str) {
        self.read();
        self.write(ok(body));
    }

    /// Waits for the client to close the connection, and panics if it sends anything before that.
    fn expect_end(&mut self) {
        match self.0.read(&mut [0; 8]) {
            Ok(0) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("{other:?}"),
        }
    }
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Sends a request with this body.
fn post(
    client: &Client,
    port: u16,
    body: &[u8],
    within: Duration,
) -> Result<TfsResponse, SendError> {
    let request = TfsRequest {
        method: Method::Post,
        path: "/v1/models/m:predict",
        content_type: Some("application/json"),
        body: &CheckedBody::check(body.to_vec().into()).unwrap(),
    };
    let request = Outgoing::new(&request).unwrap();
    client.send(
        &Address::new(port),
        &request,
        &Buffer::default(),
        Instant::now() + within,
    )
}

fn get(client: &Client, port: u16) -> Result<TfsResponse, SendError> {
    get_within(client, port, LIMIT)
}

fn get_within(client: &Client, port: u16, within: Duration) -> Result<TfsResponse, SendError> {
    let request = TfsRequest {
        method: Method::Get,
        path: "/v1/models/m",
        content_type: None,
        body: &CheckedBody::default(),
    };
    let request = Outgoing::new(&request).unwrap();
    client.send(
        &Address::new(port),
        &request,
        &Buffer::default(),
        Instant::now() + within,
    )
}

/// Sends GET and asserts that the response has this body.
fn expect_body(client: &Client, port: u16, body: &str) {
    let response = get(client, port).unwrap();
    assert_eq!((response.status, &*response.body), (200, body.as_bytes()));
}

#[test]
fn a_lack_of_resources_here_is_a_local_error() {
    for errno in [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::ADDRNOTAVAIL,
        Errno::AGAIN,
    ] {
        let error = Error::Io(io::Error::from_raw_os_error(errno.raw_os_error()));
        assert!(matches!(send_error(error), SendError::Local(_)), "{errno}");
    }
    for errno in [Errno::CONNRESET, Errno::PIPE] {
        let error = Error::Io(io::Error::from_raw_os_error(errno.raw_os_error()));
        assert!(matches!(send_error(error), SendError::Lost(_)), "{errno}");
    }
    let refused = io::Error::from_raw_os_error(Errno::CONNREFUSED.raw_os_error());
    assert!(matches!(send_error(Error::Io(refused)), SendError::Refused));
}

#[test]
fn a_request_and_its_response_pass_unchanged() {
    everywhere(|| {
        let server = Script::new(|listener| {
            let mut connection = Served::accept(listener);
            let (head, body) = connection.read();
            let first = head.lines().next().unwrap();
            assert_eq!(first, "POST /v1/models/m:predict HTTP/1.1");
            assert!(
                head.to_lowercase()
                    .contains("content-type: application/json\r\n")
            );
            assert_eq!(body, b"{\"a\": 1}");
            connection.write(ok("answer"));
        });
        let response = post(&Client::new(1), server.port, b"{\"a\": 1}", LIMIT).unwrap();
        assert_eq!((response.status, &*response.body), (200, &b"answer"[..]));
        assert_eq!(response.content_type(), Some("text/x"));
        server.join();
    });
}

#[test]
fn reads_a_response_in_pieces_of_any_size() {
    everywhere(|| {
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let until_the_end = "HTTP/1.1 200 OK\r\nContent-Type: text/x\r\n\r\nabcde";
        let server = Script::new(move |listener| {
            for response in [ok("abcde"), chunked.to_owned(), until_the_end.to_owned()] {
                let mut connection = Served::accept(listener);
                connection.read();
                for byte in response.as_bytes() {
                    connection.write([*byte]);
                }
            }
        });
        for _ in 0..3 {
            // A new client each time, so that each response comes on a new connection.
            expect_body(&Client::new(1), server.port, "abcde");
        }
        server.join();
    });
}

#[test]
fn sends_and_receives_bodies_larger_than_the_systems_buffers() {
    everywhere(|| {
        let body = Vec::from_iter((0..16_000_000u32).map(|n| b'0' + (n % 10) as u8));
        let expected = body.clone();
        let server = Script::new(move |listener| {
            let mut connection = Served::accept(listener);
            let (_, got) = connection.read();
            assert!(got == expected);
            connection.write(ok("read"));
            let response = "x".repeat(6_000_000);
            connection.read();
            connection.write(ok(&response));
        });
        let client = Client::new(1);
        let response = post(&client, server.port, &body, LIMIT).unwrap();
        assert_eq!(&*response.body, b"read");
        assert_eq!(get(&client, server.port).unwrap().body.len(), 6_000_000);
        server.join();
    });
}

#[test]
fn does_not_read_a_response_for_which_there_is_no_memory() {
    everywhere(|| {
        let server = Script::new(|listener| {
            let mut connection = Served::accept(listener);
            connection.read();
            connection.write("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
            connection.expect_end();
        });
        let memory = Budget::new(1000).arriving(0).sibling();
        let request = TfsRequest {
            method: Method::Get,
            path: "/v1/models/m",
            content_type: None,
            body: &CheckedBody::default(),
        };
        let request = Outgoing::new(&request).unwrap();
        let deadline = Instant::now() + LIMIT;
        let error = Client::new(1).send(&Address::new(server.port), &request, &memory, deadline);
        let error = error.unwrap_err();
        assert!(
            matches!(error, SendError::NoRoom(NoRoom::Ever)),
            "{error:?}"
        );
        server.join();
    });
}

#[test]
fn returns_an_error_response_and_keeps_the_connection() {
    everywhere(|| {
        let server = Script::new(|listener| {
            let mut connection = Served::accept(listener);
            connection.read();
            connection.write("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\noops");
            connection.answer("next");
        });
        let client = Client::new(1);
        let response = get(&client, server.port).unwrap();
        assert_eq!((response.status, &*response.body), (404, &b"oops"[..]));
        expect_body(&client, server.port, "next");
        server.join();
    });
}

#[test]
fn the_probe_asks_for_the_status_of_each_model() {
    everywhere(|| {
        let status = |state: &str| {
            ok(&format!(
                r#"{{"model_version_status": [{{"version": "1", "state": "{state}", "status": {{"error_code": "OK", "error_message": ""}}}}]}}"#
            ))
        };
        let server = Script::new(move |listener| {
            let mut connection = Served::accept(listener);
            for (state, model) in [
                ("AVAILABLE", "a"),
                ("AVAILABLE", "b"),
                ("AVAILABLE", "a"),
                ("LOADING", "b"),
            ] {
                let (head, _) = connection.read();
                let expected = format!("GET /v1/models/{model} HTTP/1.1\r\n");
                assert!(head.starts_with(&expected), "{head}");
                connection.write(status(state));
            }
        });
        let models = ["a", "b"].map(|name| Versions {
            name: name.to_owned(),
            numbers: vec![1],
        });
        let client = Client::new(1);
        assert_eq!(
            readiness_of(&client, server.port, &models),
            Ok(Readiness::Ready)
        );
        let second = readiness_of(&client, server.port, &models).unwrap();
        assert!(matches!(second, Readiness::NotReady(_)), "{second:?}");
        server.join();
    });
}
