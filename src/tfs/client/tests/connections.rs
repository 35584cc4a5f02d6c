//! Which connections serve again.

use super::*;

#[test]
fn a_connection_serves_again() {
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

/// A connection that had this answer, with the body `first`, does not serve again.
fn expect_new_connection(answer: &'static str) {
    everywhere(move || {
        let server = Script::new(move |listener| {
            let mut first = Served::accept(listener);
            first.read();
            first.write(answer);
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
fn a_connection_ends_when_the_answer_says_so() {
    expect_new_connection("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nfirst");
}

#[test]
fn a_connection_ends_when_the_end_of_the_answer_is_unclear() {
    expect_new_connection("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nfirst");
    expect_new_connection("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nfirst");
}

#[test]
fn a_connection_ends_when_more_than_the_answer_comes_with_it() {
    expect_new_connection("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirstHTTP/1.1 200 OK\r\n");
}

/// What happens to the idle connection is seen before the next request.
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
fn an_idle_connection_on_which_something_came_is_not_used() {
    expect_new_connection_after(|mut connection| {
        connection.write(ok("to a question that nobody asked"));
        Some(connection)
    });
}

#[test]
fn an_idle_connection_that_was_closed_is_not_used() {
    expect_new_connection_after(|connection| {
        drop(connection);
        None
    });
}

#[test]
fn requests_at_once_have_a_connection_each() {
    for place in PLACES {
        let server = Script::new(|listener| {
            let mut both = [Served::accept(listener), Served::accept(listener)];
            // Both have come before the first is answered.
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
