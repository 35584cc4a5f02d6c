//! How a server drains and ends.

use super::*;

#[test]
fn open_connections_are_served_until_their_last_response_says_close() {
    with_both(2, |workers| {
        let server = TestServer::start(workers, |_| {});
        let mut held = server.hold("/hold");
        let mut open = server.connect();
        open.ask("/a").expect(200, "/a");
        eventually(|| server.server.in_flight() == 1);
        server.server.stop_accepting();
        assert!(TcpStream::connect(server.address).is_err());
        let last = open.ask("/b");
        last.expect(200, "/b");
        assert!(last.head.contains("\r\nConnection: close\r\n"), "{last:?}");
        open.expect_end();
        server.release();
        let last = held.receive();
        last.expect(200, "/hold");
        assert!(last.head.contains("\r\nConnection: close\r\n"), "{last:?}");
        held.expect_end();
        eventually(|| server.server.in_flight() == 0);
    });
}

#[test]
fn connections_that_wait_when_accepting_stops_are_served() {
    with_both(2, |workers| {
        let server = TestServer::start(workers, |_| {});
        let mut clients = Vec::from_iter((0..20).map(|_| server.connect()));
        server.server.stop_accepting();
        for client in &mut clients {
            client.ask("/a").expect(200, "/a");
        }
    });
}

#[test]
fn waiting_and_running_requests_get_503_at_the_end() {
    with_both(1, |workers| {
        let server = TestServer::start(workers, |settings| settings.slots = 1);
        let mut running = server.hold("/stay");
        let mut waiting = server.queue("/waiting");
        let mut open = server.connect();
        open.ask("/now").expect(200, "/now");
        server.expect_begin("/now");
        eventually(|| server.server.in_flight() == 2);
        server.server.stop_accepting();
        server.server.refuse_the_rest();
        running
            .receive()
            .expect_part(503, "The server is stopping.");
        waiting
            .receive()
            .expect_part(503, "The server is stopping.");
        // A new request in the lane `Immediate` still runs.
        open.ask("/now").expect(200, "/now");
        server.expect_begin("/now");
        server.server.finish();
        drop((running, waiting));
        eventually(|| server.server.in_flight() == 0);
        assert!(server.begun.is_empty(), "the waiting request never began");
    });
}

#[test]
fn requests_that_are_being_received_get_503_at_the_end() {
    with_both(1, |workers| {
        let server = TestServer::start(workers, |_| {});
        let heads = [
            "Content-Length: 10\r\n\r\nx",
            "Transfer-Encoding: chunked\r\n\r\n1\r\nx",
        ];
        let mut clients = heads.map(|head| {
            let mut client = server.connect();
            client.send(format!("POST /a HTTP/1.1\r\nHost: x\r\n{head}"));
            client
        });
        eventually(|| server.server.in_flight() == clients.len());
        server.server.stop_accepting();
        server.server.refuse_the_rest();
        for client in &mut clients {
            client.receive().expect_part(503, "The server is stopping.");
        }
    });
}

#[test]
fn new_requests_get_503_at_the_end() {
    with_both(1, |workers| {
        let server = TestServer::start(workers, |_| {});
        let mut open = server.connect();
        open.ask("/a").expect(200, "/a");
        server.server.refuse_the_rest();
        open.ask("/a").expect_part(503, "The server is stopping.");
        open.ask("/thread")
            .expect_part(503, "The server is stopping.");
        open.ask("/now").expect(200, "/now");
    });
}

#[test]
fn finish_waits_for_responses_up_to_its_limit() {
    with_both(1, |workers| {
        let server = TestServer::start(workers, |_| {});
        server.server.finish();
        let held = server.hold("/stay");
        let began = Instant::now();
        server.server.finish();
        assert!(began.elapsed() >= FINISH_LIMIT);
        drop(held);
    });
}
