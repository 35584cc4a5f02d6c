//! What happens when a client hangs up, time runs out, or no room is left.

use std::net::{IpAddr, TcpListener};

use super::*;
use crate::http::shared::Work;
use crate::http::socket::HangUp;

const CANCELLED: Result<(), WaitError> = Err(WaitError::Cancelled);

#[test]
fn a_hang_up_cancels_the_request_and_frees_its_slot() {
    with_both(2, |workers| {
        let server = TestServer::start(workers, |settings| settings.slots = 1);
        for round in 0..10 {
            let path = format!("/hold/{round}");
            drop(server.hold(&path));
            assert_eq!(server.ended.recv_timeout(LIMIT), Ok((path, CANCELLED)));
        }
        eventually(|| server.server.in_flight() == 0);
        server.connect().ask("/a").expect(200, "/a");
    });
}

#[test]
fn a_hang_up_removes_the_request_from_the_backlog() {
    with_both(1, |workers| {
        let server = TestServer::start(workers, |settings| settings.slots = 1);
        let mut held = server.hold("/hold");
        let gone = server.queue("/gone");
        let mut next = server.queue("/next");
        drop(gone);
        eventually(|| server.server.in_flight() == 2);
        server.release();
        held.receive().expect(200, "/hold");
        next.receive().expect(200, "/next");
        server.expect_begin("/next");
        assert!(server.begun.is_empty());
    });
}

#[test]
fn a_hang_up_just_before_a_thread_starts_the_request_cancels_it() {
    let server = TestServer::start(Workers::Threads(1), |_| {});
    let shared = &server.server.0;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let peer = IpAddr::from(Ipv4Addr::LOCALHOST);
    let socket = Arc::new(Socket::new(1 << 40, stream, peer, 0, &shared.budget));
    drop(client);
    // The worker has seen the hang-up and found nothing to cancel.
    socket.note_hang_up(HangUp::Sending);
    eventually(|| socket.has_hung_up());
    let now = Instant::now();
    let work = Work {
        socket,
        request: Request {
            head: Head::parse(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()).unwrap(),
            body: Buffer::default(),
            received: now,
            deadline: now + LIMIT,
        },
        plan: "/hold".to_owned(),
        has_slot: false,
    };
    shared.threads.as_ref().unwrap().send(work).ok().unwrap();
    let ended = server.ended.recv_timeout(LIMIT).unwrap();
    assert_eq!(ended, ("/hold".to_owned(), CANCELLED));
}

#[test]
fn a_full_backlog_returns_503_and_keeps_the_connection() {
    with_both(1, |workers| {
        let server = TestServer::start(workers, |settings| {
            (settings.slots, settings.backlog) = (1, 2);
        });
        let mut held = server.hold("/hold");
        let mut queued = ["/a", "/b"].map(|path| server.queue(path));
        let mut refused = server.connect();
        for _ in 0..3 {
            let response = refused.ask("/c");
            response.expect_part(503, "Too many requests are waiting");
            assert!(
                response.head.contains("\r\nRetry-After: 1\r\n"),
                "{response:?}"
            );
        }
        // The server does not wait for a body that it could not use.
        refused.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n");
        refused
            .receive()
            .expect_part(503, "Too many requests are waiting");
        refused.send("abc");
        // Clients of HTTP/1.0 get the same response.
        let mut old = server.connect();
        old.send("GET /c HTTP/1.0\r\n\r\n");
        old.receive()
            .expect_part(503, "Too many requests are waiting");
        old.expect_end();
        server.release();
        held.receive().expect(200, "/hold");
        for (client, path) in queued.iter_mut().zip(["/a", "/b"]) {
            client.receive().expect(200, path);
        }
        refused.ask("/c").expect(200, "/c");
    });
}

#[test]
fn returns_504_when_no_slot_is_free_before_the_deadline() {
    with_both(1, |workers| {
        let server = TestServer::start(workers, |settings| {
            settings.slots = 1;
            settings.deadline = Duration::from_secs(1);
        });
        let mut held = server.hold("/stay");
        let mut late = server.queue("/late");
        late.receive()
            .expect_part(504, "the request waited for others to finish");
        server.release();
        held.receive().expect(200, "/stay");
        late.ask("/a").expect(200, "/a");
        server.expect_begin("/a");
    });
}

#[test]
fn a_request_sees_its_deadline() {
    with_both(1, |workers| {
        let server = TestServer::start(workers, |settings| {
            settings.deadline = Duration::from_secs(1);
        });
        server.connect().ask("/hold").expect_part(504, "");
    });
}

#[test]
fn returns_503_when_there_is_no_room_for_a_connection() {
    with_both(1, |workers| {
        let server = TestServer::start(workers, |settings| settings.max_connections = 2);
        let mut held = ["/hold/1", "/hold/2"].map(|path| server.hold(path));
        let mut third = server.connect();
        third.receive().expect_part(503, "too many connections");
        third.expect_end();
        server.release();
        for client in &mut held {
            assert_eq!(client.receive().status, 200);
        }
    });
}

#[test]
fn an_idle_connection_makes_room_for_a_new_one() {
    let server = TestServer::start(Workers::Coroutines(2), |settings| {
        settings.max_connections = 2;
    });
    let mut held = server.hold("/hold");
    let mut idle = server.connect();
    idle.ask("/now").expect(200, "/now");
    // Not at once: the client may be about to use it.
    let limit = Instant::now() + LIMIT;
    loop {
        assert!(Instant::now() < limit, "no new connection is served");
        let mut new = server.connect();
        if new
            .0
            .get_mut()
            .write_all(b"GET /now HTTP/1.1\r\nHost: x\r\n\r\n")
            .is_err()
        {
            continue;
        }
        // A client that is turned away may see a reset, because the server did not read its request.
        if matches!(new.0.fill_buf(), Ok([_, ..])) && new.receive().status == 200 {
            break;
        }
    }
    idle.expect_end();
    server.release();
    held.receive().expect(200, "/hold");
}
