//! The server waits for every version of every model, because TensorFlow Serving opens its ports once one version of
//! each model is loaded, and keeps serving if others fail.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Server, Setup, processes, wait_until};

const VERSIONS: [&str; 2] = ["half_plus_three/00000123", "half_plus_three/00000124"];

fn broken(code: &str, message: &str) -> Value {
    json!({"state": "END", "error_code": code, "error_message": message})
}

/// Sets the states of single versions of a model, before the start.
fn with_states(setup: Setup, model: &str, states: &Value) -> Setup {
    setup.file(&format!("model/{model}/fake_status"), &states.to_string())
}

/// Changes the states of single versions of the model.
fn set_states(server: &Server, states: &Value) {
    // Replaced in one step, because the file may be read at any moment.
    let path = server.path("model/half_plus_three/fake_status");
    fs::write(path.with_extension("new"), states.to_string()).unwrap();
    fs::rename(path.with_extension("new"), path).unwrap();
}

/// Waits until `/ping` fails with this reason.
#[track_caller]
fn wait_for_reason(server: &Server, reason: &str) {
    wait_until(&format!("/ping says {reason:?}"), || {
        let response = server.ping();
        response.status == 502 && response.error().contains(reason)
    });
}

#[test]
fn a_broken_older_version_ends_the_start_with_tensorflows_reason() {
    let states = json!({"123": broken("NOT_FOUND", "no\n  variables")});
    for instances in [1, 2] {
        let setup = Setup::new().models(&VERSIONS).instances(instances);
        let ended = with_states(setup, "half_plus_three", &states).run();
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        let reasons = ended.reasons();
        assert_eq!(reasons.len(), 1, "{}", ended.stderr);
        let expected = "version 123 of model half_plus_three is END: NOT_FOUND: no variables";
        assert!(reasons[0].contains(expected), "{}", reasons[0]);
        ended.assert_nothing_left();
    }
}

#[test]
fn ping_waits_for_every_version_of_every_model() {
    for loading in ["alpha", "beta"] {
        let setup = Setup::new().models(&["alpha/1", "alpha/2", "beta/1", "beta/2"]);
        let server = with_states(setup, loading, &json!({"1": {"state": "LOADING"}})).launch();
        server.wait_for_log("Exporting HTTP/REST API");
        // Enough requests that the server has asked about each model.
        wait_until("the server has asked for the status", || {
            server.stat(0, "status_requests") >= 4
        });
        assert_eq!(server.ping().status, 502, "{loading} is loading");
        fs::remove_file(server.path(&format!("model/{loading}/fake_status"))).unwrap();
        server.wait_until_healthy();
        server.wait_for_log("models alpha, beta are AVAILABLE");
    }
}

#[test]
fn a_start_that_times_out_names_the_missing_version() {
    let setup = Setup::new()
        .models(&VERSIONS)
        .var("SAGEMAKER_TFS_WAIT_TIME_SECONDS", 1);
    let states = json!({"123": {"state": "LOADING"}});
    let ended = with_states(setup, "half_plus_three", &states).run();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let reason = ended.reasons().join("\n");
    let expected = "version 123 of model half_plus_three is LOADING";
    assert!(reason.contains(expected), "{reason}");
}

#[test]
fn versions_that_are_not_configured_are_ignored() {
    let states = json!({"7": broken("OK", ""), "8": {"state": "UNLOADING"}});
    let setup = Setup::new().models(&VERSIONS);
    let server = with_states(setup, "half_plus_three", &states).start();
    server.assert_serves();
}

#[test]
fn a_version_that_fails_later_is_reported_by_ping_and_restored_by_a_restart() {
    let server = Setup::new().models(&VERSIONS).deadline(2).start();
    set_states(&server, &json!({"123": broken("INTERNAL", "lost")}));
    wait_for_reason(
        &server,
        "version 123 of model half_plus_three is END: INTERNAL: lost",
    );
    server.wait_for_start(1);
    // Its other version still serves.
    assert_eq!(server.invoke(crate::support::INSTANCES).status, 200);
    set_states(&server, &json!({}));
    server.wait_until_healthy();
}

#[test]
fn a_version_or_model_that_vanishes_is_reported_by_ping() {
    let server = Setup::new().models(&VERSIONS).start();
    set_states(&server, &json!({"123": null}));
    wait_for_reason(
        &server,
        "version 123 of model half_plus_three is not listed",
    );
    set_states(&server, &json!({"123": null, "124": null}));
    wait_for_reason(&server, "model half_plus_three has HTTP status 404");
    set_states(&server, &json!({}));
    server.wait_until_healthy();
    assert_eq!(
        server.starts().len(),
        1,
        "the model server was not restarted"
    );
}

#[test]
fn after_a_restart_loaded_versions_serve_and_failed_ones_are_reported() {
    let server = Setup::new().models(&VERSIONS).start();
    set_states(&server, &json!({"123": broken("DATA_LOSS", "torn")}));
    let killed = server.model_server_pid(0);
    processes::signal(killed, rustix::process::Signal::KILL);
    server.wait_for_start(1);
    wait_for_reason(
        &server,
        "version 123 of model half_plus_three is END: DATA_LOSS: torn",
    );
    assert_eq!(server.invoke(crate::support::INSTANCES).status, 200);
}

#[test]
fn a_load_fails_when_a_version_does_not_load() {
    let server = Setup::multi_model(1).start();
    server.add_model("m");
    server.model_file("m", "2/saved_model.pb", "");
    for (code, status) in [("NOT_FOUND", 500), ("RESOURCE_EXHAUSTED", 507)] {
        let states = json!({"1": broken(code, "because")});
        server.model_file("m", "fake_status", &states.to_string());
        let response = server.load("m");
        assert_eq!(response.status, status, "{}", response.text());
        let expected = format!("version 1 of model m is END: {code}: because");
        assert!(response.error().contains(&expected), "{}", response.error());
        server.assert_no_model_left();
    }
    server.model_file("m", "fake_status", "");
    server.assert_loads("m");
    server.assert_model_serves("m");
}

#[test]
fn a_load_waits_for_every_version() {
    let server = Setup::multi_model(1).start();
    server.add_model("m");
    server.model_file("m", "2/saved_model.pb", "");
    server.model_file("m", "fake_status", r#"{"1": {"state": "LOADING"}}"#);
    let mut load = server.begin_load("m");
    let instance = server.instance_of(&server.wait_for_start_of("m", 0));
    server.wait_for_log("Exporting HTTP/REST API");
    wait_until("the server has asked for the status", || {
        server.stat(instance, "status_requests") >= 2
    });
    assert_eq!(server.loaded(), [""; 0]);
    server.model_file("m", "fake_status", "");
    crate::support::models::assert_loaded(&load.response(), "m");
}

#[test]
fn a_load_that_runs_out_of_memory_gets_507() {
    let server = Setup::multi_model(1).start();
    server.add_model("m");
    server.order_start("m", "exhaust");
    let response = server.load("m");
    assert_eq!(response.status, 507, "{}", response.text());
    for text in ["Memory exhausted", "OOM when allocating"] {
        assert!(response.error().contains(text), "{}", response.error());
    }
    server.assert_no_model_left();
}
