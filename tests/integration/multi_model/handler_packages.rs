//! Multi-model mode: packages in a model's `lib` or `requirements.txt` are visible only to that model.

use rustix::process::Signal;

use crate::support::{Connection, Server, Setup, processes, wait_until};

/// Responds with the text of its package.
const SCRIPT: &str = r#"
try:
    import greeting
    text = greeting.TEXT
except ImportError:
    text = "no greeting"

def handler(data, context):
    return text, "text/plain"
"#;

/// A build backend without dependencies, so pip needs neither a network nor setuptools.
const BUILD: &str = r#"
import os, zipfile

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = "greeting-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        wheel.write("greeting.py")
        info = "greeting-1.0.dist-info/"
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(info + "RECORD", "")
    return name
"#;

const PROJECT: &str = "[build-system]\nrequires = []\nbuild-backend = \"build\"\nbackend-path = [\".\"]\n\
                       [project]\nname = \"greeting\"\nversion = \"1.0\"\n";

/// Adds a model whose requirements.txt asks for a source package with this text.
fn add_asking(server: &Server, model: &str, text: &str) {
    server.add_model(model);
    let package = format!("TEXT = {text:?}\n");
    for (file, content) in [
        ("code/inference.py", SCRIPT),
        ("source/greeting.py", &package),
        ("source/build.py", BUILD),
        ("source/pyproject.toml", PROJECT),
    ] {
        server.model_file(model, file, content);
    }
    let requirements = format!("--no-index\n{}/source\n", server.url(model));
    server.model_file(model, "code/requirements.txt", &requirements);
}

#[track_caller]
fn assert_greets(server: &Server, model: &str, text: &str) {
    let response = server.invoke_model(model, "x");
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, text),
        "{model}"
    );
}

#[test]
fn packages_from_lib_and_requirements_are_visible_only_to_their_model() {
    let server = Setup::multi_model(4).start();
    add_asking(&server, "asks", "installed for asks");
    add_asking(&server, "asks-too", "installed for asks-too");
    server.add_model("brings");
    server.model_file("brings", "code/inference.py", SCRIPT);
    server.model_file("brings", "code/lib/greeting.py", "TEXT = 'in lib'\n");
    server.add_model("none");
    server.model_file("none", "code/inference.py", SCRIPT);
    let names = ["asks", "asks-too", "brings", "none"];
    let mut loads: Vec<_> = names.iter().map(|name| server.begin_load(name)).collect();
    for (name, load) in names.iter().zip(&mut loads) {
        crate::support::models::assert_loaded(&load.response(), name);
    }
    assert_greets(&server, "asks", "installed for asks");
    assert_greets(&server, "asks-too", "installed for asks-too");
    assert_greets(&server, "brings", "in lib");
    assert_greets(&server, "none", "no greeting");
    assert!(
        !server.model_folder("asks").join("code/lib").exists(),
        "the archive is read-only"
    );
    // A restarted worker finds the packages as well.
    for worker in server.python_workers() {
        processes::signal(worker.pid, Signal::KILL);
    }
    wait_until("the worker is back", || {
        server.invoke_model("asks", "x").status == 200
    });
    assert_greets(&server, "asks", "installed for asks");
    names.iter().for_each(|name| server.assert_unloads(name));
    assert!(server.python_workers().is_empty());
    server.assert_no_model_left();
}

#[test]
fn a_failed_install_fails_the_load_and_frees_everything() {
    let server = Setup::multi_model(1).start();
    server.add_model("m");
    server.model_file("m", "code/inference.py", SCRIPT);
    server.model_file(
        "m",
        "code/requirements.txt",
        "--no-index\nno-such-package==1.0\n",
    );
    let response = server.load("m");
    assert_eq!(response.status, 500, "{}", response.text());
    for text in [
        "code/requirements.txt",
        "exited with code 1",
        "No matching distribution",
        "no-such-package",
    ] {
        assert!(response.error().contains(text), "{}", response.error());
    }
    assert!(response.body.len() <= 2048, "SageMaker shows no more");
    server.assert_no_model_left();
    std::fs::remove_file(server.model_folder("m").join("code/requirements.txt")).unwrap();
    server.assert_loads("m");
    assert_greets(&server, "m", "no greeting");
}

/// Begins to load a model whose package build never ends, and waits until the build has begun.
fn begin_endless_install(server: &Server) -> Connection {
    add_asking(server, "m", "never");
    let slow = "import os, time\n\
                open(os.environ['HERE'] + '/begun', 'w').close()\n\
                while True: time.sleep(0.1)\n";
    server.model_file("m", "source/build.py", slow);
    let mut load = server.begin_load("m");
    wait_until("the package is being installed", || {
        server.path("begun").exists() || load.is_readable()
    });
    load
}

/// Another model can be loaded and used during the install.
#[test]
fn an_install_that_takes_too_long_is_stopped_and_gets_408() {
    let setup = Setup::multi_model(2);
    let here = setup.path("").display().to_string();
    let server = setup
        .var("SAGEMAKER_TFS_WAIT_TIME_SECONDS", 5)
        .var("HERE", here)
        .start();
    let mut load = begin_endless_install(&server);
    server.add_loaded(&["other"]);
    server.assert_model_serves("other");
    let response = load.response();
    assert_eq!(response.status, 408, "{}", response.text());
    server.assert_free_but(&["other"]);
    let left = processes::users_of(&server.model_folder("m"));
    assert!(left.is_empty(), "{left:?}");
    // Files that pip had written are gone, too.
    let tmp = std::fs::read_dir(server.path("tmp")).unwrap();
    assert_eq!(tmp.count(), 1, "only the server's own folder is left");
}

#[test]
fn an_unfinished_install_leaves_nothing_when_the_server_ends() {
    let setup = Setup::multi_model(1);
    let here = setup.path("").display().to_string();
    let server = setup.var("HERE", here).start();
    let load = begin_endless_install(&server);
    server.signal(Signal::TERM);
    server.wait_for_log("stopping");
    // The second signal ends the server at once.
    server.signal(Signal::TERM);
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.assert_nothing_left();
    drop(load);
}
