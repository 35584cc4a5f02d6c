//! Multi-model mode: a model that is busy, broken or still loading blocks no other model.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::models::{assert_loaded, assert_unloaded, unload_request};
use crate::support::{INSTANCES, Server, Setup, processes, request, wait_until};

/// The quickest of several tries, because the machine may be busy.
fn quickest(what: impl Fn()) -> Duration {
    let times = (0..10).map(|_| {
        let began = Instant::now();
        what();
        began.elapsed()
    });
    times.min().expect("some tries")
}

/// Asserts that other models work while some are stuck: `ready`, which is loaded, and `new`, which is not yet.
#[track_caller]
fn assert_others_work(server: &Server, ready: &str, new: &str) {
    assert!(server.loaded().contains(&ready.to_owned()));
    assert_eq!(server.ping().status, 200);
    server.assert_model_serves(ready);
    assert_eq!(server.get(&format!("/models/{ready}")).status, 200);
    assert_eq!(server.unload("absent").status, 404);
    server.add_model(new);
    server.assert_loads(new);
    server.assert_model_serves(new);
    server.assert_unloads(new);
}

#[test]
fn ten_pending_loads_block_no_other_model() {
    let server = Setup::multi_model(12).start();
    server.add_loaded(&["ready"]);
    let names: Vec<_> = (0..10).map(|n| format!("held{n}")).collect();
    names.iter().for_each(|name| server.add_held_model(name));
    let mut loads: Vec<_> = names.iter().map(|name| server.begin_load(name)).collect();
    wait_until("all model servers are started", || {
        server.starts().len() == 11
    });

    assert_others_work(&server, "ready", "new");
    for (what, time) in [
        (
            "/models",
            quickest(|| assert_eq!(server.get("/models").status, 200)),
        ),
        ("/ping", quickest(|| assert_eq!(server.ping().status, 200))),
    ] {
        assert!(time < Duration::from_millis(100), "{what}: {time:?}");
    }
    assert!(
        loads.iter_mut().all(|load| !load.is_readable()),
        "the loads are held"
    );

    for (name, load) in names.iter().zip(&mut loads) {
        server.order_start(name, "");
        assert_loaded(&load.response(), name);
        server.assert_model_serves(name);
    }
    assert_eq!(
        server.starts().len(),
        12,
        "each model server was started once"
    );
}

/// More loads than the server works on requests at once.
#[test]
fn a_hundred_pending_loads_block_no_other_model() {
    let server = Setup::multi_model(102).start();
    server.add_loaded(&["ready"]);
    let names: Vec<_> = (0..100).map(|n| format!("held{n}")).collect();
    names.iter().for_each(|name| server.add_held_model(name));
    let mut loads: Vec<_> = names.iter().map(|name| server.begin_load(name)).collect();
    wait_until("all model servers are started", || {
        server.model_servers().len() == 101
    });
    assert_others_work(&server, "ready", "new");
    assert!(
        loads.iter_mut().all(|load| !load.is_readable()),
        "the loads are held"
    );
}

#[test]
fn waiting_unloads_block_no_other_model() {
    let server = Setup::multi_model(7).start();
    let names = ["a", "b", "c", "d", "e"];
    server.add_loaded(&names);
    server.add_loaded(&["ready"]);
    let mut waiting = Vec::new();
    for (name, instance) in names.iter().zip(0..) {
        server.control(instance, &json!({"freeze": true}));
        let mut running = server.connect();
        running.send(&request(
            "POST",
            &format!("/models/{name}/invoke"),
            &[],
            INSTANCES,
        ));
        wait_until("the request is in flight", || {
            server.stat(instance, "in_flight") == 1
        });
        let mut unload = server.connect();
        unload.send(&unload_request(name));
        waiting.push((running, unload));
    }
    wait_until("the models are no longer loaded", || {
        server.loaded() == ["ready"]
    });
    assert_others_work(&server, "ready", "new");
    for ((running, unload), (name, instance)) in waiting.iter_mut().zip(names.iter().zip(0..)) {
        assert!(!unload.is_readable());
        server.thaw(instance);
        assert_eq!(running.response().status, 200);
        assert_unloaded(&unload.response(), name);
    }
    server.assert_free_but(&["ready"]);
}

/// More requests than the server works on at once for one model.
#[test]
fn requests_for_a_model_that_is_down_block_no_other_model() {
    let server = Setup::multi_model(3).start();
    server.add_loaded(&["down", "ready"]);
    server.order_start("down", "hold");
    processes::signal(server.last_start_of("down").pid, Signal::KILL);
    server.wait_for_start_of("down", 1);
    let mut stuck: Vec<_> = (0..200).map(|_| server.connect()).collect();
    let invoke = request("POST", "/models/down/invoke", &[], INSTANCES);
    stuck.iter_mut().for_each(|c| c.send(&invoke));
    assert_others_work(&server, "ready", "new");
    assert!(stuck.iter_mut().all(|c| !c.is_readable()));
    server.order_start("down", "");
    assert!(stuck.iter_mut().all(|c| c.response().status == 200));
}

#[test]
fn requests_for_a_model_that_hangs_block_no_other_model() {
    let server = Setup::multi_model(3).start();
    server.add_loaded(&["hangs", "ready"]);
    server.control(0, &json!({"freeze": true}));
    let mut stuck: Vec<_> = (0..40).map(|_| server.connect()).collect();
    let invoke = request("POST", "/models/hangs/invoke", &[], INSTANCES);
    stuck.iter_mut().for_each(|c| c.send(&invoke));
    wait_until("all requests are in flight", || {
        server.stat(0, "in_flight") == 40
    });
    assert_others_work(&server, "ready", "new");
    assert!(stuck.iter_mut().all(|c| !c.is_readable()));
    server.thaw(0);
    assert!(stuck.iter_mut().all(|c| c.response().status == 200));
}

/// A description needs a response from the model server, which may hang.
#[test]
fn descriptions_of_a_model_that_hangs_block_no_other_model() {
    let server = Setup::multi_model(3).start();
    server.add_loaded(&["hangs", "ready"]);
    server.control(0, &json!({"freeze": true}));
    let mut stuck: Vec<_> = (0..10).map(|_| server.connect()).collect();
    let describe = request("GET", "/models/hangs", &[], b"");
    stuck.iter_mut().for_each(|c| c.send(&describe));
    wait_until("all status requests have arrived", || {
        server.stat(0, "status_requests") >= 10
    });
    assert_others_work(&server, "ready", "new");
    server.thaw(0);
    assert!(stuck.iter_mut().all(|c| c.response().status == 200));
}

/// Two models fail to load repeatedly while another serves.
#[test]
fn failing_loads_block_no_other_model() {
    let server = Setup::multi_model(4).start();
    server.add_loaded(&["ready"]);
    for name in ["bad0", "bad1"] {
        server.add_model(name);
        server.order_start(name, "exit");
    }
    std::thread::scope(|scope| {
        for name in ["bad0", "bad1"] {
            let server = &server;
            scope.spawn(move || (0..10).for_each(|_| assert_eq!(server.load(name).status, 500)));
        }
        (0..20).for_each(|_| server.assert_model_serves("ready"));
    });
    assert_eq!(server.starts_of("ready").len(), 1);
    server.assert_free_but(&["ready"]);
}
