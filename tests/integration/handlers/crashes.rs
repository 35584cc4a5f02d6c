//! When a Python worker dies, only the calls that ran in it fail, and the worker is restarted.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::handlers::{answered, failed, order};
use crate::support::load::under_load;
use crate::support::{Connection, Server, Setup, processes, wait_until};

/// Code that ends its process, and how the error describes that.
const DEADLY: [(&str, &str); 4] = [
    ("ctypes.string_at(0)", "signal 11"),
    ("os._exit(3)", "exited with code 3"),
    ("os._exit(0)", "exited with code 0"),
    ("os.kill(os.getpid(), signal.SIGKILL)", "signal 9"),
];

#[test]
fn a_call_that_kills_its_worker_gets_500_naming_the_function_and_the_cause() {
    let server = Setup::new().obedient_pair().start();
    for (code, how) in DEADLY {
        for function in ["input", "output"] {
            let pid = server.python_worker_pid(0);
            let named = ["restarted", &format!("{function}_handler"), how];
            failed(&mut server.order(&json!({function: code})), 500, &named);
            server.wait_for_new_worker(0, pid);
            server.assert_handlers_serve(1);
            assert!(processes::look(pid).is_none(), "no zombie is left");
        }
    }
    assert_eq!(server.starts().len(), 1, "the model server still runs");
}

#[test]
fn a_single_handler_that_kills_its_worker_fails_every_call_running_there() {
    // Calls on other threads of the worker are lost as well, with the same error.
    let server = Setup::new()
        .obedient_handler()
        .worker_class("gthread")
        .var("SAGEMAKER_GUNICORN_THREADS", 2)
        .start();
    let mut other = server.order(&json!({"handler": "note('runs'); wait_at('gate')"}));
    server.wait_for_notes(1);
    let poison = json!({"handler": "ctypes.string_at(0)"});
    let named = ["restarted", "handler", "signal 11"];
    failed(&mut server.order(&poison), 500, &named);
    failed(&mut other, 500, &named);
    server.assert_handlers_serve(1);
}

/// Both workers run calls all the time. Calls are short, so the call that crashes the worker runs alone in it.
#[test]
fn a_crash_under_load_fails_only_the_request_that_caused_it() {
    let server = Setup::new()
        .obedient_pair()
        .workers(2)
        .var("FAKE_TFS_RECORD_REQUESTS", 0)
        .start();
    server.assert_handlers_serve(2);
    let exchange = |connection: &mut Connection, client: usize, n: usize| {
        let what = json!({"client": client, "n": n});
        connection.send(&order(&what));
        answered(connection, &what);
    };
    under_load(&server, 16, exchange, |progress| {
        for function in ["input", "output"] {
            for _ in 0..2 {
                progress.wait_for(100);
                let loads = || server.log().matches(": loaded").count();
                let before = loads();
                let poison = json!({function: "ctypes.string_at(0)"});
                failed(&mut server.order(&poison), 500, &["restarted", "signal 11"]);
                assert_eq!(server.ping().status, 200, "one worker is enough");
                wait_until("the worker is back", || loads() == before + 1);
            }
        }
        progress.wait_for(100);
    });
    server.assert_handlers_serve(2);
    assert_eq!(server.python_workers().len(), 2);
}

/// Sends requests and holds them at the model server, between their two calls.
fn hold(server: &Server, requests: u64) -> Vec<(Value, Connection)> {
    server.control(0, &json!({"freeze": true}));
    let all = (0..requests).map(|n| json!({"n": n, "input": "note('input')"}));
    let sent = all
        .map(|what| (what.clone(), server.order(&what)))
        .collect();
    wait_until("all requests are at the model server", || {
        server.stat(0, "in_flight") == requests
    });
    sent
}

#[test]
fn a_worker_killed_between_the_two_calls_loses_no_request() {
    for class in ["gevent", "gthread"] {
        let server = Setup::new()
            .obedient_pair()
            .worker_class(class)
            .var("SAGEMAKER_GUNICORN_THREADS", 4)
            .start();
        let mut sent = hold(&server, 4);
        let old = server.kill_worker(0);
        server.control(0, &json!({"freeze": false}));
        for (what, connection) in &mut sent {
            answered(connection, what);
        }
        server.wait_for_new_worker(0, old);
        assert_eq!(server.notes().len(), 8, "each request started again");
    }
}

/// `input_handler` leaves a timer behind that kills its process later, after each attempt.
#[test]
fn a_request_that_kills_workers_between_its_calls_is_given_up() {
    let server = Setup::new().obedient_pair().start();
    let later = "threading.Timer(0.05, os._exit, [9]).start()";
    let poison = json!({"input": later, "fake": {"delay_ms": 1500}});
    let named = ["restarted", "exited with code 9"];
    failed(&mut server.order(&poison), 500, &named);
    let deaths = server.log().matches("Python worker 0: down").count();
    assert!((1..=10).contains(&deaths), "{deaths} workers died");
    server.assert_handlers_serve(1);
}

#[test]
fn an_idle_worker_that_is_killed_is_replaced_without_failing_a_request() {
    let server = Setup::new().obedient_pair().start();
    for n in 0..3 {
        let old = server.python_worker_pid(0);
        processes::signal(old, Signal::KILL);
        server.obey(&json!({"n": n}));
        server.wait_for_new_worker(0, old);
    }
    assert!(server.log().contains("was terminated by signal 9"));
}

#[test]
fn a_model_server_killed_between_the_two_calls_loses_no_request() {
    let server = Setup::new().obedient_pair().start();
    let mut sent = hold(&server, 8);
    processes::signal(server.model_server_pid(0), Signal::KILL);
    for (what, connection) in &mut sent {
        answered(connection, what);
    }
    assert_eq!(server.starts().len(), 2);
    assert_eq!(server.notes().len(), 8, "handlers were not called again");
    assert_eq!(server.python_workers().len(), 1);
}

#[test]
fn a_worker_that_keeps_dying_causes_503_at_once_until_it_recovers() {
    let server = Setup::new().obedient_pair().start();
    let tfs = server.model_server_pid(0);
    server.open_gate("broken");
    server.kill_worker(0);
    let reason = server.wait_until_unhealthy();
    assert!(reason.contains("worker 0"), "{reason}");
    server.wait_for_log("exited with code 4");
    // The request waits while a restart could help; once restarts keep failing, it gets the error.
    let mut connection = server.order(&json!({"n": 1}));
    let response = connection.response();
    assert_eq!(response.status, 503, "{}", response.text());
    let retry_after = response.header("retry-after").map(str::parse::<u32>);
    assert!(matches!(retry_after, Some(Ok(1..))), "{response:?}");
    for text in ["worker 0", "exited with code 4"] {
        assert!(response.error().contains(text), "{}", response.error());
    }
    assert_eq!(server.ping().status, 502);
    assert!(server.ping().error().contains("exited with code 4"));
    assert!(response.body.len() <= 2048, "SageMaker shows no more");
    // Everything that needs no Python worker still works.
    let pass_through = server.post("/tfs/v1/models/half_plus_three:predict", &[], b"{}");
    assert_eq!(pass_through.status, 200, "{}", pass_through.text());
    assert_eq!(server.model_server_pid(0), tfs);
    assert!(server.try_end().is_none());
    let starts = server.log().matches("Python worker 0: started").count();
    assert!(starts < 40, "{starts} starts without a pause between them");

    server.close_gate("broken");
    server.assert_handlers_serve(1);
}

#[test]
fn one_worker_serves_while_the_other_keeps_dying() {
    let server = Setup::new().obedient_pair().workers(2).start();
    server.assert_handlers_serve(2);
    server.open_gate("broken");
    server.kill_worker(1);
    wait_until("the worker has failed several times", || {
        server.log().matches("Python worker 1: down").count() >= 3
    });
    for n in 0..20 {
        server.obey(&json!({"n": n}));
        assert_eq!(server.ping().status, 200);
    }
    server.close_gate("broken");
    server.assert_handlers_serve(2);
}

/// Forks a process that writes the reply to another call on all channels of its parent, before the next request.
const WRITES_ON_CHANNELS: &str = r#"
import stat, struct
if os.fork() == 0:
    wait_at(request["gate"])
    head = b'{"Raised":{"number":999999}}'
    for fd in range(3, 1000):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.write(fd, struct.pack("<IQ", len(head), 0) + head)
        except OSError:
            pass
    note("written")
    os._exit(0)
"#;

/// A worker with one channel restarts each time; a worker with many restarts once it has lost a quarter of them.
#[test]
fn stray_bytes_on_a_channel_fail_no_request_that_had_not_started() {
    for class in ["sync", "gevent"] {
        let server = Setup::new().obedient_pair().worker_class(class).start();
        for round in 1..=4 {
            let gate = format!("gate {round}");
            server.obey(&json!({"gate": gate, "input": WRITES_ON_CHANNELS}));
            server.open_gate(&gate);
            server.wait_for_notes(round);
            let all: Vec<_> = (0..8).map(|n| json!({"n": n})).collect();
            let mut connections: Vec<_> = all.iter().map(|what| server.order(what)).collect();
            for (connection, what) in connections.iter_mut().zip(&all) {
                answered(connection, what);
            }
        }
        let log = server.log();
        assert!(
            log.contains("bytes arrived while no call was in progress"),
            "{class}"
        );
        assert!(!log.contains("failing"), "{class}");
    }
}
