//! Multi-model mode: inference with a loaded model, on all routes.

use serde_json::json;

use crate::support::models::{assert_error, assert_not_loaded};
use crate::support::server::fake;
use crate::support::{INSTANCES, PREDICTIONS, Server, Setup};

const ATTRIBUTES: &str = "X-Amzn-SageMaker-Custom-Attributes";
const TARGET: &str = "X-Amzn-SageMaker-Target-Model";

/// A server with two models, which echo their requests.
fn start() -> Server {
    let server = Setup::multi_model(2).var("FAKE_TFS_ANSWER", "echo").start();
    server.add_loaded(&["one", "two"]);
    server
}

#[test]
fn invoke_converts_bodies_as_invocations_does() {
    let server = start();
    for (content_type, body, converted) in [
        (
            "application/json",
            &b"{\"instances\": [1]}"[..],
            "{\"instances\": [1]}",
        ),
        (
            "Application/JSON; charset=utf-8",
            b"{\"inputs\": 1}",
            "{\"inputs\": 1}",
        ),
        ("application/json", b"[[1, 2]]", "{\"instances\": [[1, 2]]}"),
        ("application/json", b"7", "{\"instances\": [7]}"),
        ("application/json", b"", ""),
        (
            "application/jsonlines",
            b"[1]\n[2]\n",
            "{\"instances\": [[1], [2]]}",
        ),
        (
            "application/jsons",
            b"{\"x\": 1}{\"x\": 2}",
            "{\"instances\": [{\"x\": 1}, {\"x\": 2}]}",
        ),
        (
            "text/csv",
            b"1,a\n.5,\"2\"\n",
            "{\"instances\": [[1,\"a\"],[0.5,\"2\"]]}",
        ),
        (
            "image/png",
            b"\x89PNG\xff",
            "{\"instances\": [{\"b64\": \"iVBOR/8=\"}]}",
        ),
        (
            "application/x-image",
            b"x",
            "{\"instances\": [{\"b64\": \"eA==\"}]}",
        ),
    ] {
        for path in ["/models/one/invoke", "/invocations"] {
            let headers = [("Content-Type", content_type), (TARGET, "one")];
            let response = server.post(path, &headers, body);
            assert_eq!(
                (response.status, response.text().as_str()),
                (200, converted),
                "{content_type} {body:?}"
            );
        }
    }
    for (content_type, body, status) in [
        ("application/foo", &b"x"[..], 415),
        ("text/csv", b"\xff", 400),
        (
            "application/jsonlines",
            b"{\"inputs\": 1}\n{\"inputs\": 2}",
            400,
        ),
    ] {
        let response = server.post(
            "/models/one/invoke",
            &[("Content-Type", content_type)],
            body,
        );
        assert_eq!(
            response.status,
            status,
            "{content_type}: {}",
            response.text()
        );
        response.error();
    }
}

#[test]
fn accept_selects_layout_and_content_type() {
    let server = Setup::multi_model(1).start();
    server.add_loaded(&["m"]);
    let response = |headers: &[(&str, &str)]| server.post("/models/m/invoke", headers, INSTANCES);
    let plain = response(&[]);
    assert_eq!((plain.status, plain.text().as_str()), (200, PREDICTIONS));
    assert_eq!(plain.header("content-type"), Some("application/json"));
    let lines = response(&[("Accept", "application/jsonlines")]);
    assert_eq!(lines.text(), "3.5\n4.0\n5.5\n");
    assert_eq!(lines.header("content-type"), Some("application/jsonlines"));
    let other = response(&[("Accept", "text/html")]);
    assert_eq!(other.status, 406);
}

/// Sends a request and returns the path that reached the model server.
#[track_caller]
fn path_of(server: &Server, target: &str, headers: &[(&str, &str)]) -> String {
    let before = server.requests();
    let response = server.post(target, headers, INSTANCES);
    assert_eq!(response.status, 200, "{headers:?}: {}", response.text());
    let mut new = server.requests();
    // `requests` lists those of one model server after another, so the new one need not be last.
    new.retain(|request| !before.contains(request));
    assert_eq!(new.len(), 1);
    new.remove(0).path
}

#[test]
fn attributes_select_version_and_method_but_not_another_model() {
    for (attributes, path) in [
        ("tfs-model-version=3", "/v1/models/one/versions/3:predict"),
        ("tfs-method=classify", "/v1/models/one:classify"),
        (
            "a=b,tfs-method=regress,tfs-model-version=12",
            "/v1/models/one/versions/12:regress",
        ),
        ("tfs-model-name=two", "/v1/models/one:predict"),
        ("other=attribute", "/v1/models/one:predict"),
    ] {
        let server = Setup::multi_model(2).start();
        for version in ["3", "12"] {
            server.model_file("one", &format!("{version}/saved_model.pb"), "");
        }
        server.add_loaded(&["one", "two"]);
        let headers = [(ATTRIBUTES, attributes)];
        assert_eq!(path_of(&server, "/models/one/invoke", &headers), path);
    }
}

#[test]
fn invalid_attributes_get_400_and_absent_versions_get_the_model_servers_404() {
    let server = start();
    for attributes in ["tfs-method=x", "tfs-model-version=x", "tfs-model-name=../x"] {
        let response = server.post("/models/one/invoke", &[(ATTRIBUTES, attributes)], INSTANCES);
        assert_eq!(response.status, 400, "{attributes}: {}", response.text());
        response.error();
    }
    let response = server.post(
        "/models/one/invoke",
        &[(ATTRIBUTES, "tfs-model-version=9")],
        INSTANCES,
    );
    assert_eq!(response.status, 404);
    assert!(
        response.error().contains("Specific(one, 9)"),
        "{}",
        response.error()
    );
}

#[test]
fn invocations_name_their_model_in_a_header() {
    let server = Setup::multi_model(2).start();
    server.add_loaded(&["one", "two"]);
    for (headers, model) in [
        (&[(TARGET, "one")][..], "one"),
        (&[(ATTRIBUTES, "tfs-model-name=two")], "two"),
        // The platform's header takes precedence over the client's.
        (
            &[(TARGET, "one"), (ATTRIBUTES, "tfs-model-name=two")],
            "one",
        ),
    ] {
        let before = server.requests().len();
        let response = server.post("/invocations", headers, INSTANCES);
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, PREDICTIONS)
        );
        assert_eq!(server.requests().len(), before + 1);
        let start = server.last_start_of(model);
        let instance = server.instance_of(&start);
        assert!(server.stat(instance, "requests") > 0);
    }
    assert_eq!(server.stat(0, "requests"), 2);
    assert_eq!(server.stat(1, "requests"), 1);
}

#[test]
fn invocations_that_name_no_model_get_400() {
    let server = start();
    for headers in [&[][..], &[(ATTRIBUTES, "tfs-method=predict")]] {
        let response = server.post("/invocations", headers, INSTANCES);
        let text = "The request names no model: send the header X-Amzn-SageMaker-Target-Model or the custom attribute \
                    tfs-model-name.";
        assert_error(&response, 400, text);
    }
}

#[test]
fn models_that_are_not_loaded_get_404_on_every_route() {
    let server = start();
    server.add_held_model("held");
    server.assert_unloads("two");
    let mut load = server.begin_load("held");
    server.wait_for_start_of("held", 0);
    for name in ["absent", "two", "held", "ONE"] {
        assert_not_loaded(&server.invoke_model(name, INSTANCES), name);
        assert_not_loaded(
            &server.post("/invocations", &[(TARGET, name)], INSTANCES),
            name,
        );
        let attributes = format!("tfs-model-name={name}");
        assert_not_loaded(
            &server.post("/invocations", &[(ATTRIBUTES, &attributes)], INSTANCES),
            name,
        );
        assert_not_loaded(&server.get(&format!("/tfs/v1/models/{name}")), name);
        let path = format!("/tfs/v1/models/{name}:predict");
        assert_not_loaded(&server.post(&path, &[], INSTANCES), name);
    }
    for name in ["one/two", "%6Fne", ".."] {
        assert_not_loaded(&server.invoke_model(name, INSTANCES), name);
    }
    server.order_start("held", "");
    assert_eq!(load.response().status, 200);
    server.assert_model_serves("held");
}

/// Programs differ in which of several headers they read.
#[test]
fn several_target_headers_must_name_the_same_model() {
    let server = start();
    let invoke = |values: &[&str]| {
        let mut headers: Vec<_> = values.iter().map(|&value| (TARGET, value)).collect();
        headers.push((ATTRIBUTES, "tfs-model-name=two"));
        server.post("/invocations", &headers, INSTANCES)
    };
    for (values, model) in [
        (&["one"][..], "one"),
        (&["one", "", "one"], "one"),
        (&[""], "two"),
    ] {
        let response = invoke(values);
        assert_eq!(response.status, 200, "{values:?}: {}", response.text());
        let path = format!("/v1/models/{model}:predict");
        assert_eq!(server.last_request().path, path, "{values:?}");
    }
    let response = invoke(&["one", "two"]);
    assert_eq!(response.status, 400);
    assert!(response.error().contains(TARGET), "{}", response.text());
}

/// SageMaker unloads other models after 507. TensorFlow Serving uses the status of exhausted memory also for requests
/// that waited too long.
#[test]
fn exhausted_memory_becomes_507_but_a_full_or_slow_queue_does_not() {
    let server = Setup::multi_model(1).start();
    server.add_loaded(&["m"]);
    let response = |status: u16, error: &str| {
        let body = json!({"error": error});
        server.invoke_model("m", fake(&json!({"status": status, "body": body})))
    };
    let exhausted = response(
        429,
        "OOM when allocating tensor with shape[9,9] and type float",
    );
    assert_eq!(exhausted.status, 507, "{}", exhausted.text());
    assert!(
        exhausted.error().starts_with("Memory exhausted: "),
        "{}",
        exhausted.text()
    );
    for (status, error) in [
        (
            429,
            "Run() timeout exceeded while waiting in batching queue",
        ),
        (
            503,
            "The batch scheduling queue to which this task was submitted is full",
        ),
    ] {
        let queue = response(status, error);
        assert_eq!(queue.status, status, "{}", queue.text());
        assert_eq!(queue.error(), error);
    }
}

#[test]
fn twenty_megabytes_come_back_unchanged() {
    let server = start();
    let body = format!("{{\"instances\": [{}0]}}", "0.125, ".repeat(20_000_000 / 7));
    let response = server.invoke_model("two", &body);
    assert_eq!(response.status, 200);
    assert!(
        response.body == body.as_bytes(),
        "the body came back changed"
    );
}
