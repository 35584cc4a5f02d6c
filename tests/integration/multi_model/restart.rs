//! Multi-model mode: when the process of a loaded model dies, the model's requests wait for the restart, and other
//! models are unaffected.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;
use serde_json::json;

use crate::support::models::rest_port;
use crate::support::server::fake;
use crate::support::{
    INSTANCES, PREDICTIONS, Server, SetWhenDropped, Setup, processes, request, wait_until,
};

/// Kills the model server of a model and returns its process ID.
#[track_caller]
fn kill(server: &Server, name: &str) -> u32 {
    let pid = server.last_start_of(name).pid;
    processes::signal(pid, Signal::KILL);
    pid
}

#[test]
fn requests_wait_while_their_model_restarts_and_other_models_are_unaffected() {
    let server = Setup::multi_model(3).start();
    server.add_loaded(&["m", "other"]);
    let (first, other) = (server.last_start_of("m"), server.last_start_of("other"));
    server.order_start("m", "hold");
    kill(&server, "m");
    server.wait_for_start_of("m", 1);

    let invoke = request("POST", "/models/m/invoke", &[], INSTANCES);
    let mut waiting: Vec<_> = (0..20).map(|_| server.connect()).collect();
    waiting.iter_mut().for_each(|c| c.send(&invoke));
    for _ in 0..20 {
        server.assert_model_serves("other");
        assert_eq!(server.ping().status, 200, "the server is healthy");
    }
    assert_eq!(server.loaded(), ["m", "other"], "the model is still loaded");
    assert_eq!(server.load("m").status, 409);
    server.add_loaded(&["third"]);
    assert!(waiting.iter_mut().all(|c| !c.is_readable()));

    server.order_start("m", "");
    for connection in &mut waiting {
        let response = connection.response();
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, PREDICTIONS)
        );
    }
    let second = server.last_start_of("m");
    assert_eq!(
        rest_port(&second),
        rest_port(&first),
        "the model keeps its ports"
    );
    assert_eq!(server.last_start_of("other").pid, other.pid);
    assert!(processes::look(first.pid).is_none(), "no zombie is left");
    server.assert_free_but(&["m", "other", "third"]);
}

#[test]
fn requests_wait_no_longer_than_their_deadline() {
    let server = Setup::multi_model(2).deadline(1).start();
    server.add_loaded(&["m", "other"]);
    server.order_start("m", "hold");
    kill(&server, "m");
    server.wait_for_start_of("m", 1);
    let response = server.invoke_model("m", INSTANCES);
    assert_eq!(response.status, 504, "{}", response.text());
    for text in ["1 s", "instance 0", "starting"] {
        assert!(response.error().contains(text), "{}", response.error());
    }
    assert_eq!(server.get("/models/m").status, 504);
    server.assert_model_serves("other");
    server.order_start("m", "");
    wait_until("the model serves again", || {
        server.invoke_model("m", INSTANCES).status == 200
    });
}

#[test]
fn a_model_server_killed_under_load_loses_no_request() {
    let server = Setup::multi_model(2)
        .var("FAKE_TFS_RECORD_REQUESTS", 0)
        .start();
    server.add_loaded(&["m", "other"]);
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for client in 0..12 {
            let (server, over, answered) = (&server, &over, &answered);
            scope.spawn(move || {
                let name = ["m", "other"][client % 2];
                let invoke = request("POST", &format!("/models/{name}/invoke"), &[], INSTANCES);
                let mut connection = server.connect();
                while !over.load(Ordering::Relaxed) {
                    connection.send(&invoke);
                    let response = connection.response();
                    assert_eq!(
                        (response.status, response.text().as_str()),
                        (200, PREDICTIONS)
                    );
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _over = SetWhenDropped(&over);
        for round in 0..4 {
            let goal = answered.load(Ordering::Relaxed) + 200;
            wait_until("requests are answered", || {
                answered.load(Ordering::Relaxed) >= goal
            });
            if round < 3 {
                kill(&server, "m");
                server.wait_for_start_of("m", round + 1);
            }
        }
    });
    assert_eq!(server.starts_of("other").len(), 1);
}

/// A request that kills the process of one model does not harm another model.
#[test]
fn a_request_that_kills_the_model_server_fails_alone() {
    let server = Setup::multi_model(2).start();
    server.add_loaded(&["m", "other"]);
    let response = server.invoke_model("m", fake(&json!({"exit": 3})));
    assert_eq!(response.status, 502, "{}", response.text());
    let response = server.invoke_model(
        "m",
        fake(&json!({"exit": "abort", "fail_first": 1, "key": "k"})),
    );
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, PREDICTIONS)
    );
    server.assert_model_serves("other");
    assert_eq!(server.starts_of("other").len(), 1);
}

#[test]
fn one_instance_serves_while_the_other_restarts() {
    let server = Setup::multi_model(2)
        .var("SAGEMAKER_TFS_INSTANCE_COUNT", 2)
        .start();
    server.add_loaded(&["m"]);
    server.order_start("m", "hold");
    kill(&server, "m");
    server.wait_for_start_of("m", 2);
    for _ in 0..10 {
        server.assert_model_serves("m");
    }
    assert_eq!(server.get("/models/m").status, 200);
    server.assert_unloads("m");
    server.assert_no_model_left();
}

/// A model whose process dies and cannot be restarted stays in the list, and the server continues.
#[test]
fn a_model_that_cannot_be_restarted_stays_loaded() {
    let server = Setup::multi_model(2).deadline(1).start();
    server.add_loaded(&["m", "other"]);
    server.order_start("m", "exit");
    kill(&server, "m");
    wait_until("restarts fail", || server.starts_of("m").len() >= 4);
    assert_eq!(server.invoke_model("m", INSTANCES).status, 504);
    assert_eq!(server.loaded(), ["m", "other"]);
    server.assert_model_serves("other");
    assert_eq!(server.ping().status, 200);
    server.order_start("m", "");
    wait_until("the model serves again", || {
        server.invoke_model("m", INSTANCES).status == 200
    });
}
