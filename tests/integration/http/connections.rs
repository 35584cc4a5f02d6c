//! Many connections, slow ones and greedy ones: they do not affect other clients, and the server keeps serving when it
//! runs out of descriptors or memory.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;
use serde_json::json;

use crate::support::server::fake;
use crate::support::{
    Connection, INSTANCES, PREDICTIONS, Server, SetWhenDropped, Setup, processes, request,
    wait_for, wait_until,
};

/// More than the number of slots, so the tests notice a slot that is not freed.
const MANY: usize = 80;

fn invocation() -> Vec<u8> {
    request("POST", "/invocations", &[], INSTANCES)
}

#[track_caller]
fn assert_works(connection: &mut Connection) {
    connection.send(&invocation());
    let response = connection.response();
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, PREDICTIONS)
    );
}

fn open_files(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/fd", server.pid()))
        .expect("the server runs")
        .count()
}

fn threads(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/task", server.pid()))
        .expect("the server runs")
        .count()
}

#[test]
fn idle_and_dripping_connections_take_no_thread_and_delay_no_request() {
    processes::raise_own_file_limit();
    let server = Setup::new().var("FAKE_TFS_RECORD_REQUESTS", 0).start();
    server.assert_serves();
    let (files, tasks) = (open_files(&server), threads(&server));
    let idle: Vec<_> = (0..1500).map(|_| server.connect()).collect();
    let mut dripping: Vec<_> = (0..300).map(|_| server.connect()).collect();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let dripper = scope.spawn(|| {
            let drops = b"POST /invocations HTTP/1.1\r\nHost: x\r\nX-Slow: 1".iter();
            for &drop in drops.chain([&b'x'; 10_000]) {
                for connection in &mut dripping {
                    let _ = connection.try_send(&[drop]);
                }
                if over.load(Ordering::Relaxed) {
                    break;
                }
                thread::yield_now();
            }
        });
        let _over = SetWhenDropped(&over);
        let clients: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = server.connect();
                    for _ in 0..50 {
                        assert_works(&mut connection);
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        assert!(
            !dripper.is_finished(),
            "the connections dripped all the time"
        );
    });
    assert_eq!(threads(&server), tasks, "no thread per connection");
    drop((idle, dripping));
    wait_until("the descriptors are freed", || {
        open_files(&server) <= files + 16
    });
    server.assert_serves();
}

#[test]
fn a_head_that_drips_gets_408_although_bytes_keep_coming() {
    let server = Setup::new().start();
    let mut connection = server.connect();
    connection.send(b"GET /ping HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    wait_until("the head is given up", || {
        let _ = connection.try_send(b"x");
        connection.is_readable()
    });
    let response = connection.response();
    assert_eq!(response.status, 408, "{}", response.text());
    assert!(response.error().contains("head"), "{}", response.error());
}

#[test]
fn clients_that_do_not_read_hold_no_slots() {
    let server = Setup::new()
        .var("FAKE_TFS_FIXED_BODY_BYTES", 8 << 20)
        .start();
    let mut waiting: Vec<_> = (0..MANY).map(|_| server.connect()).collect();
    for connection in &mut waiting {
        connection.send(&invocation());
    }
    // Each response is larger than the socket buffers, so the server cannot hand all of it to the system.
    wait_until("all responses have begun", || {
        waiting.iter_mut().all(Connection::is_readable)
    });
    for _ in 0..3 {
        assert_eq!(server.ping().status, 200);
        assert_eq!(server.invoke(INSTANCES).status, 200);
    }
    for connection in &mut waiting {
        assert!(connection.response().body.len() > 7 << 20);
    }
}

#[test]
fn requests_pipelined_after_a_slow_one_delay_no_other_client() {
    let server = Setup::new().start();
    let slow = fake(&json!({"hang": true}));
    let mut bytes = request("POST", "/invocations", &[], slow.as_bytes());
    for _ in 0..1000 {
        bytes.extend(request("GET", "/ping", &[], b""));
    }
    let mut held: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for connection in &mut held {
        connection.send(&bytes);
    }
    wait_until("the model server has the slow requests", || {
        server.stat(0, "in_flight") == 3
    });
    for _ in 0..20 {
        server.assert_serves();
    }
    assert!(held.iter_mut().all(|connection| !connection.is_readable()));
}

fn wait_for_room(server: &Server) {
    wait_until("a new connection is served", || {
        let response = Connection::try_open(server.port()).and_then(|mut connection| {
            connection.try_send(&invocation())?;
            connection.try_response()
        });
        matches!(response, Ok(Some(response)) if response.status == 200)
    });
}

#[test]
fn without_descriptors_clients_are_served_and_new_connections_are_refused_or_accepted() {
    let server = Setup::new().start();
    let mut working = server.connect();
    assert_works(&mut working);
    server.wait_until_healthy();
    let before = processes::limit_files(server.pid(), Some(open_files(&server) as u64 + 2));
    assert!(before.current.is_none_or(|files| files > 1000));

    // These requests have begun: no new connection may take their place.
    let mut busy: Vec<_> = Vec::new();
    let head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\n";
    let mut refused = 0;
    for _ in 0..50 {
        let mut connection = server.connect();
        let _ = connection.try_send(head);
        busy.push(connection);
    }
    for connection in &mut busy {
        // What the client sees decides: refused or accepted.
        if connection.is_readable()
            && let Ok(Some(response)) = connection.try_response()
        {
            assert_eq!(response.status, 503, "{}", response.text());
            refused += 1;
        }
    }
    for _ in 0..20 {
        assert_works(&mut working);
    }
    // New connections take the place of idle ones.
    drop(busy);
    let idle: Vec<_> = (0..20).map(|_| server.connect()).collect();
    wait_for_room(&server);
    drop(idle);
    processes::limit_files(server.pid(), None);
    server.assert_serves();
    assert!(refused <= 50);
    assert!(server.log().contains("cannot accept a connection"));
    assert_eq!(
        server.log().matches("cannot accept a connection").count(),
        1,
        "the log is not flooded"
    );
}

#[test]
fn the_longest_idle_connection_is_closed_at_the_limit_of_connections() {
    // Half of the descriptors are for connections.
    let server = Setup::new()
        .wrapper(&["sh", "-c", "ulimit -n 200; exec \"$0\" \"$@\""])
        .start();
    let mut oldest = server.connect();
    assert_works(&mut oldest);
    let mut working = server.connect();
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(server.connect());
        // A connection with a request now and then is not idle for long.
        assert_works(&mut working);
    }
    wait_for_room(&server);
    assert_works(&mut working);
    // A connection that a worker is handling at that moment is skipped, so the oldest may not be the first to close.
    wait_until("the oldest connection is closed", || {
        idle.push(server.connect());
        oldest.is_readable()
    });
    assert!(oldest.is_at_end());
    assert!(open_files(&server) < 200);
}

/// These connections are not idle, and may stay like this until their deadline.
#[test]
fn connections_with_stalled_bodies_make_room_for_new_connections() {
    let server = Setup::new()
        .deadline(600)
        .wrapper(&["sh", "-c", "ulimit -n 200; exec \"$0\" \"$@\""])
        .start();
    let one_byte = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n{";
    let mut held: Vec<_> = (0..300)
        .map(|_| {
            let mut connection = server.connect();
            let _ = connection.try_send(one_byte);
            connection
        })
        .collect();
    for _ in 0..20 {
        wait_for_room(&server);
    }
    let refused = held
        .iter_mut()
        .position(|connection| connection.is_readable());
    let response = held[refused.expect("a connection made room")].response();
    assert_eq!(response.status, 503, "{}", response.text());
}

/// The server still sees these connections as idle: their requests arrive just before the new connections.
#[test]
fn a_connection_whose_request_has_arrived_is_not_closed_for_new_connections() {
    let server = Setup::new()
        .wrapper(&["sh", "-c", "ulimit -n 200; exec \"$0\" \"$@\""])
        .start();
    let alone = open_files(&server);
    for _ in 0..5 {
        let mut old: Vec<_> = (0..20).map(|_| server.connect()).collect();
        old.iter_mut().for_each(assert_works);
        let mut younger: Vec<_> = (0..70).map(|_| server.connect()).collect();
        wait_for_room(&server);
        server.signal(Signal::STOP);
        for connection in &mut old {
            connection.send(&invocation());
        }
        younger.extend((0..60).map(|_| server.connect()));
        server.signal(Signal::CONT);
        for connection in &mut old {
            let response = connection.response();
            assert_eq!(
                (response.status, response.text().as_str()),
                (200, PREDICTIONS)
            );
        }
        drop((old, younger));
        // The next round has no room until the server has seen these connections close.
        wait_until("the connections are closed", || {
            open_files(&server) < alone + 20
        });
    }
}

/// Announces a body and sends nothing of it.
fn announce(server: &Server, length: usize) -> Connection {
    let mut connection = server.connect();
    let head = format!("POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    connection.send(head.as_bytes());
    connection
}

#[test]
fn a_body_larger_than_all_memory_for_bodies_is_refused_at_once() {
    let server = Setup::new()
        .var("SAGEMAKER_TFS_MAX_BODY_MEMORY_MB", 256)
        .start();
    let mut connection = announce(&server, 1_000_000_000);
    let response = connection.response();
    assert_eq!(response.status, 413, "{}", response.text());
    assert!(
        response.error().contains("268435456 bytes"),
        "{}",
        response.error()
    );
    assert!(connection.is_at_end());
    server.assert_serves();
}

#[test]
fn bodies_share_the_memory_for_bodies() {
    let server = Setup::new()
        .var("SAGEMAKER_TFS_MAX_BODY_MEMORY_MB", 1)
        .start();
    let body = [INSTANCES, &[b' '; 600_000]].concat();
    let half = body.len() / 2 + 1;
    let mut first = announce(&server, body.len());
    first.send(&body[..half]);
    // Only the responses to other requests show how much of the body has arrived.
    let refused = wait_for("the first body has its memory", || {
        let mut other = announce(&server, 600_000);
        other.half_close();
        let response = other.response();
        (response.status != 400).then_some(response)
    });
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(refused.error().contains("SAGEMAKER_TFS_MAX_BODY_MEMORY_MB"));
    server.assert_serves();
    first.send(&body[half..]);
    assert_eq!(first.response().status, 200);
    // The first request has released its memory.
    wait_until("memory is free again", || {
        server.invoke(&body).status == 200
    });
}

/// A chunked body announces no length, but must fit, too.
#[test]
fn an_endless_chunked_body_is_refused_when_memory_runs_out() {
    let server = Setup::new()
        .var("SAGEMAKER_TFS_MAX_BODY_MEMORY_MB", 2)
        .start();
    let mut connection = server.connect();
    connection.send(b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    let sent: io::Result<()> = (0..60).try_for_each(|_| connection.try_send(&chunk));
    drop(sent); // the server may close the connection earlier
    let response = connection.response();
    assert!([413, 503].contains(&response.status), "{}", response.text());
    server.assert_serves();
}

#[test]
fn the_server_refuses_to_start_with_an_invalid_memory_limit() {
    for wrong in ["0", "-1", "lots"] {
        let ended = Setup::new()
            .var("SAGEMAKER_TFS_MAX_BODY_MEMORY_MB", wrong)
            .run();
        assert_eq!(ended.code, Some(2));
        assert!(ended.reason().contains("SAGEMAKER_TFS_MAX_BODY_MEMORY_MB"));
    }
}

#[test]
fn memory_for_bodies_is_released_however_a_request_ends() {
    let server = Setup::new()
        .var("SAGEMAKER_TFS_MAX_BODY_MEMORY_MB", 8)
        .var("FAKE_TFS_RECORD_REQUESTS", 0)
        .start();
    let body = [INSTANCES, &[b' '; 1 << 20]].concat();
    // Together more than the limit, in every way a request can end.
    for _ in 0..20 {
        assert_eq!(server.invoke(&body).status, 200);
        assert_eq!(server.post("/absent", &[], &body).status, 404);
        let mut gone = announce(&server, body.len());
        gone.send(&body[..body.len() / 2]);
        drop(gone);
        let refused = server.post("/invocations", &[("Content-Type", "text/x")], &body);
        assert_eq!(refused.status, 415);
        server
            .connect()
            .send(&request("POST", "/invocations", &[], &body));
    }
    wait_until("all memory is free again", || {
        let mut large = announce(&server, 8 << 20);
        large.half_close();
        large.response().status == 400
    });
    assert!(processes::runs(server.pid()));
}
