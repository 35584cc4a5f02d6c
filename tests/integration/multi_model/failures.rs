//! Multi-model mode: a load that fails gives the reason and leaves nothing behind.

use crate::support::models::{assert_error, assert_loaded, rest_port};
use crate::support::setup::fake_model_server;
use crate::support::{Server, Setup, processes, wait_until};

/// Asserts that a failed load of `m` left nothing behind, and that `m` can be loaded now.
#[track_caller]
fn assert_can_be_loaded_now(server: &Server) {
    server.assert_no_model_left();
    assert_eq!(server.ping().status, 200);
    server.order_start("m", "");
    server.assert_loads("m");
    server.assert_model_serves("m");
    assert_eq!(rest_port(&server.last_start_of("m")), server.rest_port(0));
    server.assert_free_but(&["m"]);
}

#[test]
fn a_load_that_times_out_gets_408() {
    for ignore_sigterm in [0, 1] {
        let server = Setup::multi_model(1)
            .var("SAGEMAKER_TFS_WAIT_TIME_SECONDS", 1)
            .var("FAKE_TFS_IGNORE_SIGTERM", ignore_sigterm)
            .start();
        server.add_held_model("m");
        for _ in 0..2 {
            let text = "Model m could not be loaded within 1 s (SAGEMAKER_TFS_WAIT_TIME_SECONDS).";
            assert_error(&server.load("m"), 408, text);
            server.assert_no_model_left();
        }
        assert_can_be_loaded_now(&server);
    }
}

/// The model server runs and responds, but the model is not AVAILABLE.
#[test]
fn a_load_gets_408_if_the_model_server_serves_only_another_model() {
    // A model server that serves only another model.
    let setup = Setup::multi_model(1);
    let program = setup.path("bin/model_server");
    let script = format!(
        "for arg in \"$@\"; do case $arg in --model_config_file=*) sed -i s/name:.*/name:\\'x\\'/ \"${{arg#*=}}\" ;; \
         esac; done\nexec '{}' \"$@\"",
        fake_model_server().display()
    );
    let server = setup
        .script("bin/model_server", &script)
        .flag("model-server", program.display())
        .var("SAGEMAKER_TFS_WAIT_TIME_SECONDS", 1)
        .start();
    server.add_model("m");
    let response = server.load("m");
    assert_eq!(response.status, 408, "{}", response.text());
    assert_eq!(server.starts_of("x").len(), 1);
    server.assert_no_model_left();
}

#[test]
fn a_load_whose_process_exits_gets_500_with_its_last_output() {
    let server = Setup::multi_model(1).start();
    server.add_model("m");
    server.order_start("m", "exit");
    let response = server.load("m");
    assert_eq!(response.status, 500, "{}", response.text());
    for text in [
        "Model m",
        "exited with code 255",
        "1 servable(s) did not become available",
    ] {
        assert!(response.error().contains(text), "{}", response.error());
    }
    assert!(response.body.len() <= 2048, "SageMaker shows no more");
    assert_eq!(server.starts().len(), 1, "the load was not tried again");
    assert_can_be_loaded_now(&server);
}

#[test]
fn a_load_whose_process_is_killed_gets_507() {
    let server = Setup::multi_model(1).start();
    server.add_model("m");
    server.order_start("m", "kill");
    let response = server.load("m");
    assert_eq!(response.status, 507, "{}", response.text());
    for text in ["Memory exhausted", "signal 9"] {
        assert!(response.error().contains(text), "{}", response.error());
    }
    assert_can_be_loaded_now(&server);
}

#[test]
fn one_failing_instance_of_two_fails_the_load() {
    let server = Setup::multi_model(2)
        .var("SAGEMAKER_TFS_INSTANCE_COUNT", 2)
        .var("FAKE_TFS_START_EXIT", 1)
        .var("FAKE_TFS_START_EXIT_AFTER", 1)
        .start();
    server.add_model("m");
    let response = server.load("m");
    assert_eq!(response.status, 500, "{}", response.text());
    assert_eq!(server.starts().len(), 2);
    server.assert_no_model_left();
}

/// A load continues even if its client is long gone.
#[test]
fn a_load_finishes_although_its_client_hangs_up() {
    let server = Setup::multi_model(2).start();
    server.add_held_model("m");
    let load = server.begin_load("m");
    server.wait_for_start_of("m", 0);
    drop(load);
    server.order_start("m", "");
    wait_until("the model is loaded", || server.loaded() == ["m"]);
    server.assert_model_serves("m");
    server.assert_unloads("m");
    server.assert_no_model_left();
}

#[test]
fn a_missing_model_server_fails_only_the_load() {
    let setup = Setup::multi_model(1);
    let program = setup.path("bin/absent");
    let server = setup.flag("model-server", program.display()).start();
    server.add_model("m");
    for _ in 0..2 {
        let response = server.load("m");
        assert_eq!(response.status, 500, "{}", response.text());
        for text in ["bin/absent", "is not found", "--model-server"] {
            assert!(response.error().contains(text), "{}", response.error());
        }
        server.assert_no_model_left();
    }
    assert_eq!(server.ping().status, 200);
    // Once the program exists, it is used.
    std::os::unix::fs::symlink(fake_model_server(), &program).unwrap();
    assert_loaded(&server.load("m"), "m");
}

#[test]
fn a_program_that_cannot_be_executed_fails_only_the_load() {
    let setup = Setup::multi_model(1).file("bin/text", "no program");
    let program = setup.path("bin/text");
    let server = setup.flag("model-server", program.display()).start();
    server.add_model("m");
    let response = server.load("m");
    assert_eq!(response.status, 500, "{}", response.text());
    assert!(
        response.error().contains("bin/text"),
        "{}",
        response.error()
    );
    server.assert_no_model_left();
}

#[test]
fn a_load_gets_507_if_tmpdir_is_gone() {
    let server = Setup::multi_model(1).start();
    server.add_model("m");
    let (tmp, aside) = (server.path("tmp"), server.path("aside"));
    std::fs::rename(&tmp, &aside).unwrap();
    let response = server.load("m");
    assert_eq!(response.status, 507, "{}", response.text());
    assert!(response.error().contains("TMPDIR"), "{}", response.error());
    std::fs::rename(&aside, &tmp).unwrap();
    server.assert_no_model_left();
    server.assert_loads("m");
}

/// Failing loads give back everything they have taken, exactly once.
#[test]
fn many_concurrent_failing_loads_leave_all_ports_free() {
    let server = Setup::multi_model(7).start();
    let names: Vec<_> = (0..7).map(|n| format!("m{n}")).collect();
    for order in ["exit", "kill", ""] {
        for name in &names {
            server.add_model(name);
            server.order_start(name, order);
        }
        let mut loads: Vec<_> = names.iter().map(|name| server.begin_load(name)).collect();
        for load in &mut loads {
            let status = load.response().status;
            let expected = [("exit", 500), ("kill", 507), ("", 200)];
            assert!(expected.contains(&(order, status)), "{order:?}: {status}");
        }
    }
    let mut ports: Vec<_> = names
        .iter()
        .map(|n| rest_port(&server.last_start_of(n)))
        .collect();
    ports.sort_unstable();
    let expected: Vec<_> = (0..7).map(|index| server.rest_port(index)).collect();
    assert_eq!(ports, expected);
    assert_eq!(processes::children(server.pid()).len(), 7);
}
