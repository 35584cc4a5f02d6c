//! Where requests are planned and run.

use super::*;

#[test]
fn every_request_is_planned_exactly_once() {
    with_both(2, |workers| {
        let server = TestServer::start(workers, |_| {});
        let mut client = server.connect();
        client.ask("/now").expect(200, "/now");
        assert_eq!(server.planned(), 1);
        // Split into pieces, with another request after it.
        let head = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n";
        for piece in [&head[..9], &head[9..30], &head[30..], "01234"] {
            client.send(piece);
        }
        client.send("56789GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
        client.receive().expect(200, "0123456789");
        client.receive().expect(200, "/a");
        assert_eq!(server.planned(), 3);
        // The body is refused.
        client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n");
        client.receive().expect_part(413, "");
        assert_eq!(server.planned(), 4);
        // Input that is not a request is not planned.
        let mut client = server.connect();
        client.send("nonsense\r\n\r\n");
        client.receive().expect_part(400, "");
        assert_eq!(server.planned(), 4);
    });
}

#[test]
fn each_lane_runs_on_its_own_threads() {
    for (workers, request) in [
        (Workers::Coroutines(1), "worker-0"),
        (Workers::Threads(1), "request-"),
    ] {
        let server = TestServer::start(workers, |_| {});
        let mut client = server.connect();
        client.ask("/now/where").expect(200, "worker-0");
        client.ask("/thread/where").expect(200, "manage");
        client.ask("/request/where").expect_part(200, request);
    }
}

#[test]
fn other_lanes_run_while_all_slots_are_taken() {
    with_both(1, |workers| {
        let server = TestServer::start(workers, |settings| settings.slots = 1);
        let mut held = server.hold("/hold");
        let mut waiting = server.queue("/waiting");
        let mut client = server.connect();
        client.ask("/now").expect(200, "/now");
        client.ask("/thread").expect(200, "/thread");
        server.expect_begin("/now");
        server.expect_begin("/thread");
        assert!(server.begun.is_empty(), "the other request waits");
        server.release();
        held.receive().expect(200, "/hold");
        waiting.receive().expect(200, "/waiting");
    });
}

#[test]
fn requests_in_the_thread_lane_do_not_use_slots() {
    with_both(1, |workers| {
        let server = TestServer::start(workers, |settings| settings.slots = 1);
        let mut held = server.hold("/thread/stay");
        server.connect().ask("/a").expect(200, "/a");
        server.release();
        held.receive().expect(200, "/thread/stay");
    });
}

#[test]
fn the_backlog_is_first_come_first_served() {
    with_both(1, |workers| {
        let server = TestServer::start(workers, |settings| settings.slots = 1);
        let mut held = server.hold("/hold");
        let paths = ["/a", "/b", "/c", "/d", "/e"];
        let mut clients = Vec::from_iter(paths.map(|path| server.queue(path)));
        assert!(server.begun.is_empty());
        server.release();
        held.receive().expect(200, "/hold");
        for (client, path) in clients.iter_mut().zip(paths) {
            server.expect_begin(path);
            client.receive().expect(200, path);
        }
    });
}

#[test]
fn a_freed_slot_goes_to_a_request_of_another_worker() {
    with_both(4, |workers| {
        let server = TestServer::start(workers, |settings| settings.slots = 1);
        let mut held = server.hold("/hold");
        let mut clients = Vec::from_iter((0..8).map(|_| server.get("/a")));
        eventually(|| server.server.in_flight() == 9);
        server.release();
        held.receive().expect(200, "/hold");
        for client in &mut clients {
            client.receive().expect(200, "/a");
        }
    });
}

#[test]
fn a_panic_costs_one_request() {
    with_both(1, |workers| {
        let server = TestServer::start(workers, |_| {});
        let mut held = server.hold("/hold");
        let mut client = server.connect();
        for path in ["/panic", "/now/panic", "/thread/panic", "/panic", "/panic"] {
            client
                .ask(path)
                .expect_part(500, "The server failed to handle this request");
        }
        client.ask("/a").expect(200, "/a");
        server.release();
        held.receive().expect(200, "/hold");
    });
}

#[test]
fn connections_are_spread_over_the_workers() {
    with_both(4, |workers| {
        let server = TestServer::start(workers, |_| {});
        // The clients connect one after the other: at the same time, two workers could choose the same one.
        let clients = Vec::from_iter((0..8).map(|_| {
            let mut client = server.connect();
            client.ask("/now").expect(200, "/now");
            client
        }));
        let table = &server.server.0.listener.table;
        let loads = Vec::from_iter((0..4).map(|worker| table.of_worker(worker).len()));
        assert_eq!(loads, [2; 4]);
        drop(clients);
        eventually(|| table.len() == 0);
    });
}

#[test]
fn many_clients_get_their_own_responses() {
    with_both(2, |workers| {
        let server = TestServer::start(workers, |settings| settings.backlog = 64);
        thread::scope(|scope| {
            for number in 0..16 {
                let server = &server;
                scope.spawn(move || {
                    let mut client = server.connect();
                    for request in 0..50 {
                        let path = format!("/{number}/{request}");
                        client.ask(&path).expect(200, &path);
                    }
                });
            }
        });
        assert_eq!(server.planned(), 16 * 50);
        eventually(|| server.server.in_flight() == 0);
    });
}
