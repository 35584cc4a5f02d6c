//! `--single-threaded`: requests run one at a time, the script has the terminal, and no time limit applies.
//! `tests/handlers` tests a session with the debugger.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::handlers::answered;
use crate::support::{Setup, processes, wait_until};

/// Turns the mode on, on top of other settings.
fn single_threaded(setup: Setup) -> Setup {
    setup.var("SAGEMAKER_TFS_SINGLE_THREADED", "true")
}

#[test]
fn requests_run_one_at_a_time_from_input_handler_to_output_handler() {
    for setup in [
        Setup::new().obedient_pair(),
        Setup::new().obedient_handler(),
    ] {
        let setup = setup.workers(3).worker_class("gthread");
        let server = single_threaded(setup.var("SAGEMAKER_GUNICORN_THREADS", 4)).start();
        assert_eq!(
            server.python_workers().len(),
            1,
            "other settings do not matter"
        );
        let code = |name| format!("note('{name} begins'); time.sleep(0.01); note('{name} ends')");
        let orders = (0..8).map(|n| {
            json!({"n": n, "input": code("input"), "output": code("output"), "handler": code("handler")})
        });
        let mut sent: Vec<_> = orders.map(|what| (server.order(&what), what)).collect();
        for (connection, what) in &mut sent {
            answered(connection, what);
        }
        let notes = server.notes();
        for pair in notes.chunks(2) {
            let name = pair[0].strip_suffix(" begins").expect("begins comes first");
            assert_eq!(pair[1], format!("{name} ends"), "{notes:?}");
        }
        if notes[0].starts_with("input") {
            let functions: Vec<_> = notes.iter().step_by(2).map(|n| &n[..5]).collect();
            assert!(
                functions.chunks(2).all(|pair| pair == ["input", "outpu"]),
                "{notes:?}"
            );
            assert_eq!(server.stat(0, "max_in_flight"), 1);
        }
    }
}

#[test]
fn no_time_limit_applies_and_ping_still_responds() {
    let server = single_threaded(Setup::new().obedient_pair().deadline(1)).start();
    let pid = server.python_worker_pid(0);
    let what = json!({"input": "note('waits'); wait_at('gate')"});
    let mut waiting = server.order(&what);
    server.wait_for_notes(1);
    let began = Instant::now();
    let mut behind = server.order(&json!({"n": 1}));
    wait_until("both limits have passed", || {
        assert_eq!(server.ping().status, 200);
        began.elapsed() > Duration::from_millis(2500)
    });
    assert!(!waiting.is_readable() && !behind.is_readable());
    server.open_gate("gate");
    answered(&mut waiting, &what);
    answered(&mut behind, &json!({"n": 1}));
    assert_eq!(server.python_worker_pid(0), pid);
}

/// The terminal sends Ctrl-C to both the server and the Python worker.
#[test]
fn ctrl_c_ends_all_processes_and_leaves_nothing() {
    let server = single_threaded(Setup::new().obedient_pair()).start();
    server.obey(
        &json!({"input": "print('on standard output'); atexit.register(note, 'cleaned up')"}),
    );
    let notes = server.path("notes");
    let pid = server.python_worker_pid(0);
    processes::signal(pid, Signal::INT);
    server.signal(Signal::INT);
    wait_until("the script has cleaned up", || {
        std::fs::read_to_string(&notes).is_ok_and(|text| text == "cleaned up\n")
    });
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(
        ended.stdout, "on standard output\n",
        "the output is unchanged"
    );
    ended.assert_nothing_left();
}

#[test]
fn a_worker_that_dies_is_restarted() {
    let server = single_threaded(Setup::new().obedient_pair()).start();
    let pid = server.python_worker_pid(0);
    let response = server.order(&json!({"input": "os._exit(3)"})).response();
    assert_eq!(response.status, 500, "{}", response.text());
    server.wait_for_new_worker(0, pid);
    server.assert_handlers_serve(1);
}

/// The terminal sends Ctrl-C to the Python worker as well, which ends its import.
#[test]
fn ctrl_c_while_the_script_loads_is_not_a_failure() {
    let script = "from meeting import note, wait_at\nnote('begun')\nwait_at('gate')\n";
    let server = single_threaded(Setup::new().handler(script)).launch();
    server.wait_for_notes(1);
    let worker = server.python_worker_pid(0);
    server.signal(Signal::INT);
    processes::signal(worker, Signal::INT);
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.reasons().is_empty(), "{}", ended.stderr);
    ended.assert_nothing_left();
}
