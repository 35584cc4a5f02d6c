//! A signal ends the start at any moment, whatever the start waits for.

#[cfg(feature = "s3")]
use std::net::TcpListener;

use rustix::process::Signal;

use crate::support::{Ended, Server, Setup, wait_until};

/// Shell commands that report that they run, and then run forever.
const STUCK: &str = "touch \"$FAKE_TFS_RECORD/reached\"\nexec sleep 600";
/// A Python that reports its version and paths, and hangs when it runs pip.
const PYTHON: &str = r#"case "$*" in
*pip*) touch "$FAKE_TFS_RECORD/reached"; trap '' TERM; sleep 600;;
*) printf '%s\n3.11.0\n/opt\n' "$0";;
esac"#;

#[track_caller]
fn wait_until_reached(server: &Server) {
    wait_until("the start is stuck", || {
        if let Some(code) = server.try_end() {
            panic!("the server ended ({code:?})");
        }
        server.path("record/reached").exists()
    });
}

/// Ends the start with a signal, and asserts that nothing is left of it.
#[track_caller]
fn assert_ends(server: Server, signal: Signal) -> Ended {
    server.signal(signal);
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.assert_nothing_left();
    ended
}

/// The same before the port is open.
#[track_caller]
fn assert_ends_early(server: Server, signal: Signal) {
    let ended = assert_ends(server, signal);
    assert!(
        ended.stderr.contains("stopping before startup is complete"),
        "{}",
        ended.stderr
    );
    assert!(ended.starts.is_empty(), "no model server was started");
}

#[test]
fn a_signal_ends_a_start_that_waits_for_python() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Setup::new()
            .file("model/code/inference.py", "")
            .script("bin/python3", STUCK)
            .launch();
        wait_until_reached(&server);
        assert_ends_early(server, signal);
    }
}

#[test]
fn a_signal_ends_a_start_that_waits_for_pip() {
    let server = Setup::new()
        .file("model/code/inference.py", "")
        .file("model/code/requirements.txt", "x")
        .script("bin/python3", PYTHON)
        .launch();
    wait_until_reached(&server);
    assert_ends(server, Signal::TERM);
}

#[test]
fn a_signal_ends_a_start_that_waits_for_nvidia_smi() {
    let server = Setup::new()
        .instances(2)
        .script("bin/nvidia-smi", STUCK)
        .launch();
    wait_until_reached(&server);
    assert_ends_early(server, Signal::TERM);
}

#[cfg(feature = "s3")]
#[test]
fn a_signal_ends_a_start_that_waits_for_a_download() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let server = Setup::multi_model(1)
        .var("SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET", "bucket")
        .var("AWS_ENDPOINT_URL_S3", format!("http://{address}"))
        .var("AWS_ACCESS_KEY_ID", "x")
        .var("AWS_SECRET_ACCESS_KEY", "x")
        .launch();
    let _connection = silent.accept().unwrap();
    assert_ends(server, Signal::TERM);
}
