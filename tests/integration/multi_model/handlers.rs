//! Multi-model mode: handler scripts of single models, and the universal script.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::models::{assert_loaded, assert_unloaded, unload_request};
use crate::support::processes::{self, Process};
use crate::support::{INSTANCES, PREDICTIONS, Server, Setup, request, wait_for, wait_until};

/// Responds with its own name, the text of its helper module, and what it knows of the request.
const DESCRIBING: &str = r#"
import json, os
import helper

def handler(data, context):
    known = {
        "script": "NAME",
        "helper": helper.WHO,
        "body": data.read().decode(),
        "model": context.model_name,
        "version": context.model_version,
        "method": context.method,
        "uri": context.rest_uri,
        "ports": os.environ["TFS_REST_PORTS"],
        "pid": os.getpid(),
    }
    return json.dumps(known), "application/json"
"#;

/// Adds the script `name` to this folder of a model, with its own helper module.
fn add_script(server: &Server, model: &str, folder: &str, name: &str) {
    let script = DESCRIBING.replace("NAME", name);
    server.model_file(model, &format!("{folder}/inference.py"), &script);
    let helper = format!("WHO = {:?}\n", format!("{name}'s own"));
    server.model_file(model, &format!("{folder}/helper.py"), &helper);
}

/// The description that the handler of a model responds with.
#[track_caller]
fn described_by(server: &Server, model: &str) -> Value {
    let response = server.invoke_model(model, "x");
    assert_eq!(response.status, 200, "{model}: {}", response.text());
    serde_json::from_slice(&response.body).expect("JSON")
}

/// Asserts that this script serves a model, and that it sees the model's name and address.
#[track_caller]
fn assert_served_by(server: &Server, model: &str, script: &str) {
    let described = described_by(server, model);
    assert_eq!(described["script"], script, "{described}");
    assert_eq!(
        described["helper"],
        format!("{script}'s own"),
        "{described}"
    );
    assert_eq!(
        (&described["model"], &described["body"]),
        (&json!(model), &json!("x"))
    );
    let port = crate::support::models::rest_port(&server.last_start_of(model));
    let uri = format!("http://localhost:{port}/v1/models/{model}:predict");
    assert_eq!(described["uri"], uri);
}

/// The Python worker of a model.
#[track_caller]
fn worker_of(server: &Server, model: &str) -> Process {
    let folder = format!("/{model}/model/");
    let mut workers = server.python_workers();
    workers.retain(|p| p.command_line.contains(&folder));
    assert_eq!(workers.len(), 1, "{workers:?}");
    workers.remove(0)
}

#[test]
fn each_model_uses_the_script_and_modules_in_its_own_folder() {
    let server = Setup::multi_model(4).start();
    server.add_model("level");
    add_script(&server, "level", "code", "first");
    server.model_file("above", "export/Servo/1/saved_model.pb", "");
    add_script(&server, "above", "code", "second");
    server.model_file("deep", "export/Servo/1/saved_model.pb", "");
    add_script(&server, "deep", "export/Servo/code", "third");
    server.add_model("none");
    for name in ["level", "above", "deep", "none"] {
        server.assert_loads(name);
    }
    for _ in 0..2 {
        assert_served_by(&server, "level", "first");
        assert_served_by(&server, "above", "second");
        assert_served_by(&server, "deep", "third");
        assert_eq!(server.invoke_model("none", INSTANCES).text(), PREDICTIONS);
    }
    assert_eq!(server.python_workers().len(), 3);
    assert!(!server.log().contains("[pip]"), "nothing was installed");
}

/// A folder above the URL may belong to somebody else.
#[test]
fn a_script_above_the_url_is_ignored() {
    let server = Setup::multi_model(1).start();
    server.model_file("m", "net/1/saved_model.pb", "");
    add_script(&server, "m", "code", "above");
    assert_loaded(&server.load_from("m", &(server.url("m") + "/net")), "m");
    assert_eq!(server.invoke_model("m", INSTANCES).text(), PREDICTIONS);
    assert!(server.python_workers().is_empty());
}

#[test]
fn the_universal_script_serves_models_without_their_own() {
    let universal = DESCRIBING.replace("NAME", "universal");
    let setup = Setup::multi_model(3)
        .file("model/code/inference.py", &universal)
        .file("model/code/helper.py", "WHO = \"universal's own\"\n");
    let server = setup.start();
    let pid = server.python_workers()[0].pid;
    server.add_loaded(&["a", "b"]);
    server.add_model("own");
    add_script(&server, "own", "code", "mine");
    server.assert_loads("own");
    assert_served_by(&server, "a", "universal");
    assert_served_by(&server, "b", "universal");
    assert_served_by(&server, "own", "mine");
    assert_eq!(server.python_workers().len(), 2);
    for name in ["a", "own", "b"] {
        server.assert_unloads(name);
    }
    server.assert_no_model_left();
    let left = server.python_workers();
    assert_eq!(left.len(), 1, "the universal worker stays for later models");
    assert_eq!(left[0].pid, pid);
    server.assert_loads("a");
    assert_served_by(&server, "a", "universal");
}

#[test]
fn both_inference_routes_call_the_handler_with_version_and_method() {
    let server = Setup::multi_model(1).start();
    server.add_model("m");
    add_script(&server, "m", "code", "mine");
    server.assert_loads("m");
    let attributes = "tfs-model-version=1,tfs-method=classify,tfs-model-name=m";
    let headers = [("X-Amzn-SageMaker-Custom-Attributes", attributes)];
    for path in ["/models/m/invoke", "/invocations"] {
        let response = server.post(path, &headers, b"");
        let described: Value = serde_json::from_slice(&response.body).expect("JSON");
        let seen = (
            &described["model"],
            &described["version"],
            &described["method"],
        );
        assert_eq!(
            seen,
            (&json!("m"), &json!("1"), &json!("classify")),
            "{described}"
        );
    }
    // The model server's own API bypasses the handler.
    let direct = server.post("/tfs/v1/models/m:predict", &[], INSTANCES);
    assert_eq!(direct.text(), PREDICTIONS);
}

#[test]
fn a_pair_of_handlers_calls_its_own_model() {
    let script = "def input_handler(data, context):\n    return data.read() + b' in'\n\
                  def output_handler(response, context):\n    return response.content + b' out NAME', 'text/plain'\n";
    let server = Setup::multi_model(2).var("FAKE_TFS_ANSWER", "echo").start();
    for name in ["a", "b"] {
        server.add_model(name);
        server.model_file(name, "code/inference.py", &script.replace("NAME", name));
        server.assert_loads(name);
    }
    for name in ["a", "b", "a"] {
        let response = server.invoke_model(name, "x");
        assert_eq!(
            (response.status, response.text()),
            (200, format!("x in out {name}"))
        );
        assert_eq!(response.header("content-type"), Some("text/plain"));
    }
    assert_eq!(server.stat(0, "requests"), 2);
    assert_eq!(server.stat(1, "requests"), 1);
}

/// As without a handler: SageMaker unloads other models after 507, and nothing else.
#[test]
fn an_error_of_the_model_that_a_pair_leaves_to_the_server_becomes_507_if_memory_is_exhausted() {
    let script = "import json\n\n\ndef input_handler(data, context):\n    return data.read()\n\n\n\
                  def output_handler(response, context):\n    \
                      return json.dumps(response.json()['predictions']), 'text/plain'\n";
    for errors in ["pass", "call-or-pass"] {
        let server = Setup::multi_model(1)
            .var("SAGEMAKER_TFS_HANDLER_ERRORS", errors)
            .start();
        server.add_model("m");
        server.model_file("m", "code/inference.py", script);
        server.assert_loads("m");
        for (status, error, expected) in [
            (429, "OOM when allocating tensor", 507),
            (429, "timeout while waiting in batching queue", 429),
            (400, "no", 400),
        ] {
            let answer = json!({"fake": {"status": status, "body": {"error": error}}});
            let response = server.invoke_model("m", answer.to_string());
            assert_eq!(response.status, expected, "{errors}: {}", response.text());
            let begin = if expected == 507 {
                "Memory exhausted: "
            } else {
                error
            };
            assert!(response.error().starts_with(begin), "{}", response.text());
        }
    }
}

#[test]
fn two_instances_of_a_model_share_its_handler() {
    let server = Setup::multi_model(2)
        .var("SAGEMAKER_TFS_INSTANCE_COUNT", 2)
        .var("SAGEMAKER_GUNICORN_WORKERS", 2)
        .start();
    server.add_model("m");
    add_script(&server, "m", "code", "mine");
    server.assert_loads("m");
    assert_eq!(server.model_servers().len(), 2);
    assert_eq!(server.python_workers().len(), 2);
    let ports = format!("{},{}", server.rest_port(0), server.rest_port(1));
    assert_eq!(described_by(&server, "m")["ports"], ports);
    server.assert_unloads("m");
    assert!(server.python_workers().is_empty());
    server.assert_no_model_left();
}

#[test]
fn a_worker_that_dies_affects_only_its_model() {
    let server = Setup::multi_model(2).start();
    for name in ["a", "b"] {
        server.add_model(name);
        add_script(&server, name, "code", name);
        server.assert_loads(name);
    }
    let (old, other) = (worker_of(&server, "a").pid, worker_of(&server, "b").pid);
    processes::signal(old, Signal::KILL);
    assert_served_by(&server, "b", "b");
    assert_eq!(server.ping().status, 200);
    let response = wait_for("the model serves again", || {
        let response = server.invoke_model("a", "x");
        // A call that was just being sent to the worker is lost with it.
        assert!([200, 500].contains(&response.status), "{}", response.text());
        (response.status == 200).then_some(response)
    });
    assert_eq!(response.status, 200);
    assert_served_by(&server, "a", "a");
    assert_ne!(worker_of(&server, "a").pid, old);
    assert_eq!(worker_of(&server, "b").pid, other);
}

#[test]
fn an_unload_waits_for_calls_and_then_ends_the_worker() {
    let waits = "import os, time\n\
                 def handler(data, context):\n    \
                     open(os.environ['HERE'] + '/called', 'w').close()\n    \
                     while not os.path.exists(os.environ['HERE'] + '/gate'): time.sleep(0.005)\n    \
                     return 'done', 'text/plain'\n";
    let setup = Setup::multi_model(2);
    let here = setup.path("").display().to_string();
    let server = setup.var("HERE", here).start();
    server.add_model("m");
    server.model_file("m", "code/inference.py", waits);
    server.assert_loads("m");
    let mut running = server.connect();
    running.send(&request("POST", "/models/m/invoke", &[], b"x"));
    wait_until("the call runs", || server.path("called").exists());
    let mut unload = server.connect();
    unload.send(&unload_request("m"));
    wait_until("the model is no longer loaded", || {
        server.loaded().is_empty()
    });
    assert!(!unload.is_readable());
    server.open_gate("gate");
    assert_eq!(running.response().text(), "done");
    assert_unloaded(&unload.response(), "m");
    assert!(server.python_workers().is_empty());
    server.assert_no_model_left();
}

#[test]
fn a_load_says_which_scripts_have_no_effect() {
    let server = Setup::multi_model(1).start();
    // The name of the folder inside does not count.
    server.model_file("m", "my \u{e9} model/1/saved_model.pb", "");
    server.model_file("m", "my \u{e9} model/1/code/inference.py", "");
    server.model_file("m", "inference.py", "");
    server.assert_loads("m");
    assert_eq!(server.invoke_model("m", INSTANCES).text(), PREDICTIONS);
    let folder = server.url("m");
    let log = server.log();
    for text in [
        format!(
            "model m: {folder}/my \u{e9} model/1/code has no effect: the folder for the handler script is {folder}/code"
        ),
        format!("model m: {folder}/inference.py has no effect"),
    ] {
        assert!(log.contains(&text), "{text} in {log}");
    }
}
