//! Starts that are refused although all settings are valid: exit code 1, one sentence, nothing left behind.

use std::fs;
use std::net::TcpListener;

use crate::support::{Ended, Setup};

/// Runs the program and asserts that it ends with a single reason that contains all of these texts.
#[track_caller]
fn assert_refused(setup: Setup, named: &[&str]) -> Ended {
    let ended = setup.run();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let reasons = ended.reasons();
    assert_eq!(
        reasons.len(),
        1,
        "one line gives the reason: {}",
        ended.stderr
    );
    for text in named {
        assert!(reasons[0].contains(text), "{text:?} in {}", reasons[0]);
    }
    ended.assert_nothing_left();
    ended
}

#[test]
fn a_directory_without_models_is_refused_with_its_content_and_the_expected_layout() {
    let setup = Setup::new()
        .models(&[])
        .file("model/my_model/saved_model.h5", "")
        .file("model/notes.txt", "");
    let directory = setup.path("model").canonicalize().unwrap();
    let directory = directory.to_str().unwrap().to_owned();
    assert_refused(
        setup,
        &[
            "no model found",
            &directory,
            "my_model/saved_model.h5",
            "notes.txt",
            "<model name>/<version number>/saved_model.pb",
        ],
    );
    assert_refused(Setup::new().models(&[]), &["no model found", "empty"]);
}

#[test]
fn a_missing_model_directory_is_named() {
    let setup = Setup::new().flag("model-dir", "/absent/models");
    assert_refused(setup, &["/absent/models"]);
    let setup = Setup::new()
        .without_flag("model-dir")
        .var("SAGEMAKER_TFS_MODEL_DIR", "/absent/by/variable");
    assert_refused(setup, &["/absent/by/variable"]);
}

#[test]
fn two_models_with_the_same_name_are_both_named() {
    let setup = Setup::new().models(&["a/m/1", "b/m/2"]);
    assert_refused(setup, &["\"m\"", "/a/m", "/b/m"]);
}

#[test]
fn an_unknown_default_model_is_refused_with_a_list_of_the_models() {
    let setup = Setup::new()
        .models(&["alpha/1", "beta/1"])
        .var("SAGEMAKER_TFS_DEFAULT_MODEL_NAME", "gamma");
    let named = ["SAGEMAKER_TFS_DEFAULT_MODEL_NAME", "gamma", "alpha, beta"];
    assert_refused(setup, &named);
}

#[test]
fn a_missing_model_server_is_refused_with_the_option_that_names_one() {
    let setup = Setup::new().without_flag("model-server");
    if crate::support::setup::is_on_path("tensorflow_model_server") {
        crate::support::skipped(
            "part of a_missing_model_server_is_refused_with_the_option_that_names_one",
            "tensorflow_model_server is on PATH",
        );
    } else {
        assert_refused(
            setup,
            &["tensorflow_model_server", "PATH", "--model-server"],
        );
    }
    let setup = Setup::new().flag("model-server", "/absent/model_server");
    assert_refused(setup, &["/absent/model_server", "--model-server"]);
    let setup = Setup::new().flag("model-server", "no-such-program");
    assert_refused(setup, &["no-such-program", "PATH", "--model-server"]);
}

#[test]
fn a_model_server_that_cannot_be_executed_is_named() {
    let setup = Setup::new().file("bin/plain", "#!/bin/sh\n");
    let program = setup.path("bin/plain").display().to_string();
    assert_refused(
        setup.flag("model-server", &program),
        &[&program, "ermission denied"],
    );

    let setup = Setup::new().script("bin/garbage", "");
    fs::write(setup.path("bin/garbage"), "\x7fELF and nothing more").unwrap();
    let program = setup.path("bin/garbage").display().to_string();
    assert_refused(setup.flag("model-server", &program), &[&program]);
}

#[test]
fn a_port_in_use_is_named_with_the_setting_that_changes_it() {
    let setup = Setup::new();
    let port = setup.port();
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    assert_refused(setup, &[&port.to_string(), "SAGEMAKER_BIND_TO_PORT"]);
    drop(taken);

    for offset in [1, 2] {
        let setup = Setup::new();
        let port = setup.port() + offset;
        let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let ended = assert_refused(setup, &[&port.to_string(), "SAGEMAKER_SAFE_PORT_RANGE"]);
        assert!(ended.starts.is_empty(), "no model server was started");
    }
}

#[test]
fn an_address_of_another_machine_is_named() {
    // From a range reserved for documentation.
    let setup = Setup::new().flag("listen", "192.0.2.1");
    assert_refused(setup, &["192.0.2.1"]);
}

#[test]
fn an_unusable_tmpdir_is_named() {
    let setup = Setup::new().var("TMPDIR", "/absent/tmp");
    assert_refused(setup, &["/absent/tmp", "TMPDIR"]);
    let setup = Setup::new().file("occupied", "");
    let file = setup.path("occupied").display().to_string();
    assert_refused(setup.var("TMPDIR", &file), &[&file, "TMPDIR"]);
}

/// Images of the flavor `slim` are built without S3.
#[cfg(not(feature = "s3"))]
#[test]
fn a_build_without_s3_refuses_a_handler_from_s3() {
    let setup = Setup::multi_model(1).var("SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET", "bucket");
    assert_refused(
        setup,
        &[
            "SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET",
            "feature s3",
            "flavor python",
        ],
    );
}
