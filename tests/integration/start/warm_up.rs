//! `SAGEMAKER_TFS_WARMUP_REQUEST`: requests that the server sends to itself before `/ping` answers 200.

use std::fs::File;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Setup, wait_until};

const VARIABLE: &str = "SAGEMAKER_TFS_WARMUP_REQUEST";

/// A server whose warm-up request has this body.
fn warmed_by(setup: Setup, body: &Value) -> Setup {
    setup
        .file("model/warm.json", &body.to_string())
        .var(VARIABLE, "warm.json")
}

/// The same, with a body that makes the fake model server do something.
fn commanded(command: &Value) -> Setup {
    warmed_by(Setup::new(), &json!({"instances": [1], "fake": command}))
}

#[test]
fn the_files_are_sent_in_their_order_with_their_types_before_ping_is_200() {
    let setup = Setup::new().file("model/warm/1.json", "[[1.5, 2]]");
    let setup = setup.file("elsewhere/2.CSV", "7,x\n");
    let absolute = setup.path("elsewhere/2.CSV").display().to_string();
    let server = setup
        .var(VARIABLE, format!("warm/1.json, {absolute}"))
        .start();
    let requests = server.requests();
    let predictions = requests
        .iter()
        .filter(|request| request.path.ends_with(":predict"));
    let bodies: Vec<_> = predictions
        .map(|request| request.body.clone().unwrap_or_default())
        .collect();
    assert_eq!(
        bodies,
        [
            r#"{"instances": [[1.5, 2]]}"#,
            r#"{"instances": [[7,"x"]]}"#
        ]
    );
    server.wait_for_log("warm-up: answered 2 of 2 requests within ");
    server.assert_serves();
}

#[test]
fn a_file_that_cannot_be_sent_is_refused_before_anything_starts() {
    let fifo = Setup::new();
    let path = fifo.path("model/pipe");
    #[allow(clippy::disallowed_methods)] // no other child is being started
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.is_ok_and(|status| status.success()));
    let large = Setup::new().var("SAGEMAKER_TFS_MAX_BODY_MEMORY_MB", 1);
    let file = File::create(large.path("model/large.json")).unwrap();
    file.set_len(1 << 40).unwrap();
    for (setup, name, why) in [
        (Setup::new(), "absent.json", "No such file"),
        (Setup::new(), ".", "it is not a file"),
        (fifo, "pipe", "it is not a file"),
        (
            large,
            "large.json",
            "it has 1099511627776 bytes, and a request at most 1048576",
        ),
    ] {
        let path = setup.path("model").join(name).display().to_string();
        let ended = setup.var(VARIABLE, name).run();
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        let begin = format!("{VARIABLE}: {path} cannot be sent: {why}");
        assert!(ended.reason().starts_with(&begin), "{}", ended.reason());
        assert!(ended.starts.is_empty(), "no model server was started");
    }
}

#[test]
fn a_model_that_refuses_its_warm_up_request_is_not_served() {
    let ended = commanded(&json!({"status": 400, "body": {"error": "not \u{7} mine"}})).run();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let reason = ended.reason();
    let expected = "model/warm.json failed: status 400: {\"error\":\"not \\u0007 mine\"}";
    assert!(reason.contains(expected), "{reason}");
    ended.assert_nothing_left();

    let ended = commanded(&json!({"status": 400, "error_bytes": 100_000})).run();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let length = ended.reason().chars().count();
    assert!(
        (1000..4000).contains(&length),
        "{length}: {}",
        ended.reason()
    );
}

#[test]
fn a_request_that_ends_the_model_server_each_time_ends_the_start() {
    let ended = commanded(&json!({"exit": 3})).run();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(
        ended.reason().contains("status 502: "),
        "{}",
        ended.reason()
    );
    ended.assert_nothing_left();
}

#[test]
fn a_busy_model_gets_the_request_again_until_the_wait_time_is_over() {
    let server = commanded(&json!({"status": 503, "fail_first": 2, "key": "warm"})).start();
    server.wait_for_log("warm.json: status 503: ");
    server.wait_for_log("warm-up: answered 1 of 1 requests");

    let ended = commanded(&json!({"status": 503}))
        .var("SAGEMAKER_TFS_WAIT_TIME_SECONDS", 1)
        .run();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let expected = "failed within 1 s (SAGEMAKER_TFS_WAIT_TIME_SECONDS): status 503: ";
    assert!(ended.reason().contains(expected), "{}", ended.reason());
}

#[test]
fn a_signal_ends_a_warm_up_that_hangs() {
    let server = commanded(&json!({"hang": true})).launch();
    wait_until("the model server has the request", || {
        server
            .requests()
            .iter()
            .any(|r| r.path.ends_with(":predict"))
    });
    assert!(server.wait_until_unhealthy().contains("warming up"));
    server.signal(rustix::process::Signal::TERM);
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // The drain does not wait for it.
    assert!(!ended.stderr.contains("did not finish"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("trying again"), "{}", ended.stderr);
    ended.assert_nothing_left();
}

#[cfg(feature = "python")]
mod handlers {
    use rustix::process::Signal;

    use super::*;

    #[test]
    fn the_request_goes_through_the_handler_and_others_are_served_meanwhile() {
        let what = json!({"input": "note('called'); wait_at('gate')"});
        for single_threaded in [false, true] {
            let setup = warmed_by(Setup::new().obedient_pair(), &what);
            let setup = setup.var("SAGEMAKER_TFS_SINGLE_THREADED", single_threaded);
            let server = setup.launch();
            server.wait_for_notes(1);
            let reason = server.wait_until_unhealthy();
            assert!(
                reason.contains("warming up: SAGEMAKER_TFS_WARMUP_REQUEST"),
                "{reason}"
            );
            if !single_threaded {
                let response = server.post("/tfs/v1/models/half_plus_three:predict", &[], b"{}");
                assert_eq!(response.status, 200, "{}", response.text());
            }
            server.open_gate("gate");
            server.wait_until_healthy();
            server.obey(&json!({"input": "note('later')"}));
        }
    }

    #[test]
    fn a_handler_that_asks_for_ping_meanwhile_gets_502() {
        let code = "import urllib.request, urllib.error\n\
                    try: urllib.request.urlopen(os.environ['ADDRESS'])\n\
                    except urllib.error.HTTPError as e: note(f'{e.code} {e.read()}')";
        let setup = warmed_by(Setup::new().obedient_pair(), &json!({"output": code}));
        let address = format!("http://127.0.0.1:{}/ping", setup.port());
        let server = setup.var("ADDRESS", address).start();
        assert!(server.notes()[0].starts_with("502 ") && server.notes()[0].contains("warming up"));
    }

    #[test]
    fn a_handler_that_raises_or_hangs_ends_the_start() {
        let raises = warmed_by(
            Setup::new().obedient_pair(),
            &json!({"input": "raise ValueError('cold')"}),
        );
        let hangs = warmed_by(
            Setup::new().obedient_handler(),
            &json!({"handler": "wait_at('never')"}),
        );
        let hangs = hangs
            .call_limit(1)
            .var("SAGEMAKER_TFS_WAIT_TIME_SECONDS", 2);
        let hanging = "failed within 2 s (SAGEMAKER_TFS_WAIT_TIME_SECONDS): ";
        for (setup, expected) in [(raises, "status 500: "), (hangs, hanging)] {
            let ended = setup.run();
            assert_eq!(ended.code, Some(1), "{}", ended.stderr);
            assert!(ended.reason().contains(expected), "{}", ended.reason());
            ended.assert_nothing_left();
        }
    }

    #[test]
    fn after_a_signal_the_request_may_finish() {
        let what = json!({"input": "note('called'); wait_at('gate')"});
        let server = warmed_by(Setup::new().obedient_pair(), &what).launch();
        server.wait_for_notes(1);
        server.signal(Signal::TERM);
        server.wait_for_log("SIGTERM: stopping");
        server.open_gate("gate");
        let ended = server.wait_for_end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.assert_nothing_left();
    }
}
