//! Shutting down: running requests get their responses, TensorFlow Serving is stopped, nothing is left behind.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::server::fake;
use crate::support::setup::fake_model_server;
use crate::support::{
    AnswersUntilTheEnd, Connection, Ended, INSTANCES, PREDICTIONS, Setup, processes, request,
    wait_until,
};

/// Asserts that the server ended with code 0 and left nothing behind.
#[track_caller]
fn assert_clean(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.starts.is_empty());
    ended.assert_nothing_left();
}

#[test]
fn at_sigterm_running_requests_are_answered_and_new_connections_refused() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Setup::new().instances(2).start();
        assert_eq!(std::fs::read_dir(server.path("tmp")).unwrap().count(), 1);
        let slow = fake(&json!({"delay_ms": 1500}));
        let slow = request("POST", "/invocations", &[], slow.as_bytes());
        let mut connections: Vec<_> = (0..20).map(|_| server.connect()).collect();
        for connection in &mut connections {
            connection.send(&slow);
        }
        let mut idle = server.connect();
        idle.send(&request("GET", "/ping", &[], b""));
        assert_eq!(idle.response().status, 200);
        wait_until("all are in flight", || {
            server.stat(0, "in_flight") + server.stat(1, "in_flight") == 20
        });

        server.signal(signal);
        wait_until("new connections are refused", || {
            Connection::try_open(server.port()).is_err()
        });
        for connection in &mut connections {
            let response = connection.response();
            assert_eq!(
                (response.status, response.text().as_str()),
                (200, PREDICTIONS)
            );
            assert_eq!(response.header("connection"), Some("close"));
        }
        assert_clean(&server.wait_for_end());
        assert!(
            idle.is_at_end(),
            "an idle connection does not delay the end"
        );
    }
}

#[test]
fn at_sigterm_requests_that_wait_for_a_slot_are_answered() {
    let server = Setup::new().start();
    let slow = fake(&json!({"delay_ms": 500}));
    let slow = request("POST", "/invocations", &[], slow.as_bytes());
    let mut connections: Vec<_> = (0..150).map(|_| server.connect()).collect();
    for connection in &mut connections {
        connection.send(&slow);
    }
    wait_until("all slots are taken", || server.stat(0, "requests") >= 64);
    // The server has read all heads by now, because a later request has its response.
    server.assert_serves();
    server.signal(Signal::TERM);
    for connection in &mut connections {
        assert_eq!(connection.response().status, 200);
    }
    assert_clean(&server.wait_for_end());
}

#[test]
fn an_idle_server_ends_at_once() {
    let mut signals = vec![Signal::TERM, Signal::INT, Signal::QUIT];
    if hang_up_ends_programs() {
        signals.push(Signal::HUP);
    }
    for signal in signals {
        let server = Setup::new().start();
        server.signal(signal);
        assert_clean(&server.wait_for_end());
    }
}

/// Whether SIGHUP ends programs here: under `nohup` the signal is ignored, and the server leaves it ignored.
fn hang_up_ends_programs() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc can be read");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.expect("a mask").trim(), 16).expect("a mask");
    ignored & 1 == 0
}

#[test]
fn a_signal_during_the_start_ends_the_server() {
    let server = Setup::new()
        .var("FAKE_TFS_START_DELAY_MS", 600_000)
        .launch();
    server.wait_for_start(0);
    server.signal(Signal::TERM);
    assert_clean(&server.wait_for_end());
}

#[test]
fn a_signal_while_the_model_server_is_down_ends_the_server() {
    let server = Setup::new()
        .var("FAKE_TFS_START_EXIT", 255)
        .var("FAKE_TFS_START_EXIT_AFTER", 1)
        .start();
    processes::signal(server.model_server_pid(0), Signal::KILL);
    server.wait_until_unhealthy();
    server.signal(Signal::TERM);
    assert_clean(&server.wait_for_end());
}

#[test]
fn a_second_signal_ends_the_server_without_waiting_for_requests() {
    let server = Setup::new().start();
    let mut hanging = server.connect();
    hanging.send(&request(
        "POST",
        "/invocations",
        &[],
        fake(&json!({"hang": true})).as_bytes(),
    ));
    wait_until("the request hangs", || server.stat(0, "in_flight") == 1);
    server.signal(Signal::TERM);
    server.wait_for_log("SIGTERM: stopping");
    let before = std::time::Instant::now();
    server.signal(Signal::TERM);
    let ended = server.wait_for_end();
    // The first signal alone would give the request 25 s.
    assert!(before.elapsed().as_secs() < 15, "{:?}", before.elapsed());
    assert!(ended.stderr.contains("second signal"));
    assert!(ended.code.is_some(), "the server ended by itself");
    ended.assert_nothing_left();
    assert_stopping(&mut hanging);
}

/// Asserts that the response says that the server is stopping and closes the connection.
#[track_caller]
fn assert_stopping(connection: &mut Connection) {
    let response = connection.response();
    assert_eq!(response.status, 503, "{}", response.text());
    assert_eq!(response.error(), "The server is stopping.");
    assert_eq!(response.header("connection"), Some("close"));
}

/// The model server takes a while to end. Until then connections stay open, and requests on them get a response.
#[test]
fn requests_that_arrive_while_children_end_are_answered() {
    let server = Setup::new().var("FAKE_TFS_IGNORE_SIGTERM", 1).start();
    let mut kept: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for connection in &mut kept {
        connection.send(&request("GET", "/ping", &[], b""));
        assert_eq!(connection.response().status, 200);
    }
    let mut half = server.connect();
    let bytes = request("POST", "/invocations", &[], INSTANCES);
    server.signal(Signal::TERM);
    server.wait_for_log("all requests answered");
    let (first, last) = kept.split_at_mut(10);
    for connection in first {
        connection.send(&bytes);
        assert_stopping(connection);
        assert!(connection.is_at_end());
    }
    half.send(&bytes[..bytes.len() - 3]);
    half.send(&bytes[bytes.len() - 3..]);
    assert_stopping(&mut half);
    for connection in last {
        connection.send(&request("GET", "/ping", &[], b""));
        let response = connection.response();
        assert_eq!(response.header("connection"), Some("close"));
    }
    assert_clean(&server.wait_for_end());
}

/// Pipelined requests have already arrived while the response to the first is read slowly.
#[test]
fn requests_pipelined_after_a_slowly_read_response_are_answered() {
    const LARGE: usize = 8 << 20;
    let server = Setup::new().var("FAKE_TFS_FIXED_BODY_BYTES", LARGE).start();
    let mut connection = server.connect();
    let invocation = request("POST", "/invocations", &[], INSTANCES);
    let ping = request("GET", "/ping", &[], b"");
    connection.send(&[&invocation[..], &ping, &ping, &invocation].concat());
    wait_until("the response has begun", || connection.is_readable());
    server.signal(Signal::TERM);
    server.wait_for_log("SIGTERM: stopping");
    for expected in [LARGE - 100, 0, 0, LARGE - 100] {
        let response = connection.response();
        assert_eq!(response.status, 200, "{}", response.text());
        assert!(response.body.len() >= expected);
    }
    assert!(connection.is_at_end());
    assert_clean(&server.wait_for_end());
}

/// A client may send all of its body before it reads the response. If the server closed the connection earlier, the
/// client would lose the response.
#[test]
fn clients_that_still_send_a_refused_body_get_their_response() {
    const LENGTH: usize = 8 << 20;
    let server = Setup::new()
        .var("SAGEMAKER_TFS_MAX_BODY_MEMORY_MB", 1)
        .start();
    let mut sending = server.connect();
    let head = format!("POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {LENGTH}\r\n\r\n");
    sending.send(head.as_bytes());
    wait_until("the request is refused", || sending.is_readable());
    server.signal(Signal::TERM);
    server.wait_for_log("SIGTERM: stopping");
    // Without reading the response.
    for _ in 0..LENGTH / 0x10000 {
        sending.send(&[b' '; 0x10000]);
    }
    let response = sending.response();
    assert_eq!(response.status, 413, "{}", response.text());
    drop(sending);
    assert_clean(&server.wait_for_end());
}

#[test]
fn a_model_server_that_ignores_sigterm_is_killed() {
    let server = Setup::new().var("FAKE_TFS_IGNORE_SIGTERM", 1).start();
    let pid = server.model_server_pid(0);
    processes::signal(pid, Signal::TERM);
    server.assert_serves();
    assert!(processes::runs(pid), "the model server ignores SIGTERM");
    server.signal(Signal::TERM);
    assert_clean(&server.wait_for_end());
}

#[test]
fn a_frozen_model_server_is_killed() {
    let server = Setup::new().start();
    processes::signal(server.model_server_pid(0), Signal::STOP);
    server.signal(Signal::TERM);
    assert_clean(&server.wait_for_end());
}

#[test]
fn a_kept_connection_is_served_until_the_end_and_then_closed() {
    let server = Setup::new().start();
    let mut kept = server.connect();
    kept.send(&request("GET", "/ping", &[], b""));
    assert_eq!(kept.response().header("connection"), None);
    let mut slow = server.connect();
    let body = fake(&json!({"delay_ms": 1500}));
    slow.send(&request("POST", "/invocations", &[], body.as_bytes()));
    wait_until("the request is in flight", || {
        server.stat(0, "in_flight") == 1
    });
    server.signal(Signal::TERM);
    wait_until("new connections are refused", || {
        Connection::try_open(server.port()).is_err()
    });
    kept.send(&request("GET", "/ping", &[], b""));
    let response = kept.response();
    assert_eq!(
        (response.status, response.header("connection")),
        (200, Some("close"))
    );
    assert_eq!(slow.response().status, 200);
    assert_clean(&server.wait_for_end());
}

/// Images often start TensorFlow Serving through a script, and not every script uses `exec`.
#[test]
fn a_model_server_started_by_a_script_is_restarted_and_stopped() {
    let setup = Setup::new();
    let script = format!("'{}' \"$@\"\nexit $?", fake_model_server().display());
    let setup = setup.script("bin/model_server", &script);
    let program = setup.path("bin/model_server");
    let server = setup.flag("model-server", program.display()).start();

    let children = processes::children(server.pid());
    assert_eq!(children.len(), 1, "the script: {children:?}");
    processes::signal(children[0].pid, Signal::KILL);
    server.wait_for_start(1);
    server.wait_until_healthy();
    server.assert_serves();

    server.signal(Signal::TERM);
    assert_clean(&server.wait_for_end());
}

/// Clients send one request after the other. Every accepted request gets its response, whichever process ends.
#[test]
fn no_request_is_lost_when_sigterm_comes_while_an_instance_is_killed() {
    let server = Setup::new()
        .instances(2)
        .var("FAKE_TFS_RECORD_REQUESTS", 0)
        .start();
    let answers = AnswersUntilTheEnd::new();
    let body = fake(&json!({"delay_ms": 100}));
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| answers.client(&server, body.as_bytes(), PREDICTIONS));
        }
        answers.wait_for(200);
        processes::signal(server.model_server_pid(0), Signal::KILL);
        server.signal(Signal::TERM);
    });
    answers.assert_none_lost();
    let began = Instant::now();
    assert_clean(&server.wait_for_end());
    assert!(began.elapsed() < Duration::from_secs(25));
}

/// The only instance is down when SIGTERM arrives, and is restarted in time for the waiting requests.
#[test]
fn at_sigterm_requests_that_wait_for_a_restart_are_answered() {
    let server = Setup::new().var("FAKE_TFS_START_DELAY_MS", 1500).start();
    processes::signal(server.model_server_pid(0), Signal::KILL);
    server.wait_until_unhealthy();
    let bytes = request("POST", "/invocations", &[], INSTANCES);
    let mut connections: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for connection in &mut connections {
        connection.send(&bytes);
    }
    // The server has these requests when a later request has its response.
    assert_eq!(server.ping().status, 502);
    server.signal(Signal::TERM);
    for connection in &mut connections {
        let response = connection.response();
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, PREDICTIONS)
        );
    }
    assert_clean(&server.wait_for_end());
}

/// After 25 s the server no longer waits for requests, because the platform would soon kill the whole container.
#[test]
fn a_request_that_hangs_delays_the_end_by_at_most_25_s() {
    let server = Setup::new().deadline(120).instances(2).start();
    let mut hanging = server.connect();
    let body = fake(&json!({"hang": true}));
    hanging.send(&request("POST", "/invocations", &[], body.as_bytes()));
    wait_until("the request hangs", || {
        server.stat(0, "in_flight") + server.stat(1, "in_flight") == 1
    });
    let began = Instant::now();
    server.signal(Signal::TERM);
    let ended = server.wait_for_end();
    let took = began.elapsed().as_secs_f64();
    assert!((24.5..30.0).contains(&took), "{took} s");
    assert!(ended.stderr.contains("did not finish within 25 s: 1"));
    // The client still gets a response that says so.
    assert_stopping(&mut hanging);
    assert_clean(&ended);
}
