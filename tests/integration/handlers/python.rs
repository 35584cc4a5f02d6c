//! How the server finds the Python of the handlers and its second executable, and what it reports if one is missing or
//! does not fit.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::refusals::assert_refused;
use crate::support::Setup;

const HANDLER: &str =
    "import sys\ndef handler(data, context):\n    return sys.executable, 'text/plain'\n";

/// The path of the `python3` on PATH, as that Python itself reports it.
pub fn python3() -> String {
    let question = "import sys; print(sys.executable)";
    let output = Command::new("python3").args(["-c", question]).output();
    let output = output.expect("python3 is on PATH").stdout;
    String::from_utf8(output).expect("a path").trim().to_owned()
}

/// A `python3` whose output is edited by this `sed` script.
pub fn edited_python(edit: &str) -> String {
    format!("'{}' -c \"$2\" | sed '{edit}'", python3())
}

#[test]
fn scripts_run_in_the_python3_on_path() {
    let server = Setup::new().handler(HANDLER).start();
    assert_eq!(server.invoke("{}").text(), python3());
}

#[test]
fn a_missing_python3_is_reported() {
    let setup = Setup::new().handler(HANDLER);
    let path = setup.path("bin").display().to_string();
    let ended = assert_refused(
        setup.var("PATH", path),
        &["inference.py", "python3", "PATH"],
    );
    assert!(ended.starts.is_empty(), "no model server was started");
}

#[test]
fn a_different_python_version_is_refused_naming_both_versions() {
    let edit = r"s|^/.*/python3$|/opt/other/python3|; s|^3\.[0-9]*\.[0-9]*$|3.2.1|";
    let setup = Setup::new()
        .handler(HANDLER)
        .script("bin/python3", &edited_python(edit));
    let named = ["built for Python 3.", "/opt/other/python3 is Python 3.2.1"];
    assert_refused(setup, &named);
}

#[test]
fn a_broken_python3_is_reported_with_its_output() {
    let broken = "echo 'cannot find its library' >&2\nexit 127";
    let setup = Setup::new().handler(HANDLER).script("bin/python3", broken);
    let named = ["python3", "127", "cannot find its library"];
    assert_refused(setup, &named);
    let setup = Setup::new()
        .handler(HANDLER)
        .script("bin/python3", "echo '>>>'");
    assert_refused(setup, &["python3", "does not work"]);
}

/// A copy of `sagemaker-tfs` in the test's directory, without the second executable next to it.
fn alone(setup: &Setup) -> PathBuf {
    let copy = setup.path("alone/sagemaker-tfs");
    fs::create_dir_all(setup.path("alone")).expect("folders can be made");
    crate::support::processes::copy_program(env!("CARGO_BIN_EXE_sagemaker-tfs"), &copy);
    copy
}

#[test]
fn a_missing_second_executable_is_reported() {
    let setup = Setup::new().handler(HANDLER);
    let copy = alone(&setup);
    let named = ["sagemaker-tfs-python", "not found", "PATH"];
    assert_refused(setup.program(copy), &named);
}

#[test]
fn the_second_executable_is_also_found_on_path() {
    let setup = Setup::new().handler(HANDLER);
    let copy = alone(&setup);
    let program = env!("CARGO_BIN_EXE_sagemaker-tfs-python");
    std::os::unix::fs::symlink(program, setup.path("bin/sagemaker-tfs-python")).unwrap();
    let server = setup.program(copy).start();
    assert_eq!(server.invoke("{}").text(), python3());
}

#[test]
fn without_a_handler_neither_python_nor_the_second_executable_is_needed() {
    let setup = Setup::new().file("model/code/notes.py", "raise ValueError");
    let copy = alone(&setup);
    let path = setup.path("bin").display().to_string();
    let server = setup.program(copy).var("PATH", path).start();
    server.assert_serves();
}
