//! Shutdown with handlers: calls in flight finish, scripts can clean up, and no process is left.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::handlers::answered;
use crate::support::{AnswersUntilTheEnd, Connection, Setup, processes, wait_until};

#[test]
fn calls_in_flight_finish_and_scripts_clean_up() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Setup::new().obedient_pair().workers(3).start();
        server.assert_handlers_serve(3);
        // One worker runs each of the two calls, and the third has a request at the model server.
        server.control(0, &json!({"freeze": true}));
        let leave = "atexit.register(note, 'cleaned up')";
        let mut sent: Vec<_> = [
            json!({"n": 1, "input": format!("{leave}; note('input'); wait_at('gate')")}),
            json!({"n": 2, "output": format!("{leave}; note('output'); wait_at('gate')")}),
            json!({"n": 3, "input": leave}),
        ]
        .map(|what| (what.clone(), server.order(&what)))
        .into();
        wait_until("two requests are at the model server", || {
            server.stat(0, "in_flight") == 2
        });
        server.wait_for_notes(1);
        server.control(0, &json!({"freeze": false}));
        server.wait_for_notes(2);
        // The third worker is idle now and gets the next request.
        let (what, mut connection) = sent.pop().expect("three were sent");
        answered(&mut connection, &what);
        server.control(0, &json!({"freeze": true}));
        let held = json!({"n": 4});
        sent.push((held.clone(), server.order(&held)));
        wait_until("one request is at the model server", || {
            server.stat(0, "in_flight") >= 1
        });

        server.signal(signal);
        wait_until("new connections are refused", || {
            Connection::try_open(server.port()).is_err()
        });
        assert_eq!(server.python_workers().len(), 3);
        server.control(0, &json!({"freeze": false}));
        server.open_gate("gate");
        for (what, connection) in &mut sent {
            answered(connection, what);
        }
        let notes = server.path("notes");
        wait_until("the scripts have cleaned up", || {
            let text = std::fs::read_to_string(&notes).unwrap_or_default();
            text.matches("cleaned up").count() == 3
        });
        let ended = server.wait_for_end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.assert_nothing_left();
    }
}

/// The worker has one thread, and many requests wait for it.
#[test]
fn calls_that_wait_for_a_worker_finish_too() {
    let server = Setup::new().obedient_pair().worker_class("sync").start();
    let held = json!({"n": "held", "input": "note('held'); wait_at('gate')"});
    let mut sent = vec![(held.clone(), server.order(&held))];
    server.wait_for_notes(1);
    for n in 0..50 {
        let what = json!({"n": n});
        let mut connection = server.connect();
        let head = format!(
            "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
            what.to_string().len()
        );
        connection.send(head.as_bytes());
        // A request has a slot once the server asks for its body.
        assert_eq!(connection.head().status, 100);
        connection.send(what.to_string().as_bytes());
        sent.push((what, connection));
    }
    server.signal(Signal::TERM);
    server.wait_for_log("SIGTERM: stopping");
    server.open_gate("gate");
    for (what, connection) in &mut sent {
        answered(connection, what);
    }
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.assert_nothing_left();
}

/// Threads and processes of scripts may run forever; the shutdown does not wait for them.
#[test]
fn threads_and_processes_of_scripts_do_not_delay_the_end() {
    for code in [
        "threading.Thread(target=time.sleep, args=(1000,)).start()",
        "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()",
        "multiprocessing.get_context('fork').Process(target=time.sleep, args=(1000,)).start()",
        "subprocess.Popen(['sleep', '1000'])",
        "atexit.register(time.sleep, 1000)",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "os.kill(os.getpid(), signal.SIGSTOP)",
    ] {
        let server = Setup::new().obedient_pair().start();
        if code.contains("SIGSTOP") {
            let pid = server.python_worker_pid(0);
            processes::signal(pid, Signal::STOP);
        } else {
            server.obey(&json!({"input": code}));
        }
        server.signal(Signal::TERM);
        let ended = server.wait_for_end();
        assert_eq!(ended.code, Some(0), "{code}: {}", ended.stderr);
        ended.assert_nothing_left();
    }
}

#[test]
fn a_worker_that_keeps_dying_does_not_delay_the_end() {
    let server = Setup::new().obedient_pair().start();
    server.open_gate("broken");
    server.kill_worker(0);
    server.wait_for_log("exited with code 4");
    server.signal(Signal::TERM);
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.assert_nothing_left();
}

#[test]
fn workers_end_when_their_server_is_killed() {
    for code in [
        "wait_at('gate')",
        "exec('while True: pass')",
        "ctypes.PyDLL(None).pause()",
    ] {
        let server = Setup::new().obedient_pair().workers(2).start();
        server.assert_handlers_serve(2);
        let workers: Vec<_> = server.python_workers().iter().map(|p| p.pid).collect();
        let busy = json!({"input": format!("note('busy'); {code}")});
        let _busy = server.order(&busy);
        server.wait_for_notes(1);
        server.signal(Signal::KILL);
        for pid in workers {
            wait_until("the worker is gone", || !processes::runs(pid));
        }
    }
}

/// Several workers, several instances and busy clients, and the model servers were just killed.
#[test]
fn no_request_is_lost_when_model_servers_die_during_shutdown() {
    let server = Setup::new()
        .obedient_pair()
        .workers(3)
        .instances(2)
        .var("FAKE_TFS_RECORD_REQUESTS", 0)
        .start();
    server.assert_handlers_serve(3);
    let answers = AnswersUntilTheEnd::new();
    let body = json!({"n": 1, "input": "time.sleep(0.002)", "fake": {"delay_ms": 50}}).to_string();
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| answers.client(&server, body.as_bytes(), &body));
        }
        answers.wait_for(200);
        for index in 0..2 {
            processes::signal(server.model_server_pid(index), Signal::KILL);
        }
        server.signal(Signal::TERM);
    });
    answers.assert_none_lost();
    let began = Instant::now();
    let ended = server.wait_for_end();
    assert!(began.elapsed() < Duration::from_secs(25));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.assert_nothing_left();
}
