//! Which lines are in the log at which level.

use std::thread;

use crate::support::{INSTANCES, Server, Setup, wait_until};

#[track_caller]
fn start(vars: &[(&str, &str)]) -> Server {
    let set = |setup: Setup, (name, value): &(&str, &str)| setup.var(name, value);
    vars.iter().fold(Setup::new(), set).start()
}

const FRONT: &str = "SAGEMAKER_TFS_NGINX_LOGLEVEL";
const SERVER: &str = "SAGEMAKER_GUNICORN_LOGLEVEL";
const ACCESS_LINE: &str = "\"POST /invocations\" 200";

#[test]
fn output_of_tensorflow_serving_appears_in_the_log() {
    let server = start(&[]);
    server.wait_for_log("Exporting HTTP/REST API at:localhost:");
    server.wait_for_log("Running gRPC ModelServer at 127.0.0.1:");
}

#[test]
fn start_and_end_are_logged_by_default_and_requests_are_not() {
    let server = start(&[]);
    server.assert_serves();
    server.signal(rustix::process::Signal::TERM);
    let log = server.wait_for_end().stderr;
    for text in [
        concat!("sagemaker-tfs ", env!("CARGO_PKG_VERSION")),
        "listening on 127.0.0.1:",
        "model half_plus_three, versions [123]",
        "model half_plus_three is AVAILABLE",
        "SIGTERM: stopping",
    ] {
        assert!(log.contains(text), "{text:?} in {log}");
    }
    assert!(
        !log.contains("/invocations") && !log.contains("/ping"),
        "{log}"
    );
    for line in log.lines() {
        assert!(line.starts_with("20"), "a line without its time: {line:?}");
    }
}

#[test]
fn each_request_gets_one_access_line_at_info_and_debug() {
    for (level, lines) in [
        ("debug", 3),
        ("info", 3),
        ("notice", 0),
        ("warn", 0),
        ("error", 0),
        ("crit", 0),
        ("emerg", 0),
    ] {
        let server = start(&[(FRONT, level)]);
        for _ in 0..3 {
            assert_eq!(server.invoke(INSTANCES).status, 200);
        }
        assert_eq!(server.get("/absent").status, 404);
        assert_eq!(server.get("/absent\x07path").status, 400);
        if lines > 0 {
            wait_until("the lines are written", || {
                server.log().matches(ACCESS_LINE).count() >= lines
            });
            server.wait_for_log("\" 404 ");
            server.wait_for_log("\" 400 ");
        }
        server.signal(rustix::process::Signal::TERM);
        let log = server.wait_for_end().stderr;
        assert_eq!(log.matches(ACCESS_LINE).count(), lines, "{level}: {log}");
        assert!(
            !log.contains('\x07'),
            "clients cannot write control characters into the log"
        );
    }
}

#[test]
fn the_two_levels_are_independent() {
    let server = start(&[(FRONT, "info"), (SERVER, "error")]);
    assert_eq!(server.invoke(INSTANCES).status, 200);
    server.wait_for_log(ACCESS_LINE);
    let log = server.log();
    assert!(!log.contains("listening on"), "{log}");
}

#[test]
fn the_level_of_the_server_decides_which_of_its_lines_are_logged() {
    for (level, is_logged) in [
        ("debug", true),
        ("info", true),
        ("warning", false),
        ("critical", false),
    ] {
        let server = start(&[(SERVER, level)]);
        server.signal(rustix::process::Signal::TERM);
        let log = server.wait_for_end().stderr;
        assert_eq!(log.contains("listening on"), is_logged, "{level}: {log}");
    }
}

#[test]
fn user_data_is_not_logged_at_any_level() {
    let server = start(&[(FRONT, "debug"), (SERVER, "debug")]);
    let secret = br#"{"instances": ["very secret"]}"#;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(server.invoke(secret).status, 200));
        }
    });
    server.signal(rustix::process::Signal::TERM);
    let log = server.wait_for_end().stderr;
    assert!(!log.contains("very secret"), "{log}");
}
