//! How calls of different requests share a Python worker, for each worker class. The tests observe which call waits for
//! which, never how long it takes.

use serde_json::json;

use crate::support::handlers::answered;
use crate::support::{Connection, Server, Setup, wait_until};

/// Sends one request per number, whose functions note that they run.
fn noted(server: &Server, numbers: std::ops::Range<u32>) -> Vec<(serde_json::Value, Connection)> {
    let orders = numbers.map(|n| {
        let note = |function| format!("note('{function} {n}')");
        json!({"n": n, "input": note("input"), "output": note("output")})
    });
    orders
        .map(|what| (what.clone(), server.order(&what)))
        .collect()
}

fn all_answered(sent: &mut [(serde_json::Value, Connection)]) {
    for (what, connection) in sent {
        answered(connection, what);
    }
}

/// How many calls of `input_handler` came before the first call of `output_handler`.
fn inputs_first(notes: &[String]) -> usize {
    notes.iter().take_while(|n| n.starts_with("input")).count()
}

#[test]
fn by_default_calls_of_different_requests_alternate_on_one_thread() {
    let server = Setup::new().obedient_pair().start();
    server.control(0, &json!({"freeze": true}));
    let mut sent = noted(&server, 0..20);
    // One thread runs all calls: each request has had its first call, none its second.
    wait_until("all requests are at the model server", || {
        server.stat(0, "in_flight") == 20
    });
    let threads = "note(len(threading.enumerate()))";
    let mut one_more = server.order(&json!({"input": threads}));
    assert_eq!(server.wait_for_notes(21)[20], "1");
    server.control(0, &json!({"freeze": false}));
    all_answered(&mut sent);
    assert_eq!(one_more.response().status, 200);
    assert_eq!(inputs_first(&server.notes()), 20);
    assert_eq!(server.python_workers().len(), 1);
}

/// A request gets its instance before its first call, which sees the address, and is sent to that instance.
#[test]
fn the_context_names_the_instance_that_gets_the_request() {
    const REQUESTS: u64 = 10;
    let script = "from meeting import note, wait_at\n\n\n\
         def input_handler(data, context):\n    \
             wait_at('gate')\n    \
             note(context.rest_uri)\n    \
             return data.read()\n\n\n\
         def output_handler(response, context):\n    \
             return response.content, 'application/json'\n";
    let server = Setup::new().instances(2).handler(script).start();
    let in_flight = || [0, 1].map(|index| server.stat(index, "in_flight"));
    for index in [0, 1] {
        server.control(index, &json!({"freeze": true}));
    }
    let mut sent = Vec::from_iter((0..REQUESTS).map(|n| {
        let what = json!({"n": n});
        (what.clone(), server.order(&what))
    }));
    server.open_gate("gate");
    wait_until("all requests are at the model servers", || {
        in_flight().iter().sum::<u64>() == REQUESTS
    });
    let notes = server.notes();
    let named = [0, 1].map(|index| {
        let address = format!("http://localhost:{}/", server.rest_port(index));
        notes.iter().filter(|n| n.starts_with(&address)).count() as u64
    });
    assert_eq!(named, in_flight(), "{notes:?}");
    assert!(named.iter().all(|&count| count > 0), "{named:?}");
    for index in [0, 1] {
        server.control(index, &json!({"freeze": false}));
    }
    all_answered(&mut sent);
}

#[test]
fn sync_runs_no_other_call_between_the_calls_of_a_request() {
    let server = Setup::new().obedient_pair().worker_class("sync").start();
    server.control(0, &json!({"freeze": true}));
    let mut sent = noted(&server, 0..6);
    wait_until("one request is at the model server", || {
        server.stat(0, "in_flight") == 1
    });
    // Requests that need no Python worker are still sent.
    let pass_through = request_in_flight(&server);
    assert_eq!(server.notes().len(), 1, "{:?}", server.notes());
    server.control(0, &json!({"freeze": false}));
    all_answered(&mut sent);
    drop(pass_through);
    let notes = server.notes();
    for pair in notes.chunks(2) {
        let number = pair[0].strip_prefix("input ").expect("input comes first");
        assert_eq!(pair[1], format!("output {number}"), "{notes:?}");
    }
}

/// A request that bypasses the handlers; the model server holds it as well.
fn request_in_flight(server: &Server) -> Connection {
    let path = "/tfs/v1/models/half_plus_three:predict";
    let mut connection = server.connect();
    connection.send(&crate::support::request("POST", path, &[], b"{}"));
    wait_until("two requests are at the model server", || {
        server.stat(0, "in_flight") == 2
    });
    connection
}

#[test]
fn two_gthread_threads_run_calls_at_the_same_time() {
    let server = Setup::new()
        .obedient_pair()
        .worker_class("gthread")
        .var("SAGEMAKER_GUNICORN_THREADS", 2)
        .start();
    // The first call creates the barrier.
    let meet = |name| format!("globals().setdefault('{name}', threading.Barrier(2)).wait()");
    let orders = (0..8).map(|n| json!({"n": n, "input": meet("a"), "output": meet("b")}));
    let mut sent: Vec<_> = orders
        .map(|what| (what.clone(), server.order(&what)))
        .collect();
    all_answered(&mut sent);
    assert!(server.stat(0, "max_in_flight") <= 2, "no third call runs");
}

#[test]
fn eight_gthread_threads_run_a_single_handler_at_the_same_time() {
    let server = Setup::new()
        .obedient_handler()
        .worker_class("gthread")
        .var("SAGEMAKER_GUNICORN_THREADS", 8)
        .start();
    let meet = "globals().setdefault('a', threading.Barrier(8)).wait()";
    for _ in 0..2 {
        let orders = (0..8).map(|n| json!({"n": n, "handler": meet}));
        let mut sent: Vec<_> = orders
            .map(|what| (what.clone(), server.order(&what)))
            .collect();
        all_answered(&mut sent);
    }
}

#[test]
fn without_gevent_calls_of_a_single_handler_do_not_overlap() {
    let server = Setup::new().obedient_handler().start();
    let orders = (0..8).map(|n| {
        let wait = "time.sleep(0.01)";
        let main = "assert threading.current_thread() is threading.main_thread()";
        json!({"n": n, "handler": format!("{main}; note('begin {n}'); {wait}; note('end {n}')")})
    });
    let mut sent: Vec<_> = orders
        .map(|what| (what.clone(), server.order(&what)))
        .collect();
    all_answered(&mut sent);
    for call in server.notes().chunks(2) {
        let number = call[0].strip_prefix("begin ").expect("begin comes first");
        assert_eq!(call[1], format!("end {number}"));
    }
}

#[test]
fn one_warning_says_that_gevent_is_missing_and_what_to_do() {
    let warnings = |server: &Server| {
        let log = server.log();
        let lines = log
            .lines()
            .filter(|l| l.contains("gevent is not installed"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let server = Setup::new().obedient_handler().workers(2).start();
    server.assert_handlers_serve(2);
    // A restarted worker does not warn again.
    let old = server.kill_worker(0);
    server.wait_for_new_worker(0, old);
    let lines = warnings(&server);
    assert_eq!(lines.len(), 1, "{lines:?}");
    let ways = [
        " WARN ",
        "gevent to requirements.txt",
        "SAGEMAKER_GUNICORN_WORKERS",
        "SAGEMAKER_GUNICORN_WORKER_CLASS=gthread",
    ];
    for way in ways {
        assert!(lines[0].contains(way), "{way}: {}", lines[0]);
    }
    for class in ["sync", "gthread"] {
        let server = Setup::new().obedient_handler().worker_class(class).start();
        server.assert_handlers_serve(1);
        assert_eq!(warnings(&server), [""; 0], "{class}");
    }
    let server = Setup::new().obedient_pair().start();
    server.assert_handlers_serve(1);
    assert_eq!(warnings(&server), [""; 0]);
}

#[test]
fn three_workers_are_three_processes_that_share_the_requests() {
    for class in ["gevent", "sync", "gthread"] {
        let server = Setup::new()
            .obedient_pair()
            .worker_class(class)
            .workers(3)
            .start();
        server.assert_handlers_serve(3);
        let held = json!({"input": "note(os.getpid()); wait_at('gate')"});
        let mut sent: Vec<_> = (0..3)
            .map(|_| (held.clone(), server.order(&held)))
            .collect();
        // No call ends before the last has started, so each has its own process.
        let mut pids = server.wait_for_notes(3);
        pids.sort();
        let mut workers: Vec<_> = server
            .python_workers()
            .iter()
            .map(|p| p.pid.to_string())
            .collect();
        workers.sort();
        assert_eq!(pids, workers, "{class}");
        server.open_gate("gate");
        all_answered(&mut sent);
    }
}
