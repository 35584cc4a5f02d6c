//! Calls that hang get 504, Python workers that hang are replaced, and everything that waits for them is served.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::handlers::{answered, failed, order};
use crate::support::{Server, Setup, processes, wait_until};

/// Code that never ends: in Python, in a system call, and in C code that does not release the interpreter.
const ENDLESS: [&str; 4] = [
    "while True: pass",
    "time.sleep(10_000)",
    "ctypes.PyDLL(None).pause()",
    "ctypes.PyDLL(None).sleep(10_000)",
];

/// Sends a request whose call hangs, and waits until it does.
fn hang(server: &Server, function: &str, code: &str) -> crate::support::Connection {
    let notes = server.notes().len();
    let connection = server.order(&json!({function: format!("note('hangs'); {code}")}));
    server.wait_for_notes(notes + 1);
    connection
}

#[test]
fn a_call_that_hangs_gets_504_and_waiting_calls_are_served() {
    let server = Setup::new().obedient_pair().call_limit(1).start();
    for code in ENDLESS {
        for function in ["input", "output"] {
            let pid = server.python_worker_pid(0);
            // `while` cannot follow a semicolon.
            let code = format!("exec({code:?})");
            let mut hanging = hang(&server, function, &code);
            let mut behind: Vec<_> = (0..10)
                .map(|n| json!({"n": n}))
                .map(|o| (server.order(&o), o))
                .collect();
            let named = [
                &format!("{function}_handler did not return within 1 s"),
                "SAGEMAKER_GUNICORN_TIMEOUT_SECONDS",
                "restarted",
            ];
            failed(&mut hanging, 504, &named);
            for (connection, what) in &mut behind {
                answered(connection, what);
            }
            server.wait_for_new_worker(0, pid);
            assert!(!processes::runs(pid), "the hanging process is gone");
        }
    }
    assert_eq!(server.starts().len(), 1, "the model server still runs");
    let given = server.log().matches("given to another").count();
    assert!(
        given <= 80,
        "each of the ten waiting calls moves once: {given}"
    );
}

#[test]
fn with_threads_a_hanging_call_gets_504_and_waiting_calls_are_served() {
    let server = Setup::new()
        .obedient_handler()
        .worker_class("gthread")
        .var("SAGEMAKER_GUNICORN_THREADS", 4)
        .call_limit(2)
        .start();
    let mut hanging = hang(&server, "handler", "ctypes.PyDLL(None).pause()");
    let mut behind: Vec<_> = (0..10)
        .map(|n| json!({"n": n}))
        .map(|o| (server.order(&o), o))
        .collect();
    failed(&mut hanging, 504, &["handler did not return within 2 s"]);
    for (connection, what) in &mut behind {
        answered(connection, what);
    }
}

#[test]
fn one_worker_serves_while_the_other_hangs() {
    let server = Setup::new()
        .obedient_pair()
        .workers(2)
        .call_limit(3)
        .start();
    server.assert_handlers_serve(2);
    let mut hanging = hang(&server, "input", "ctypes.PyDLL(None).pause()");
    // One at a time: each goes to the least busy worker.
    let mut served = 0;
    while !hanging.is_readable() && served < 50 {
        server.obey(&json!({"n": served}));
        assert_eq!(server.ping().status, 200);
        served += 1;
    }
    assert!(served > 0, "others did not wait");
    failed(&mut hanging, 504, &["3 s"]);
    server.assert_handlers_serve(2);
}

/// With equal limits, the deadline of a request passes before the limit of its call.
#[test]
fn a_hanging_call_is_ended_even_after_its_request_timed_out() {
    let server = Setup::new().obedient_pair().deadline(1).start();
    let pid = server.python_worker_pid(0);
    let response = hang(&server, "input", "exec('while True: pass')").response();
    assert_eq!(response.status, 504, "{}", response.text());
    server.wait_for_new_worker(0, pid);
    server.assert_handlers_serve(1);
}

/// The limit applies to each call: a request may take longer, at the model server and in several calls.
#[test]
fn a_slow_model_server_does_not_end_a_worker() {
    let server = Setup::new().obedient_pair().call_limit(1).start();
    let pid = server.python_worker_pid(0);
    server.obey(&json!({"fake": {"delay_ms": 3000}}));
    assert_eq!(server.python_worker_pid(0), pid);
}

#[test]
fn a_frozen_worker_is_replaced_and_its_waiting_calls_move_to_the_next() {
    let server = Setup::new().obedient_pair().call_limit(1).start();
    for function in ["", "input"] {
        let pid = server.python_worker_pid(0);
        let mut running = match function {
            "" => None,
            _ => Some(hang(&server, function, "wait_at('gate')")),
        };
        processes::signal(pid, Signal::STOP);
        let mut behind: Vec<_> = (0..5)
            .map(|n| json!({"n": n}))
            .map(|o| (server.order(&o), o))
            .collect();
        if let Some(running) = &mut running {
            failed(running, 504, &["1 s"]);
        }
        for (connection, what) in &mut behind {
            answered(connection, what);
        }
        server.wait_for_new_worker(0, pid);
        assert!(!processes::runs(pid), "the frozen process is gone");
    }
    server.assert_handlers_serve(1);
}

/// A thread of the script holds the interpreter while no call runs.
#[test]
fn a_worker_that_starts_no_calls_is_replaced() {
    let server = Setup::new().obedient_pair().call_limit(1).start();
    let pid = server.python_worker_pid(0);
    let blocker = "threading.Thread(target=lambda: (wait_at('gate'), note('x'), ctypes.PyDLL(None).pause()), daemon=True).start()";
    server.obey(&json!({"input": blocker}));
    server.open_gate("gate");
    server.wait_for_notes(1);
    server.obey(&json!({"n": 1}));
    assert_ne!(server.python_worker_pid(0), pid);
    server.assert_handlers_serve(1);
}

/// The deadline of a request passes while it waits for the running call, or during its own call. The late reply is
/// discarded, and the channel is used again.
#[test]
fn a_late_reply_does_not_reach_the_next_request() {
    const LIMIT: u32 = 5;
    for class in ["sync", "gevent"] {
        let server = Setup::new()
            .obedient_pair()
            .worker_class(class)
            .deadline(LIMIT)
            .call_limit(LIMIT)
            .start();
        let pid = server.python_worker_pid(0);
        let began = Instant::now();
        server.control(0, &json!({"freeze": true}));
        let late = "note('begun'); wait_at('gate'); note('over')";
        let large = "x".repeat(4 << 20);
        let mut late = server.order(&json!({"n": "late", "output": late, "large": large}));
        wait_until("the request is at the model server", || {
            server.stat(0, "in_flight") == 1
        });
        let mut waits = (class == "sync").then(|| server.order(&json!({"n": "waits"})));
        // The last call starts when half of the deadline is over, so the deadline passes before the limit of the call.
        let half = Duration::from_secs(u64::from(LIMIT)) / 2;
        wait_until("half of the deadline is over", || began.elapsed() > half);
        server.control(0, &json!({"freeze": false}));
        server.wait_for_notes(1);

        failed(
            &mut late,
            504,
            &["5 s", "output_handler did not return in time"],
        );
        if let Some(waits) = &mut waits {
            let named = ["5 s", "no Python worker is available", "worker 0: busy"];
            failed(waits, 504, &named);
        }
        // This request arrives before the late reply, which is larger than a socket's buffer.
        let early = json!({"n": "early"});
        let mut connection = server.order(&early);
        server.open_gate("gate");
        answered(&mut connection, &early);
        server.wait_for_notes(2);
        for n in 0..20 {
            server.obey(&json!({"n": n}));
        }
        let all: Vec<_> = (0..100).map(|n| json!({"n": n})).collect();
        let mut connections: Vec<_> = all.iter().map(|what| server.order(what)).collect();
        for (connection, what) in connections.iter_mut().zip(&all) {
            answered(connection, what);
        }
        assert_eq!(
            server.python_worker_pid(0),
            pid,
            "{class}: the same process"
        );
    }
}

/// The calls wait in the worker; large ones are only partly sent, because they are larger than a socket's buffer.
#[test]
fn calls_that_expire_while_they_wait_fail_no_other_request_and_lose_no_channel() {
    const LIMIT: u32 = 5;
    let server = Setup::new()
        .obedient_pair()
        .worker_class("gevent")
        .deadline(LIMIT)
        .call_limit(LIMIT)
        .start();
    let pid = server.python_worker_pid(0);
    // The deadline runs from the end of the head. Half of it is over when the calls are sent, so it passes before the
    // limit of the call that runs before them.
    let began = Instant::now();
    let mut expiring = [10, 300_000, 5 << 20].map(|bytes| {
        let what = json!({"input": "note('expired')", "large": "x".repeat(bytes)});
        let (mut order, mut connection) = (order(&what), server.connect());
        let end = order.split_off(order.len() - 1);
        connection.send(&order);
        (connection, end)
    });
    let half = Duration::from_secs(u64::from(LIMIT)) / 2;
    wait_until("half of the deadline is over", || began.elapsed() > half);
    let mut busy = hang(&server, "input", "wait_at('gate')");
    for (connection, end) in &mut expiring {
        connection.send(end);
    }
    for (connection, _) in &mut expiring {
        failed(connection, 504, &["5 s", "input_handler did not return"]);
    }
    server.open_gate("gate");
    assert_eq!(busy.response().status, 200);
    for n in 0..20 {
        server.obey(&json!({"n": n, "large": "x".repeat(n * 20_000)}));
    }
    assert_eq!(server.notes(), ["hangs"], "expired calls do not run");
    assert_eq!(server.python_worker_pid(0), pid, "the same process");
    assert!(!server.log().contains("given up"), "no channel is lost");
}

#[test]
fn a_hanging_worker_that_left_its_process_group_is_still_killed() {
    let server = Setup::new().obedient_pair().call_limit(1).start();
    let pid = server.python_worker_pid(0);
    let code = "os.setpgid(0, os.getpgid(os.getppid())); time.sleep(10_000)";
    let mut hanging = hang(&server, "input", code);
    failed(&mut hanging, 504, &["input_handler did not return"]);
    server.wait_for_new_worker(0, pid);
    assert!(!processes::runs(pid));
    server.assert_handlers_serve(1);
}
