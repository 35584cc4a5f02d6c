//! Loading a handler script: its packages are installed first, and its import may take long or fail.

use rustix::process::Signal;
use serde_json::json;

use super::python::edited_python;
use super::refusals::assert_refused;
use crate::support::handlers::answered;
use crate::support::{Setup, processes, wait_for, wait_until};

/// A script whose import waits for the test.
const SLOW: &str = "from meeting import note, wait_at\n\
                    note('begun')\n\
                    wait_at('gate')\n\
                    def input_handler(data, context):\n    return data.read()\n\
                    def output_handler(response, context):\n    return response.content, 'text/plain'\n";

#[test]
fn while_a_script_loads_ping_reports_it_and_requests_wait() {
    let server = Setup::new().handler(SLOW).workers(2).launch();
    server.wait_for_notes(2);
    server.wait_for_log("model half_plus_three is AVAILABLE");
    let ping = server.ping();
    assert_eq!(ping.status, 502);
    for text in ["worker 0: starting", "worker 1: starting"] {
        assert!(ping.error().contains(text), "{}", ping.error());
    }
    assert_eq!(server.get("/execution-parameters").status, 200);
    let pass_through = server.post("/tfs/v1/models/half_plus_three:predict", &[], b"{}");
    assert_eq!(pass_through.status, 200, "{}", pass_through.text());

    let mut waiting: Vec<_> = (0..10)
        .map(|n| (n, server.order(&json!({"n": n}))))
        .collect();
    assert_eq!(server.ping().status, 502);
    assert!(waiting.iter_mut().all(|(_, c)| !c.is_readable()));
    server.open_gate("gate");
    for (n, connection) in &mut waiting {
        answered(connection, &json!({"n": n}));
    }
    server.assert_handlers_serve(2);
}

/// The time limit of calls does not apply to imports.
#[test]
fn an_import_may_take_longer_than_a_call() {
    let server = Setup::new().deadline(1).handler(SLOW).launch();
    server.wait_for_notes(1);
    // Sent after the import began, so the import takes longer than the deadline.
    let response = wait_for("a request times out", || {
        let response = server.invoke("{}");
        (response.status == 504).then_some(response)
    });
    assert!(
        response.error().contains("worker 0: starting"),
        "{}",
        response.error()
    );
    assert_eq!(server.ping().status, 502);
    server.open_gate("gate");
    server.assert_handlers_serve(1);
    assert_eq!(server.notes().len(), 1, "the script was imported once");
}

#[test]
fn a_signal_ends_the_start_while_a_script_loads() {
    let server = Setup::new().handler(SLOW).workers(2).launch();
    server.wait_for_notes(2);
    server.signal(Signal::TERM);
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.assert_nothing_left();
}

/// pip finds no such package, because `--no-index` keeps it from looking anywhere.
const ABSENT: &str = "--no-index\nno-such-package-here==1.0\n";

#[test]
fn a_failed_install_shows_the_end_of_pips_output() {
    let setup = Setup::new()
        .handler(SLOW)
        .file("model/code/requirements.txt", ABSENT);
    let named = [
        "model/code/requirements.txt",
        "exited with code 1",
        "No matching distribution found for no-such-package-here==1.0",
    ];
    assert_refused(setup, &named).assert_nothing_left();
}

#[test]
fn requirements_are_ignored_with_a_warning_if_lib_exists() {
    let server = Setup::new()
        .handler(SLOW)
        .file("model/code/requirements.txt", ABSENT)
        .file("model/code/lib/something.py", "")
        .launch();
    server.wait_for_log("model/code/requirements.txt is ignored");
    server.open_gate("gate");
    server.assert_handlers_serve(1);
}

/// The SageMaker SDK puts a file that it is told to add into `lib`.
#[test]
fn requirements_in_lib_are_installed_if_lib_holds_nothing_else() {
    let setup = Setup::new()
        .handler(SLOW)
        .file("model/code/lib/requirements.txt", ABSENT);
    let named = [
        "model/code/lib/requirements.txt",
        "no-such-package-here==1.0",
    ];
    assert_refused(setup, &named);
}

/// What pip prints after the cause, such as the output of a build, must not hide the cause.
#[test]
fn a_failed_install_shows_the_cause_however_much_follows() {
    let fake = |setup: &Setup| {
        let python = setup.path("bin/python3").display().to_string();
        format!(
            "if [ \"$1\" = -m ]; then\n\
             echo Collecting x\n\
             for n in 1 2 3 4 5 6 7 8 9; do echo \"ERROR: cause $n\"; done\n\
             seq 1 1000; echo 'the end'; exit 1; fi\n{}",
            edited_python(&format!("1s|.*|{python}|"))
        )
    };
    let setup = Setup::new()
        .handler(SLOW)
        .file("model/code/requirements.txt", "x\n");
    let script = fake(&setup);
    let ended = assert_refused(
        setup.script("bin/python3", &script),
        &["ERROR: cause 1", "ERROR: cause 5", "the end"],
    );
    let reason = ended.stderr.split("sagemaker-tfs: ").last().unwrap();
    assert!(
        !reason.contains("cause 6") && !reason.contains("Collecting"),
        "{reason}"
    );
    assert!(reason.lines().count() < 20, "{reason}");
}

/// A script may be in a subfolder; files beside it and those in `code` can be imported.
#[test]
fn a_script_in_a_subfolder_finds_its_modules() {
    for program in ["sub/handler.py", "code/sub/handler.py"] {
        let script = "import beside, shared\n\
                      def handler(data, context):\n    return beside.NAME + shared.NAME, 'text/plain'\n";
        let server = Setup::new()
            .file("model/code/sub/handler.py", script)
            .file("model/code/sub/beside.py", "NAME = 'beside '\n")
            .file("model/code/sub/shared.py", "NAME = 'not this'\n")
            .file("model/code/shared.py", "NAME = 'shared'\n")
            .var("SAGEMAKER_PROGRAM", program)
            .start();
        assert_eq!(server.invoke("{}").text(), "beside shared");
    }
}

/// A `python3` whose pip never ends and has a child process.
fn endless_pip(setup: Setup) -> Setup {
    let fake = setup.path("bin/python3").display().to_string();
    let script = format!(
        "if [ \"$1\" = -m ]; then sleep 1000 & echo 'pip waits'; wait; fi\n\
         {}",
        edited_python(&format!("1s|.*|{fake}|"))
    );
    setup.script("bin/python3", &script)
}

#[test]
fn a_signal_ends_the_start_while_packages_are_installed() {
    for signal in [Signal::TERM, Signal::INT] {
        let setup = Setup::new()
            .handler(SLOW)
            .file("model/code/requirements.txt", "something\n");
        let server = endless_pip(setup).launch();
        server.wait_for_log("pip waits");
        server.signal(signal);
        let ended = server.wait_for_end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.assert_nothing_left();
    }
}

#[test]
fn the_port_is_open_while_packages_are_installed() {
    let setup = Setup::new()
        .handler(SLOW)
        .file("model/code/requirements.txt", "something\n");
    let server = endless_pip(setup).launch();
    server.wait_for_log("pip waits");
    let answer = wait_for("the model is AVAILABLE", || {
        let answer = server.ping();
        let waits_for_pip_alone = answer.text().starts_with(r#"{"error": "no Python worker"#);
        waits_for_pip_alone.then_some(answer)
    });
    assert_eq!(answer.status, 502);
    let what = "(worker 0: installing packages for ";
    assert!(answer.text().contains(what), "{}", answer.text());
    server.signal(Signal::TERM);
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.assert_nothing_left();
}

#[test]
fn killing_pip_fails_the_install() {
    let setup = Setup::new()
        .handler(SLOW)
        .file("model/code/requirements.txt", "something\n");
    let server = endless_pip(setup).launch();
    server.wait_for_log("pip waits");
    let children = processes::children(server.pid());
    let is_pip = |child: &&processes::Process| child.command_line.contains("-m pip");
    let pip = children.iter().find(is_pip).expect("pip runs");
    processes::signal(pip.pid, Signal::KILL);
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for text in ["requirements.txt", "signal 9", "pip waits"] {
        assert!(ended.reason().contains(text), "{}", ended.reason());
    }
    ended.assert_nothing_left();
}

#[test]
fn a_script_may_wait_for_a_pipe_during_its_import() {
    let reading = "import os\n\
                   pipe = os.environ['HERE'] + 'pipe'\n\
                   os.mkfifo(pipe)\n\
                   note(open(pipe).read())";
    let script = SLOW.replace("wait_at('gate')", reading);
    let server = Setup::new().handler(&script).launch();
    server.wait_for_notes(1);
    let reason = wait_for("the port is open", || {
        crate::support::Connection::try_open(server.port()).ok()?;
        Some(server.ping())
    });
    assert_eq!(reason.status, 502);
    wait_until("the pipe exists", || server.path("pipe").exists());
    std::fs::write(server.path("pipe"), "go on").unwrap();
    server.assert_handlers_serve(1);
    assert_eq!(server.notes(), ["begun", "go on"]);
}

/// Of two workers, the first loads; the second waits until the first serves, then fails.
const ONE_OF_TWO: &str = "import os\n\
                          from meeting import note, wait_at\n\
                          try:\n    os.mkdir(os.path.join(os.environ['TMPDIR'], 'first'))\n\
                          except FileExistsError:\n    note('second')\n    wait_at('gate')\n    raise MemoryError('no room')\n\
                          def handler(data, context):\n    return data.read(), 'text/plain'\n";

#[test]
fn a_worker_that_fails_to_load_stops_nothing_while_another_serves() {
    let server = Setup::new().handler(ONE_OF_TWO).workers(2).start();
    server.wait_for_notes(1);
    server.open_gate("gate");
    server.wait_for_log("MemoryError: no room");
    // The second is tried again, and fails again.
    server.wait_for_notes(3);
    let response = server.invoke("{}");
    assert_eq!((response.status, response.text().as_str()), (200, "{}"));
    assert_eq!(server.ping().status, 200);
}
