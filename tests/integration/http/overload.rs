//! More requests than slots: some wait in the backlog, the rest are refused, and `/ping` still responds.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::server::fake;
use crate::support::setup::{in_flight, slots};
use crate::support::{
    Connection, INSTANCES, Response, Server, Setup, processes, request, wait_until,
};

/// Requests that may wait for a slot.
const BACKLOG: usize = 1024;

/// A server whose model server records no requests.
fn setup() -> Setup {
    processes::raise_own_file_limit(); // the fake model server inherits the limit
    Setup::new().var("FAKE_TFS_RECORD_REQUESTS", 0)
}

/// Opens connections and sends a request on each.
fn send_many(server: &Server, count: usize, bytes: &[u8]) -> Vec<Connection> {
    (0..count)
        .map(|_| {
            let mut connection = server.connect();
            connection.send(bytes);
            connection
        })
        .collect()
}

fn hanging() -> Vec<u8> {
    request(
        "POST",
        "/invocations",
        &[],
        fake(&json!({"hang": true})).as_bytes(),
    )
}

/// Waits for all responses, with one deadline for all.
fn responses<'c>(connections: impl IntoIterator<Item = &'c mut Connection>) -> Vec<Response> {
    let mut connections: Vec<_> = connections.into_iter().collect();
    wait_until("all are answered", || {
        connections.iter_mut().all(|c| c.is_readable())
    });
    connections.into_iter().map(|c| c.response()).collect()
}

/// The quickest of several pings: the machine may be busy, but the server must not be.
fn quickest_ping(server: &Server) -> Duration {
    let pings = (0..10).map(|_| {
        assert_eq!(server.get("/v2/health/ready").status, 200);
        assert_eq!(server.get("/v2/health/live").status, 200);
        let began = Instant::now();
        assert_eq!(server.ping().status, 200);
        began.elapsed()
    });
    pings.min().expect("some pings")
}

#[test]
fn a_ping_is_answered_at_once_while_200_requests_are_slow() {
    let server = setup().start();
    let _slow = send_many(&server, 200, &hanging());
    wait_until(
        "the model server has as many requests as it may get",
        || server.stat(0, "in_flight") == in_flight().min(200) as u64,
    );
    let quickest = quickest_ping(&server);
    assert!(quickest < Duration::from_millis(100), "{quickest:?}");
    assert_eq!(server.get("/execution-parameters").status, 200);
    assert_eq!(server.get("/absent").status, 404);
}

#[test]
fn requests_beyond_slots_and_backlog_get_503_and_all_others_are_served() {
    const EXTRA: usize = 30;
    let server = setup().start();
    // Set for the model server's process, so the command ends when the process does.
    server.control(0, &json!({"command": {"hang": true}}));
    let mut small = send_many(
        &server,
        slots() + BACKLOG,
        &request("POST", "/invocations", &[], INSTANCES),
    );
    // Requests with larger bodies are refused at another place.
    let body = [INSTANCES, &[b' '; 5_000]].concat();
    let mut large = send_many(&server, EXTRA, &request("POST", "/invocations", &[], &body));
    let mut all: Vec<_> = small.iter_mut().chain(&mut large).collect();

    let mut refused = 0;
    wait_until("the extra requests are refused", || {
        let before = all.len();
        all.retain_mut(|connection| {
            if !connection.is_readable() {
                return true;
            }
            let response = connection.response();
            assert_eq!(response.status, 503, "{}", response.text());
            let retry_after = response.header("retry-after").map(str::parse::<u32>);
            assert!(matches!(retry_after, Some(Ok(1..))), "{response:?}");
            assert!(
                response.error().contains("Too many requests"),
                "{}",
                response.error()
            );
            connection.send(&request("GET", "/ping", &[], b""));
            assert_eq!(
                connection.response().status,
                200,
                "the connection stays open"
            );
            false
        });
        refused += before - all.len();
        refused >= EXTRA
    });
    assert_eq!(refused, EXTRA, "exactly the extra requests are refused");
    let quickest = quickest_ping(&server);
    assert!(quickest < Duration::from_millis(100), "{quickest:?}");

    // The restarted model server no longer hangs: all waiting requests are served.
    processes::signal(server.model_server_pid(0), Signal::KILL);
    for response in responses(all) {
        assert_eq!(response.status, 200, "{}", response.text());
    }
    server.wait_until_healthy();
}

/// A refused request may have a body that never arrives.
#[test]
fn ping_is_answered_while_refused_bodies_never_come() {
    let server = setup().start();
    let _slow = send_many(&server, slots() + BACKLOG, &hanging());
    wait_until("all slots are taken", || {
        server.stat(0, "in_flight") == in_flight() as u64
    });
    let head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n";
    let _stalled = send_many(&server, 400, head);
    for _ in 0..20 {
        assert_eq!(server.ping().status, 200);
    }
}

/// Clients that announce a body and send nothing must not hold all slots.
#[test]
fn ping_is_answered_while_more_bodies_stall_than_slots_exist() {
    let server = setup().start();
    let head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n";
    let _stalled = send_many(&server, 3 * slots(), head);
    for _ in 0..20 {
        assert_eq!(server.ping().status, 200);
    }
}

#[test]
fn max_concurrent_transforms_raises_the_number_of_slots() {
    let more = slots() + 36;
    for (asked, expected) in [(more, more), (8, in_flight())] {
        let server = setup()
            .var("SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", asked)
            .start();
        let _slow = send_many(&server, slots() + 66, &hanging());
        wait_until("all slots are taken", || {
            server.stat(0, "in_flight") == expected as u64
        });
        let quickest = quickest_ping(&server);
        assert!(quickest < Duration::from_millis(100), "{quickest:?}");
        assert_eq!(server.stat(0, "max_in_flight"), expected as u64);
    }
}

#[test]
fn the_deadline_holds_for_requests_in_the_backlog() {
    let server = setup().deadline(2).start();
    let began = Instant::now();
    let mut all = send_many(&server, 2 * slots(), &hanging());
    for response in responses(&mut all) {
        assert_eq!(response.status, 504, "{}", response.text());
        assert!(response.error().contains("2 s"), "{}", response.error());
    }
    assert!(began.elapsed() >= Duration::from_secs(2));
    server.assert_serves();
}
