//! Requests that get no response, or only a part of it.

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketType, sockopt};

use super::*;

#[test]
fn returns_refused_when_no_process_listens() {
    everywhere(|| {
        // Bound, but not listening, so that no other process can get the port.
        let kind = SocketType::STREAM;
        let bound: OwnedFd = rustix::net::socket(AddressFamily::INET, kind, None).unwrap();
        let any = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        rustix::net::bind(&bound, &any).unwrap();
        let address = rustix::net::getsockname(&bound).unwrap();
        let port = std::net::SocketAddr::try_from(address).unwrap().port();
        let client = Client::new(1);
        let error = get(&client, port).unwrap_err();
        assert!(matches!(error, SendError::Refused), "{error:?}");
        assert!(!client.is_open(port));
        rustix::net::listen(&bound, 8).unwrap();
        assert!(client.is_open(port));
    });
}

#[test]
fn waits_until_the_deadline_when_the_backlog_is_full() {
    everywhere(|| {
        let kind = SocketType::STREAM;
        let listener: OwnedFd = rustix::net::socket(AddressFamily::INET, kind, None).unwrap();
        let any = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        rustix::net::bind(&listener, &any).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let address = rustix::net::getsockname(&listener).unwrap();
        let port = std::net::SocketAddr::try_from(address).unwrap().port();
        let mut connected = Vec::new();
        let error = loop {
            assert!(connected.len() < 100, "the backlog is never full");
            match connection::connect(port, Instant::now() + SHORT) {
                Ok(stream) => connected.push(stream),
                Err(e) => break e,
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let error = get_within(&Client::new(1), port, SHORT).unwrap_err();
        assert!(matches!(error, SendError::Deadline), "{error:?}");
    });
}

#[test]
fn sends_nothing_after_the_deadline() {
    everywhere(|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = get_within(&Client::new(1), port, Duration::ZERO).unwrap_err();
        assert!(matches!(error, SendError::Deadline), "{error:?}");
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

/// Asserts that a request ends at the deadline when the server sends only `response`, that its connection is closed,
/// and that the next request gets a new connection.
fn expect_deadline(response: &'static str) {
    everywhere(move || {
        let server = Script::new(move |listener| {
            let mut connection = Served::accept(listener);
            connection.read();
            connection.write(response);
            connection.expect_end();
            Served::accept(listener).answer("next");
        });
        let client = Client::new(1);
        let error = get_within(&client, server.port, 5 * SHORT).unwrap_err();
        assert!(matches!(error, SendError::Deadline), "{error:?}");
        expect_body(&client, server.port, "next");
        server.join();
    });
}

#[test]
fn ends_at_the_deadline_before_or_within_the_response() {
    expect_deadline("");
    expect_deadline("HTTP/1.1 200 ");
    expect_deadline("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    expect_deadline("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
}

#[test]
fn ends_at_the_deadline_while_the_request_is_sent() {
    everywhere(|| {
        let (say, said) = bounded::<()>(0);
        let server = Script::new(move |listener| {
            let connection = Served::accept(listener);
            // Reads nothing until the client has given up.
            let _ = said.recv_timeout(LIMIT);
            drop(connection);
        });
        let body = vec![b'0'; 32 << 20];
        let error = post(&Client::new(1), server.port, &body, 5 * SHORT).unwrap_err();
        assert!(matches!(error, SendError::Deadline), "{error:?}");
        drop(say);
        server.join();
    });
}

/// Asserts that a request is lost when the server sends only `response` and closes the connection, with a reset if
/// `resets`.
fn expect_loss(response: &'static str, resets: bool) {
    everywhere(move || {
        let server = Script::new(move |listener| {
            let mut connection = Served::accept(listener);
            connection.read();
            connection.write(response);
            if resets {
                sockopt::set_socket_linger(&connection.0, Some(Duration::ZERO)).unwrap();
            }
        });
        let error = get(&Client::new(1), server.port).unwrap_err();
        assert!(matches!(error, SendError::Lost(_)), "{error:?}");
        server.join();
    });
}

#[test]
fn returns_lost_when_the_connection_ends_before_the_response() {
    for response in [
        "",
        "HTTP/1.1 200 ",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        expect_loss(response, false);
        expect_loss(response, true);
    }
    // Without a length, only a reset shows that the response is incomplete.
    expect_loss("HTTP/1.1 200 OK\r\n\r\nhalf", true);
    expect_loss("nonsense\r\n\r\n", false);
}

#[test]
fn closes_the_connection_of_a_cancelled_request() {
    for place in CANCELLABLE {
        for response in ["", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"] {
            let (say, said) = bounded(1);
            let server = Script::new(move |listener| {
                let mut connection = Served::accept(listener);
                connection.read();
                connection.write(response);
                say.send(()).unwrap();
                // No later request may get the rest of this response.
                connection.expect_end();
                Served::accept(listener).answer("next");
            });
            let client = Arc::new(Client::new(1));
            let (theirs, port) = (Arc::clone(&client), server.port);
            let job = start(place, move || get(&theirs, port));
            said.recv_timeout(LIMIT).unwrap();
            (job.cancel)();
            let error = job.join().unwrap_err();
            assert!(matches!(error, SendError::Cancelled), "{error:?}");
            expect_body(&client, server.port, "next");
            server.join();
        }
    }
}
