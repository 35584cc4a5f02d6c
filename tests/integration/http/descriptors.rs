//! The server runs out of file descriptors: it does not blame the model server for that.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

#[cfg(feature = "python")]
use rustix::process::Signal;
#[cfg(feature = "python")]
use serde_json::Value;
use serde_json::json;

#[cfg(feature = "python")]
use crate::support::handlers::order;
use crate::support::http::Connection;
use crate::support::server::fake;
use crate::support::{INSTANCES, PREDICTIONS, Server, Setup, processes, request, wait_until};

/// No file can be opened: the standard streams have the numbers below this limit.
const NONE: Option<u64> = Some(3);
const NO_FILES: &str = "Too many open files";

fn invocation(body: &[u8]) -> Vec<u8> {
    request("POST", "/invocations", &[], body)
}

/// A body that makes the model server respond and announce that it closes the connection. If the close were not
/// announced, the server might use the connection again first, and the log would report that request as lost.
fn closing() -> String {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
    let length = PREDICTIONS.len();
    let response = format!("{head}\r\nContent-Length: {length}\r\n\r\n{PREDICTIONS}");
    fake(&json!({"raw": response, "close": "after_answer"}))
}

/// Makes the model server close its connection to the server.
fn end_connections(connection: &mut Connection) {
    let closing = closing();
    connection.send(&invocation(closing.as_bytes()));
    let response = connection.response();
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, PREDICTIONS)
    );
}

#[test]
fn a_healthy_model_server_is_not_blamed_for_missing_descriptors() {
    let server = Setup::new().one_worker().start();
    let (mut client, mut health) = (server.connect(), server.connect());
    end_connections(&mut client);
    health.send(&request("GET", "/ping", &[], b""));
    assert_eq!(health.response().status, 200);
    processes::limit_files(server.pid(), NONE);
    // Until no kept connection is left: the status request may still have one.
    let waits = "cannot open a connection to TensorFlow Serving";
    let closing = closing();
    loop {
        client.send(&invocation(closing.as_bytes()));
        wait_until("a response, or no descriptor for the request", || {
            client.is_readable() || server.log().contains(waits)
        });
        if !client.is_readable() {
            break;
        }
        let response = client.response();
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, PREDICTIONS)
        );
    }
    server.wait_for_log("instance 0: cannot ask for its status");
    assert!(!client.is_readable(), "the request waits");
    health.send(&request("GET", "/ping", &[], b""));
    assert_eq!(health.response().status, 200, "the last known status holds");
    processes::limit_files(server.pid(), None);
    let response = client.response();
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, PREDICTIONS)
    );
    server.assert_serves();
    assert_eq!(server.starts().len(), 1);
    for word in ["unresponsive", "being killed", "times"] {
        assert!(!server.log().contains(word), "{word}");
    }
}

#[test]
fn a_request_that_gets_no_descriptor_until_its_deadline_gets_503_with_the_cause() {
    let server = Setup::new().deadline(1).one_worker().start();
    let mut client = server.connect();
    end_connections(&mut client);
    processes::limit_files(server.pid(), NONE);
    wait_until("no connection is left", || {
        let closing = fake(&json!({"close": "after_answer"}));
        client.send(&invocation(closing.as_bytes()));
        let response = client.response();
        if response.status == 503 {
            assert!(response.error().contains(NO_FILES), "{}", response.error());
            assert!(response.error().contains("1 s"), "{}", response.error());
            assert_eq!(response.header("retry-after"), Some("1"));
        } else {
            assert_eq!(response.status, 200, "{}", response.text());
        }
        response.status == 503
    });
    processes::limit_files(server.pid(), None);
    server.assert_serves();
    assert_eq!(server.starts().len(), 1);
}

/// Some clients take all descriptors while others send requests.
#[test]
fn no_model_server_is_killed_when_clients_take_all_descriptors() {
    const CLIENTS: usize = 16;
    const REQUESTS: usize = 5;
    let server = Setup::new()
        .deadline(2)
        .var("FAKE_TFS_RECORD_REQUESTS", 0)
        .start();
    let mut working: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
    for client in &mut working {
        client.send(&invocation(INSTANCES));
        assert_eq!(client.response().status, 200);
    }
    let files = fs::read_dir(format!("/proc/{}/fd", server.pid()));
    let files = files.expect("the server is our child").count() as u64;
    processes::limit_files(server.pid(), Some(files + 20));
    // Idle connections: a new one takes the place of an older one.
    let idle: Vec<_> = (0..100).map(|_| server.connect()).collect();
    let refused = AtomicUsize::new(0);
    thread::scope(|scope| {
        for mut client in working {
            let refused = &refused;
            scope.spawn(move || {
                // Each request needs a new connection to the model server, which closes it afterwards.
                let closing = fake(&json!({"close": "after_answer", "delay_ms": 20}));
                for _ in 0..REQUESTS {
                    client.send(&invocation(closing.as_bytes()));
                    let response = client.response();
                    let text = response.text();
                    assert!([200, 503, 504].contains(&response.status), "{text}");
                    refused.fetch_add(usize::from(response.status != 200), Ordering::Relaxed);
                }
            });
        }
    });
    assert!(
        refused.load(Ordering::Relaxed) < 16 * 20,
        "some were served"
    );
    drop(idle);
    processes::limit_files(server.pid(), None);
    server.wait_until_healthy();
    server.assert_serves();
    assert_eq!(server.starts().len(), 1);
    assert!(!server.log().contains("being killed"));
}

/// However many clients connect, a restarted Python worker gets new channels.
#[cfg(feature = "python")]
#[test]
fn clients_leave_enough_descriptors_for_the_channels_of_python_workers() {
    let server = Setup::new()
        .wrapper(&["sh", "-c", "ulimit -n 400; exec \"$0\" \"$@\""])
        .workers(2)
        .obedient_pair()
        .start();
    server.wait_for_log("Python worker 0: loaded");
    server.wait_for_log("Python worker 1: loaded");
    let mut idle: Vec<_> = (0..300).map(|_| server.connect()).collect();
    wait_for_response(&server, &json!({"n": 1}));
    let first = server.python_worker_pid(0);
    processes::signal(first, Signal::KILL);
    wait_until("the Python worker is loaded again", || {
        // New connections take the free descriptors.
        idle.push(server.connect());
        let log = server.log();
        log.contains("Python worker 0: loaded") && log.contains(" again")
    });
    assert!(!server.log().contains(NO_FILES), "{}", server.log());
    wait_for_response(&server, &json!({"n": 2}));
}

/// A new connection may be refused at first: idle connections are kept for a second before they make room.
#[cfg(feature = "python")]
fn wait_for_response(server: &Server, what: &Value) {
    wait_until("a new connection gets a response", || {
        let response = Connection::try_open(server.port()).and_then(|mut client| {
            client.try_send(&order(what))?;
            client.try_response()
        });
        matches!(response, Ok(Some(response)) if response.status == 200)
    });
}
