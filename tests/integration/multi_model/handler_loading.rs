//! Multi-model mode: a script that fails to load, or loads too slowly, fails only its own load.

use rustix::process::Signal;

use crate::support::models::{assert_error, assert_loaded};
use crate::support::{Setup, wait_until};

/// A script that works.
const WORKING: &str = "def handler(data, context):\n    return 'works', 'text/plain'\n";

/// Models without their own script need the universal one.
#[test]
fn a_universal_script_that_fails_to_load_ends_the_start() {
    let ended = Setup::multi_model(1)
        .file("model/code/inference.py", "import absent_module\n")
        .run();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(
        ended.reason().contains("absent_module"),
        "{}",
        ended.reason()
    );
    ended.assert_nothing_left();
}

#[test]
fn a_load_gets_500_with_the_traceback_if_its_script_fails() {
    let server = Setup::multi_model(1).start();
    server.add_model("m");
    for (script, named) in [
        (
            "def deep():\n    return 1 / 0\ndeep()\n",
            &["inference.py", "line 2", "ZeroDivisionError"][..],
        ),
        ("import absent_module\n", &["line 1", "absent_module"]),
        ("def handler(\n", &["SyntaxError"]),
        ("x = 1\n", &["neither the function handler nor"]),
        ("import os\nos._exit(3)\n", &["exited with code 3"]),
    ] {
        server.model_file("m", "code/inference.py", script);
        let response = server.load("m");
        assert_eq!(response.status, 500, "{script}: {}", response.text());
        for text in named {
            assert!(
                response.error().contains(text),
                "{script}: {}",
                response.error()
            );
        }
        assert!(response.body.len() <= 2048, "SageMaker shows no more");
        assert!(server.python_workers().is_empty());
        server.assert_no_model_left();
    }
    server.model_file("m", "code/inference.py", WORKING);
    server.assert_loads("m");
    assert_eq!(server.invoke_model("m", "x").text(), "works");
}

/// The first of two workers loads, the other never does; the model can be used.
#[test]
fn a_load_does_not_wait_for_a_failing_worker_if_another_serves() {
    let first_only = "import os, time\n\
                      here = os.environ['HERE']\n\
                      try:\n    os.mkdir(here + '/first')\n\
                      except FileExistsError:\n    \
                          while not os.path.exists(here + '/gate'): time.sleep(0.005)\n    \
                          raise RuntimeError('only one')\n\
                      def handler(data, context):\n    return 'served', 'text/plain'\n";
    let setup = Setup::multi_model(1).var("SAGEMAKER_GUNICORN_WORKERS", 2);
    let here = setup.path("").display().to_string();
    let server = setup.var("HERE", here).start();
    server.add_model("m");
    server.model_file("m", "code/inference.py", first_only);
    let mut load = server.begin_load("m");
    wait_until("one worker is loaded", || {
        server.log().contains(": loaded ")
    });
    server.open_gate("gate");
    assert_loaded(&load.response(), "m");
    assert_eq!(server.invoke_model("m", "x").text(), "served");
    server.assert_unloads("m");
    server.assert_no_model_left();
}

#[test]
fn a_load_gets_507_if_its_script_is_killed() {
    let server = Setup::multi_model(1).start();
    server.add_model("m");
    server.model_file(
        "m",
        "code/inference.py",
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
    );
    let response = server.load("m");
    assert_eq!(response.status, 507, "{}", response.text());
    assert!(server.python_workers().is_empty());
    server.assert_no_model_left();
}

#[test]
fn a_load_gets_408_if_its_script_loads_too_slowly() {
    let server = Setup::multi_model(2)
        .var("SAGEMAKER_TFS_WAIT_TIME_SECONDS", 3)
        .start();
    server.add_model("m");
    server.model_file(
        "m",
        "code/inference.py",
        "import time\nwhile True: time.sleep(0.1)\n",
    );
    let mut load = server.begin_load("m");
    wait_until("the worker is started", || {
        !server.python_workers().is_empty()
    });
    server.add_loaded(&["other"]);
    let text = "Model m could not be loaded within 3 s (SAGEMAKER_TFS_WAIT_TIME_SECONDS).";
    assert_error(&load.response(), 408, text);
    assert!(server.python_workers().is_empty());
    server.assert_free_but(&["other"]);
}

#[test]
fn sigterm_ends_the_workers_of_all_models() {
    let server = Setup::multi_model(3).start();
    for name in ["a", "b"] {
        server.add_model(name);
        server.model_file(name, "code/inference.py", WORKING);
        server.assert_loads(name);
    }
    // A third model is still loading.
    server.add_model("c");
    server.model_file(
        "c",
        "code/inference.py",
        "import time\nwhile True: time.sleep(0.1)\n",
    );
    let _load = server.begin_load("c");
    wait_until("the worker is started", || {
        server.python_workers().len() == 3
    });
    server.signal(Signal::TERM);
    server.wait_for_log("stopping");
    // The second signal ends the server at once.
    server.signal(Signal::TERM);
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.assert_nothing_left();
}
