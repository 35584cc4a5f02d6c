//! Text from outside can neither forge log lines nor control a terminal that shows the log.

use crate::support::models::load_request;
use crate::support::server::fake;
use crate::support::{INSTANCES, Server, Setup};

/// Clears a terminal, and starts a text that looks like a log line of the server.
const ATTACK: &str = "\r\x1b[2J\x07\x7f\u{9b}\n2026-01-01T00:00:00.000Z ERROR [forged] forged";

/// Asserts that every line has a time and an origin, that none has the forged origin, and that the log has no control
/// characters.
#[track_caller]
fn assert_honest(log: &str) {
    for line in log.split('\n').filter(|line| !line.is_empty()) {
        let words: Vec<_> = line.split_whitespace().collect();
        let is_ours = line.starts_with("20") && words.get(2).is_some_and(|w| w.starts_with('['));
        assert!(is_ours, "a line without time and origin: {line:?}");
        assert_ne!(words[2], "[forged]", "{line:?}");
        let control = line.chars().find(|c| c.is_control() && *c != '\t');
        assert_eq!(control, None, "{line:?}");
    }
}

#[track_caller]
fn ended_log(server: Server) -> String {
    server.signal(rustix::process::Signal::TERM);
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(0));
    ended.stderr
}

#[test]
fn output_of_the_model_server_is_escaped_in_the_log() {
    let setup = Setup::new();
    let attack = setup.path("attack").display().to_string();
    let script = format!(
        "cat '{attack}' >&2\nexec '{}' \"$@\"",
        crate::support::setup::fake_model_server().display()
    );
    let setup = setup
        .file("attack", &format!("{ATTACK}\nthe end\n"))
        .script("bin/model_server", &script);
    let program = setup.path("bin/model_server");
    let server = setup.flag("model-server", program.display()).start();
    server.wait_for_log("the end");
    let log = ended_log(server);
    assert_honest(&log);
    let repeated = "[tensorflow_model_server] 0: \\r\\u{1b}[2J\\u{7}\\u{7f}\\u{9b}\n";
    assert!(log.contains(repeated), "{log}");
}

#[test]
fn output_of_a_model_server_that_fails_to_start_is_escaped_in_the_reason() {
    let setup = Setup::new();
    let attack = setup.path("attack").display().to_string();
    let ended = setup
        .file("attack", &format!("{ATTACK}\n"))
        .script("bin/model_server", &format!("cat '{attack}' >&2\nexit 255"));
    let program = ended.path("bin/model_server");
    let ended = ended.flag("model-server", program.display()).run();
    assert_eq!(ended.code, Some(1));
    let is_reason = |line: &&str| line.starts_with("sagemaker-tfs: ");
    let reason = Vec::from_iter(ended.stderr.lines().filter(is_reason)).join("\n");
    assert!(reason.contains("\\u{1b}[2J"), "{reason}");
    let control = ended.stderr.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(control, None, "{}", ended.stderr);
}

#[test]
fn names_paths_and_urls_of_load_requests_are_escaped_in_the_log() {
    let server = Setup::multi_model(1).start();
    for (name, url) in [
        (format!("m{ATTACK}"), "/opt/ml/models/m/model".to_owned()),
        ("m".to_owned(), format!("/opt/ml/models/{ATTACK}")),
        ("m".to_owned(), "/no/such/model".to_owned()),
    ] {
        let response = server.exchange(&load_request(&name, &url));
        assert!([400, 404].contains(&response.status), "{}", response.text());
    }
    server.wait_for_log("/no/such/model");
    assert_honest(&ended_log(server));
}

#[test]
fn headers_and_targets_of_requests_are_refused_or_escaped_in_the_log() {
    let server = Setup::new()
        .var("SAGEMAKER_TFS_NGINX_LOGLEVEL", "debug")
        .var("SAGEMAKER_GUNICORN_LOGLEVEL", "debug")
        .start();
    // Characters that a header must not contain: the server refuses them, and TensorFlow Serving never gets them.
    for value in ["\u{1}", "a\x1b[2Jb", "a\x7fb"] {
        let headers = [("Content-Type", value)];
        let path = "/tfs/v1/models/half_plus_three:predict";
        let mut connection = server.connect();
        connection.send(&crate::support::request("POST", path, &headers, INSTANCES));
        // The server may close the connection instead.
        if let Ok(Some(response)) = connection.try_response() {
            assert_eq!(response.status, 400, "{value:?}: {}", response.text());
        }
        assert!(server.requests().is_empty(), "{value:?}");
    }
    // The log names a request that loses its connections.
    let path = "/tfs/v1/models/half_plus_three:predict?\x07\x1b[2J";
    let headers = [("Content-Type", "application/json")];
    let body = fake(&serde_json::json!({"close": "before_answer"}));
    let mut connection = server.connect();
    connection.send(&crate::support::request(
        "POST",
        path,
        &headers,
        body.as_bytes(),
    ));
    let _ = connection.try_response();
    server.assert_serves();
    assert_honest(&ended_log(server));
}

#[cfg(feature = "python")]
#[test]
fn output_and_exceptions_of_handlers_are_escaped_in_the_log() {
    use serde_json::json;
    let server = Setup::new().obedient_pair().start();
    server.assert_handlers_serve(1);
    let text = json!(ATTACK);
    server.obey(&json!({"input": format!("print({text})\nprint({text}, file=sys.stderr)")}));
    let what = json!({"input": format!("raise ValueError({text})")});
    let response = server.order(&what).response();
    assert_eq!((response.status, response.error().as_str()), (500, ATTACK));
    crate::support::wait_until("both are logged", || {
        server.log().matches("\\u{1b}[2J").count() >= 3
    });
    assert_honest(&ended_log(server));
}

#[cfg(feature = "python")]
#[test]
fn the_traceback_of_a_script_that_fails_to_load_is_escaped_in_the_reason() {
    let script = format!("raise ValueError({})", serde_json::json!(ATTACK));
    let ended = Setup::new().handler(&script).run();
    assert_eq!(ended.code, Some(1));
    let control = ended.stderr.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(control, None, "{}", ended.stderr);
    assert!(ended.stderr.contains("ValueError"), "{}", ended.stderr);
}
