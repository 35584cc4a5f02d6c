//! Multi-model mode: shutdown while models are loaded, loading or unloading.

use rustix::process::Signal;
use serde_json::json;

use crate::support::models::{assert_loaded, assert_unloaded, unload_request};
use crate::support::{
    Connection, Ended, INSTANCES, PREDICTIONS, Server, Setup, processes, request, wait_until,
};

/// Asserts that a server ended with exit code 0 and left nothing behind.
#[track_caller]
fn assert_clean(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.assert_nothing_left();
}

/// Sends SIGTERM and waits until the server has reacted.
#[track_caller]
fn terminate(server: &Server) {
    server.signal(Signal::TERM);
    wait_until("new connections are refused", || {
        Connection::try_open(server.port()).is_err()
    });
}

#[test]
fn the_server_ends_at_once_with_and_without_models() {
    for names in [&[][..], &["a"], &["a", "b", "c", "d", "e"]] {
        let server = Setup::multi_model(5).start();
        server.add_loaded(names);
        terminate(&server);
        let ended = server.wait_for_end();
        assert_eq!(ended.starts.len(), names.len());
        assert_clean(&ended);
    }
}

#[test]
fn running_requests_of_all_models_finish() {
    let server = Setup::multi_model(3).start();
    let names = ["a", "b", "c"];
    server.add_loaded(&names);
    let mut running = Vec::new();
    for (instance, name) in (0..).zip(names) {
        server.control(instance, &json!({"freeze": true}));
        for _ in 0..5 {
            let mut connection = server.connect();
            connection.send(&request(
                "POST",
                &format!("/models/{name}/invoke"),
                &[],
                INSTANCES,
            ));
            running.push(connection);
        }
        wait_until("all requests are in flight", || {
            server.stat(instance, "in_flight") == 5
        });
    }
    terminate(&server);
    assert!(running.iter_mut().all(|c| !c.is_readable()));
    (0..3).for_each(|instance| server.thaw(instance));
    for connection in &mut running {
        let response = connection.response();
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, PREDICTIONS)
        );
        assert_eq!(response.header("connection"), Some("close"));
    }
    assert_clean(&server.wait_for_end());
}

#[test]
fn pending_loads_and_unloads_finish() {
    let server = Setup::multi_model(3).start();
    server.add_loaded(&["stays", "goes"]);
    server.add_held_model("comes");
    let mut load = server.begin_load("comes");
    server.wait_for_start_of("comes", 0);
    server.control(1, &json!({"freeze": true}));
    let mut running = server.connect();
    running.send(&request("POST", "/models/goes/invoke", &[], INSTANCES));
    wait_until("the request is in flight", || {
        server.stat(1, "in_flight") == 1
    });
    let mut unload = server.connect();
    unload.send(&unload_request("goes"));
    wait_until("the model is no longer loaded", || {
        server.loaded() == ["stays"]
    });

    terminate(&server);
    assert!(!load.is_readable() && !unload.is_readable());
    server.order_start("comes", "");
    assert_loaded(&load.response(), "comes");
    server.thaw(1);
    assert_eq!(running.response().status, 200);
    assert_unloaded(&unload.response(), "goes");
    assert_clean(&server.wait_for_end());
}

#[test]
fn loads_that_fail_during_shutdown_get_their_error() {
    let server = Setup::multi_model(3).start();
    let mut loads = Vec::new();
    for (name, status) in [("exits", 500), ("dies", 507)] {
        server.add_held_model(name);
        loads.push((server.begin_load(name), status));
        server.wait_for_start_of(name, 0);
    }
    terminate(&server);
    server.order_start("exits", "exit");
    server.order_start("dies", "kill");
    for (load, status) in &mut loads {
        assert_eq!(load.response().status, *status);
    }
    assert_clean(&server.wait_for_end());
}

/// The second signal ends the server at once, without waiting for loads.
#[test]
fn loads_that_never_finish_leave_nothing_behind() {
    for ignore_sigterm in [0, 1] {
        let server = Setup::multi_model(5)
            .var("FAKE_TFS_IGNORE_SIGTERM", ignore_sigterm)
            .start();
        server.add_loaded(&["m"]);
        let names = ["a", "b", "c"];
        names.iter().for_each(|name| server.add_held_model(name));
        let loads: Vec<_> = names.iter().map(|name| server.begin_load(name)).collect();
        wait_until("all model servers are started", || {
            server.starts().len() == 4
        });
        terminate(&server);
        server.signal(Signal::TERM);
        let ended = server.wait_for_end();
        assert_clean(&ended);
        drop(loads);
    }
}

#[test]
fn a_model_that_keeps_dying_does_not_delay_the_end() {
    let server = Setup::multi_model(2).start();
    server.add_loaded(&["a", "b"]);
    server.order_start("a", "exit");
    processes::signal(server.last_start_of("a").pid, Signal::KILL);
    wait_until("restarts fail", || server.starts_of("a").len() >= 3);
    terminate(&server);
    assert_clean(&server.wait_for_end());
}
