//! Multi-model mode: an unload waits for running requests, and nothing of the model is left when it responds.

use rustix::process::Signal;
use serde_json::json;

use crate::support::models::{assert_error, assert_not_loaded, assert_unloaded, unload_request};
use crate::support::server::fake;
use crate::support::setup::fake_model_server;
use crate::support::{INSTANCES, PREDICTIONS, Setup, processes, request, wait_until};

#[test]
fn process_ports_and_files_are_gone_when_an_unload_responds() {
    let server = Setup::multi_model(2).start();
    server.add_loaded(&["a", "b"]);
    let pid = server.last_start_of("a").pid;
    assert_eq!(server.files_of_models().len(), 2);
    server.assert_unloads("a");
    assert!(processes::look(pid).is_none(), "not even a zombie is left");
    server.assert_free_but(&["b"]);
    server.assert_model_serves("b");
    server.assert_unloads("b");
    server.assert_no_model_left();
}

#[test]
fn a_model_that_is_not_loaded_cannot_be_unloaded() {
    let server = Setup::multi_model(2).start();
    server.add_held_model("held");
    server.add_loaded(&["m"]);
    let mut load = server.begin_load("held");
    server.wait_for_start_of("held", 0);
    for name in ["absent", "held", "m/", "../m"] {
        assert_not_loaded(&server.unload(name), name);
    }
    let missing = "The name of the model is missing in the path.";
    assert_error(&server.unload(""), 404, missing);
    server.order_start("held", "");
    assert_eq!(load.response().status, 200);
    server.assert_unloads("held");
    assert_not_loaded(&server.unload("held"), "held");
    assert_eq!(server.loaded(), ["m"]);
}

#[test]
fn a_model_can_be_loaded_and_unloaded_repeatedly() {
    let server = Setup::multi_model(1).start();
    server.add_model("m");
    for round in 0..10 {
        server.assert_loads("m");
        server.assert_model_serves("m");
        server.assert_unloads("m");
        assert_eq!(server.starts().len(), round + 1);
        server.assert_no_model_left();
    }
}

#[test]
fn an_unload_waits_for_running_requests_while_new_ones_get_404() {
    let server = Setup::multi_model(2).start();
    server.add_loaded(&["m", "other"]);
    server.control(0, &json!({"freeze": true}));
    let invoke = request("POST", "/models/m/invoke", &[], INSTANCES);
    let mut running: Vec<_> = (0..10).map(|_| server.connect()).collect();
    running.iter_mut().for_each(|c| c.send(&invoke));
    wait_until("all requests are in flight", || {
        server.stat(0, "in_flight") == 10
    });

    let mut unload = server.connect();
    unload.send(&unload_request("m"));
    wait_until("the model is no longer loaded", || {
        server.loaded() == ["other"]
    });
    assert_not_loaded(&server.invoke_model("m", INSTANCES), "m");
    assert_not_loaded(&server.get("/models/m"), "m");
    assert_not_loaded(&server.get("/tfs/v1/models/m"), "m");
    assert_not_loaded(&server.unload("m"), "m");
    assert_error(&server.load("m"), 409, "Model m is already loaded.");
    server.assert_model_serves("other");
    assert!(!unload.is_readable() && running.iter_mut().all(|c| !c.is_readable()));

    server.thaw(0);
    for connection in &mut running {
        let response = connection.response();
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, PREDICTIONS)
        );
    }
    assert_unloaded(&unload.response(), "m");
    server.assert_free_but(&["other"]);
    server.assert_loads("m");
    server.assert_model_serves("m");
}

/// The limit is the deadline of requests if that is shorter than 30 s.
#[test]
fn requests_that_hang_delay_an_unload_for_a_limited_time() {
    let server = Setup::multi_model(2).deadline(2).start();
    server.add_loaded(&["m"]);
    let mut stuck = server.connect();
    let hang = fake(&json!({"hang": true}));
    stuck.send(&request("POST", "/models/m/invoke", &[], hang.as_bytes()));
    wait_until("the request is in flight", || {
        server.stat(0, "in_flight") == 1
    });
    server.assert_unloads("m");
    let response = stuck.response();
    assert!(
        [502, 503, 504].contains(&response.status),
        "{}",
        response.text()
    );
    response.error();
    server.assert_no_model_left();
}

#[test]
fn a_model_server_that_ignores_sigterm_is_killed() {
    let server = Setup::multi_model(1)
        .var("FAKE_TFS_IGNORE_SIGTERM", 1)
        .start();
    server.add_loaded(&["m"]);
    server.assert_unloads("m");
    server.assert_no_model_left();
}

/// The script starts the model server as its child.
#[test]
fn a_model_server_started_by_a_script_ends_with_the_script() {
    let setup = Setup::multi_model(1);
    let program = setup.path("bin/model_server");
    let script = format!("'{}' \"$@\" &\nwait", fake_model_server().display());
    let server = setup
        .script("bin/model_server", &script)
        .flag("model-server", program.display())
        .start();
    server.add_loaded(&["m"]);
    let pid = server.last_start_of("m").pid;
    server.assert_unloads("m");
    wait_until("the model server is gone", || !processes::runs(pid));
    server.assert_loads("m");
}

#[test]
fn a_model_whose_process_is_down_can_be_unloaded() {
    let server = Setup::multi_model(1).start();
    server.add_loaded(&["m"]);
    server.order_start("m", "exit");
    processes::signal(server.last_start_of("m").pid, Signal::KILL);
    wait_until("restarts fail", || server.starts().len() >= 3);
    server.assert_unloads("m");
    server.assert_no_model_left();
    let starts = server.starts().len();
    server.order_start("m", "");
    server.assert_loads("m");
    assert_eq!(
        server.starts().len(),
        starts + 1,
        "the model server was started only once"
    );
}
