//! A handler script that cannot be loaded ends the start: exit code 1, the reason once, and nothing left behind.

use crate::support::{Ended, Setup};

const HANDLER: &str = "def handler(data, context):\n    return data.read(), 'text/plain'\n";

/// Runs the program and asserts that it ends with a reason that contains all of these texts.
#[track_caller]
pub fn assert_refused(setup: Setup, named: &[&str]) -> Ended {
    let ended = setup.run();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let reason = ended.reason();
    for text in named {
        assert!(reason.contains(text), "{text:?} in {}", ended.stderr);
    }
    ended.assert_nothing_left();
    ended
}

/// Asserts that the reason names the script and shows the traceback once.
#[track_caller]
fn assert_traceback(script: &str, named: &[&str]) {
    let ended = assert_refused(Setup::new().handler(script), named);
    let reason = ended.reason();
    assert!(ended.reasons()[0].contains("model/code/inference.py"));
    assert!(
        !reason.contains("<frozen importlib") && !reason.contains("<sagemaker-tfs>"),
        "the script's own frames only: {reason}"
    );
    let last = named.last().expect("a text");
    let times = ended.stderr.matches(last).count();
    assert_eq!(times, 1, "{last:?} once in {}", ended.stderr);
}

#[test]
fn syntax_errors_are_reported_with_their_line() {
    assert_traceback(
        "def handler(data, context)\n    return 1",
        &[
            "inference.py\", line 1",
            "def handler(data, context)",
            "SyntaxError",
        ],
    );
    assert_traceback("if True:\nprint(1)", &["line 2", "IndentationError"]);
    assert_traceback("x = '\u{0}'", &["SyntaxError", "null byte"]);
}

#[test]
fn exceptions_at_import_are_reported_with_their_traceback() {
    assert_traceback(
        &format!("import numpi\n{HANDLER}"),
        &[
            "Traceback (most recent call last)",
            "line 1, in <module>",
            "hint: add the package that has the module numpi to code/requirements.txt or code/lib",
            "No module named 'numpi'",
        ],
    );
    assert_traceback(
        &format!("def read():\n    raise RuntimeError('no weights here')\nread()\n{HANDLER}"),
        &[
            "Traceback (most recent call last)",
            "line 3, in <module>",
            "line 2, in read",
            "RuntimeError: no weights here",
        ],
    );
    // Frames of modules that the script imports are shown as well.
    let setup = Setup::new()
        .handler(&format!("import helper\n{HANDLER}"))
        .file("model/code/helper.py", "raise KeyError('no helper')");
    assert_refused(
        setup,
        &[
            "inference.py\", line 1",
            "helper.py\", line 1",
            "KeyError: 'no helper'",
        ],
    );
}

#[test]
fn scripts_that_exit_at_import_are_refused() {
    assert_traceback("import sys\nsys.exit(5)", &["line 2", "SystemExit: 5"]);
    assert_traceback("quit()", &["SystemExit"]);
    assert_traceback(
        "raise KeyboardInterrupt('stop')",
        &["KeyboardInterrupt: stop"],
    );
}

#[test]
fn missing_functions_are_named() {
    for (script, named) in [
        (
            "",
            "neither the function handler nor input_handler and output_handler",
        ),
        ("handlers = 1", "neither the function handler"),
        ("def input_handler(d, c): pass", "output_handler is missing"),
        ("def output_handler(r, c): pass", "input_handler is missing"),
        (
            "handler = input_handler = output_handler = None",
            "neither the function handler",
        ),
    ] {
        assert_refused(Setup::new().handler(script), &[named, "inference.py"]);
    }
}

#[test]
fn workers_that_die_at_import_are_reported_with_their_last_output() {
    for (last, named) in [
        ("os._exit(3)", "exited with code 3"),
        ("os._exit(0)", "exited with code 0"),
        ("ctypes.string_at(0)", "terminated by signal 11"),
        ("os.abort()", "terminated by signal 6"),
        ("os.kill(os.getpid(), 9)", "terminated by signal 9"),
    ] {
        let script = format!("import ctypes, os\nprint('so far so good')\n{last}\n{HANDLER}");
        let named = ["inference.py", named, "its last output", "so far so good"];
        assert_refused(Setup::new().handler(&script), &named);
    }
}

/// All workers fail at once, with the same reason.
#[test]
fn several_failing_workers_give_one_reason() {
    let script = "raise ValueError('not today')";
    let setup = Setup::new().handler(script).workers(4);
    let ended = assert_refused(setup, &["ValueError: not today"]);
    let times = ended.stderr.matches("ValueError: not today").count();
    assert_eq!(times, 1, "{}", ended.stderr);
}

/// The script starts processes before it fails.
#[test]
fn a_failing_script_leaves_no_child_processes() {
    let script = "import os, subprocess\n\
                  subprocess.Popen(['sleep', '1000'])\n\
                  if os.fork() == 0:\n    os.execlp('sleep', 'sleep', '1000')\n\
                  raise ValueError('after all that')";
    assert_refused(
        Setup::new().handler(script),
        &["ValueError: after all that"],
    );
}
