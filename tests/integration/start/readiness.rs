//! The time until TensorFlow Serving serves, and starts that never get that far.

use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use crate::support::{
    Connection, INSTANCES, PREDICTIONS, Server, Setup, processes, request, wait_until,
};

fn wait_until_listening(server: &Server) {
    wait_until("the server listens", || {
        Connection::try_open(server.port()).is_ok()
    });
}

#[test]
fn ping_says_502_and_invocations_wait_while_tensorflow_serving_loads() {
    let server = Setup::new().var("FAKE_TFS_START_DELAY_MS", 1500).launch();
    wait_until_listening(&server);
    let reason = server.wait_until_unhealthy();
    assert!(reason.contains("starting"), "{reason}");

    let mut waiting = server.connect();
    waiting.send(&request("POST", "/invocations", &[], INSTANCES));
    let mut passing = server.connect();
    passing.send(&request("GET", "/tfs/v1/models/half_plus_three", &[], b""));
    let response = waiting.response();
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, PREDICTIONS)
    );
    assert_eq!(passing.response().status, 200);
    assert!(server.is_healthy());
    assert_eq!(server.starts().len(), 1);
}

#[test]
fn a_failed_start_ends_the_program_with_the_last_output_of_tensorflow_serving() {
    for instances in [1, 2] {
        let ended = Setup::new()
            .instances(instances)
            .var("FAKE_TFS_START_EXIT", 255)
            .run();
        assert_eq!(ended.code, Some(1));
        let reason = ended.reasons().join("\n");
        for text in [
            "TensorFlow Serving did not start",
            "exited with code 255",
            "Loading servable failed: Not found",
            "Failed to start server. Error: Unknown: 1 servable(s) did not become available",
        ] {
            assert!(reason.contains(text), "{text:?} in {reason}");
        }
        assert!(
            ended.starts.len() <= instances.into(),
            "a failed start is not repeated"
        );
        ended.assert_nothing_left();
    }
}

#[test]
fn a_start_that_takes_too_long_ends_the_program() {
    let ended = Setup::new()
        .var("FAKE_TFS_START_DELAY_MS", 600_000)
        .var("SAGEMAKER_TFS_WAIT_TIME_SECONDS", 1)
        .run();
    assert_eq!(ended.code, Some(1));
    let reasons = ended.reasons();
    assert_eq!(reasons.len(), 1, "{}", ended.stderr);
    assert!(
        reasons[0].contains("not AVAILABLE within 1 s"),
        "{}",
        reasons[0]
    );
    assert!(
        reasons[0].contains("SAGEMAKER_TFS_WAIT_TIME_SECONDS"),
        "{}",
        reasons[0]
    );
    ended.assert_nothing_left();
}

/// The port of a model server may open while a model still loads, for example when several versions are loaded. The
/// test itself responds to the status requests.
#[test]
fn a_model_that_is_loading_is_not_ready() {
    let setup = Setup::new().script(
        "bin/model_server",
        "touch \"$FAKE_TFS_RECORD/started\"; exec sleep 600",
    );
    let program = setup.path("bin/model_server");
    let server = setup.flag("model-server", program.display()).launch();
    wait_until("the script runs", || server.path("record/started").exists());
    let listener = TcpListener::bind(("127.0.0.1", server.rest_port(0))).unwrap();

    let answer = |path: &str, status: &str, body: &str| {
        let (stream, _) = listener.accept().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut head = Vec::new();
        use std::io::{BufRead, BufReader, Write};
        let mut reader = BufReader::new(&stream);
        while !head.ends_with(b"\r\n\r\n") && reader.read_until(b'\n', &mut head).unwrap() > 0 {}
        assert!(
            head.starts_with(format!("GET /v1/models/half_plus_three{path} ").as_bytes()),
            "{:?}",
            String::from_utf8_lossy(&head)
        );
        let length = body.len();
        write!(
            &stream,
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
    };
    let respond = |state: &str| {
        let body =
            format!(r#"{{"model_version_status": [{{"version": "123", "state": "{state}"}}]}}"#);
        answer("", "200 OK", &body);
    };
    for state in ["START", "LOADING", "LOADING", "UNLOADING"] {
        respond(state);
        assert_eq!(server.ping().status, 502, "{state}");
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            respond("AVAILABLE");
            assert_eq!(server.ping().status, 502, "its signatures are not known");
            answer("/versions/123/metadata", "404 Not Found", "{}");
        });
        server.wait_until_healthy();
    });
    // Dropping the server kills it, so the test ends the sleeping script by its process id.
    let script = processes::children(server.pid());
    drop(server);
    for process in script {
        processes::signal(process.pid, rustix::process::Signal::KILL);
    }
}

#[test]
fn a_model_that_stops_being_available_is_reported() {
    let server = Setup::new().start();
    server.control(0, &serde_json::json!({"state": "LOADING"}));
    let reason = server.wait_until_unhealthy();
    assert!(reason.contains("LOADING"), "{reason}");
    server.control(0, &serde_json::json!({"state": "AVAILABLE"}));
    server.wait_until_healthy();
    assert_eq!(
        server.starts().len(),
        1,
        "the model server was not restarted"
    );
}

#[test]
fn all_instances_are_started_and_one_is_enough_to_serve() {
    let server = Setup::new().instances(3).start();
    server.assert_serves();
    for k in 0..3 {
        server.wait_for_start(k);
    }
}
