//! Which connections are used for more than one request.

use super::*;

#[test]
fn reuses_a_connection() {
    everywhere(|| {
        let server = Script::new(|listener| {
            let mut connection = Served::accept(listener);
            for body in ["one", "two", "three"] {
                connection.answer(body);
            }
        });
        let client = Client::new(1);
        for body in ["one", "two", "three"] {
            expect_body(&client, server.port, body);
        }
        server.join();
    });
}

/// Asserts that a connection is not used again after this response, whose body is `first`.
fn expect_new_connection(response: &'static str) {
    everywhere(move || {
        let server = Script::new(move |listener| {
            let mut first = Served::accept(listener);
            first.read();
            first.write(response);
            let mut second = Served::accept(listener);
            second.answer("second");
            first.expect_end();
        });
        let client = Client::new(2);
        expect_body(&client, server.port, "first");
        expect_body(&client, server.port, "second");
        server.join();
    });
}

#[test]
fn closes_a_connection_when_the_response_says_so() {
    expect_new_connection("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nfirst");
}

#[test]
fn closes_a_connection_when_the_end_of_the_response_is_unclear() {
    expect_new_connection("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nfirst");
    expect_new_connection("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nfirst");
}

#[test]
fn closes_a_connection_when_more_bytes_follow_the_response() {
    expect_new_connection("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirstHTTP/1.1 200 OK\r\n");
}

/// Asserts that the next request gets a new connection after `idle` has happened to the idle one.
fn expect_new_connection_after(idle: fn(Served) -> Option<Served>) {
    everywhere(move || {
        let (begin, begins) = bounded(1);
        let (say, said) = bounded(1);
        let server = Script::new(move |listener| {
            let mut first = Served::accept(listener);
            first.answer("first");
            begins.recv_timeout(LIMIT).unwrap();
            let first = idle(first);
            say.send(()).unwrap();
            Served::accept(listener).answer("second");
            drop(first);
        });
        let client = Client::new(1);
        expect_body(&client, server.port, "first");
        begin.send(()).unwrap();
        said.recv_timeout(LIMIT).unwrap();
        expect_body(&client, server.port, "second");
        server.join();
    });
}

#[test]
fn does_not_use_an_idle_connection_with_unexpected_input() {
    expect_new_connection_after(|mut connection| {
        connection.write(ok("without a request"));
        Some(connection)
    });
}

#[test]
fn does_not_use_an_idle_connection_that_was_closed() {
    expect_new_connection_after(|connection| {
        drop(connection);
        None
    });
}

#[test]
fn concurrent_requests_get_a_connection_each() {
    for place in PLACES {
        let server = Script::new(|listener| {
            let mut both = [Served::accept(listener), Served::accept(listener)];
            // Both requests arrive before the first response is sent.
            let heads = both.each_mut().map(|connection| connection.read().0);
            assert!(heads.iter().all(|head| head.starts_with("GET ")));
            for mut connection in both {
                connection.write(ok("x"));
            }
        });
        let client = Arc::new(Client::new(2));
        let jobs = [0, 1].map(|_| {
            let (client, port) = (Arc::clone(&client), server.port);
            start(place, move || expect_body(&client, port, "x"))
        });
        for job in jobs {
            job.join();
        }
        server.join();
    }
}
