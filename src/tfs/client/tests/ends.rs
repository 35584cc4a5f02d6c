//! Why there may be no answer.

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketType, sockopt};

use super::*;

#[test]
fn nobody_listens() {
    everywhere(|| {
        // Bound, but not listening: the port is nobody else's either.
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
fn a_full_backlog_is_waited_for_until_the_deadline() {
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
            assert!(connected.len() < 100, "it has room for all");
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
fn a_deadline_that_has_passed_sends_nothing() {
    everywhere(|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = get_within(&Client::new(1), port, Duration::ZERO).unwrap_err();
        assert!(matches!(error, SendError::Deadline), "{error:?}");
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

/// Sends a request to a server that answers with this and waits for the end; sends another one, which it answers.
fn expect_deadline(answer: &'static str) {
    everywhere(move || {
        let server = Script::new(move |listener| {
            let mut connection = Served::accept(listener);
            connection.read();
            connection.write(answer);
            // Nobody waits for the rest.
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
fn a_deadline_passes_before_the_answer_or_in_its_midst() {
    expect_deadline("");
    expect_deadline("HTTP/1.1 200 ");
    expect_deadline("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    expect_deadline("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
}

#[test]
fn a_deadline_passes_while_the_request_is_sent() {
    everywhere(|| {
        let (say, said) = bounded::<()>(0);
        let server = Script::new(move |listener| {
            let connection = Served::accept(listener);
            // It reads nothing.
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

/// Sends a request to a server that answers with this and closes the connection.
fn expect_loss(answer: &'static str, resets: bool) {
    everywhere(move || {
        let server = Script::new(move |listener| {
            let mut connection = Served::accept(listener);
            connection.read();
            connection.write(answer);
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
fn a_connection_is_lost_before_the_whole_answer_is_there() {
    for answer in [
        "",
        "HTTP/1.1 200 ",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        expect_loss(answer, false);
        expect_loss(answer, true);
    }
    // Without a length, only a reset tells that it is not whole.
    expect_loss("HTTP/1.1 200 OK\r\n\r\nhalf", true);
    expect_loss("nonsense\r\n\r\n", false);
}

#[test]
fn a_request_that_nobody_needs_any_more_ends() {
    for place in CANCELLABLE {
        for answer in ["", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"] {
            let (say, said) = bounded(1);
            let server = Script::new(move |listener| {
                let mut connection = Served::accept(listener);
                connection.read();
                connection.write(answer);
                say.send(()).unwrap();
                // The model server sees it, and nobody gets the rest.
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
