//! Multi-model mode: the response to `POST /models`, and what a load has set up when it responds.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::models::{assert_error, assert_loaded, grpc_port, load_request, rest_port};
use crate::support::{Server, Setup, request, wait_until};

#[test]
fn a_loaded_model_has_a_process_with_two_ports_from_the_range() {
    let server = Setup::multi_model(3).start();
    server.add_model("a.B_c-1");
    let response = server.load("a.B_c-1");
    let start = server.wait_for_start(0);
    let (rest, grpc) = (rest_port(&start), grpc_port(&start));
    let text = format!(
        "{{\"success\": \"Successfully loaded model a.B_c-1, listening on rest port {rest}, grpc port {grpc}.\"}}"
    );
    assert_eq!((response.status, response.text()), (200, text));
    let range = server.port() + 1..server.port() + 1 + 6;
    assert!(range.contains(&rest) && range.contains(&grpc) && rest != grpc);
    let folder = server.url("a.B_c-1");
    assert_eq!(start.models(), [("a.B_c-1".to_owned(), folder, vec![1])]);
    server.assert_model_serves("a.B_c-1");
    server.assert_free_but(&["a.B_c-1"]);
}

#[test]
fn all_versions_below_the_url_are_served_under_the_requested_name() {
    let server = Setup::multi_model(2).start();
    for (name, folders, base, versions) in [
        ("several", &["1", "0020", "3"][..], "", &[1, 3, 20][..]),
        ("older", &["export/Servo/7"], "/export/Servo", &[7]),
    ] {
        for folder in folders {
            server.model_file(name, &format!("{folder}/saved_model.pb"), "");
        }
        server.assert_loads(name);
        let base = server.url(name) + base;
        let expected = [(name.to_owned(), base, versions.to_vec())];
        assert_eq!(server.last_start_of(name).models(), expected);
        server.assert_model_serves(name);
    }
}

#[test]
fn a_saved_model_without_a_version_folder_is_version_1() {
    let server = Setup::multi_model(1).start();
    server.model_file("lone", "saved_model.pb", "");
    server.assert_loads("lone");
    let (name, base, versions) = server.last_start_of("lone").models().remove(0);
    assert_eq!((name.as_str(), versions.as_slice()), ("lone", &[1][..]));
    let made = std::fs::canonicalize(format!("{base}/1")).expect("the version folder exists");
    assert_eq!(made, server.model_folder("lone").canonicalize().unwrap());
    server.assert_model_serves("lone");
    server.assert_unloads("lone");
    server.assert_no_model_left();
}

/// The quickest of several loads, because the machine may be busy.
#[test]
fn a_load_finishes_soon_after_the_model_server_is_ready() {
    let server = Setup::multi_model(1).start();
    server.add_model("m");
    let times = (0..10).map(|_| {
        let began = Instant::now();
        server.assert_loads("m");
        let time = began.elapsed();
        server.assert_unloads("m");
        time
    });
    let quickest = times.min().expect("some loads");
    // This includes the start of the process.
    assert!(quickest < Duration::from_millis(150), "{quickest:?}");
}

/// Two models may share one folder.
#[test]
fn one_url_may_be_loaded_under_two_names() {
    let server = Setup::multi_model(2).start();
    server.add_model("m");
    for name in ["first", "second"] {
        assert_loaded(&server.load_from(name, &server.url("m")), name);
        server.assert_model_serves(name);
    }
    server.assert_unloads("first");
    server.assert_model_serves("second");
}

#[test]
fn a_second_load_of_a_model_gets_409() {
    let server = Setup::multi_model(3).start();
    server.add_held_model("m");
    let already = "Model m is already loaded.";
    let mut first = server.begin_load("m");
    server.wait_for_start_of("m", 0);
    // While the model is still loading, whatever the URL.
    for _ in 0..3 {
        assert_error(&server.load("m"), 409, already);
        assert_error(&server.load_from("m", "/no/such/place"), 409, already);
    }
    assert!(!first.is_readable(), "the model is not loaded yet");
    assert_eq!(server.loaded(), [""; 0]);
    server.order_start("m", "");
    assert_loaded(&first.response(), "m");
    assert_error(&server.load("m"), 409, already);
    assert_eq!(server.starts().len(), 1);
    server.assert_model_serves("m");
    server.assert_free_but(&["m"]);
}

#[test]
fn one_of_many_simultaneous_loads_of_a_model_succeeds() {
    let server = Setup::multi_model(3).start();
    server.add_held_model("m");
    let mut connections: Vec<_> = (0..8).map(|_| server.connect()).collect();
    let bytes = load_request("m", &server.url("m"));
    connections.iter_mut().for_each(|c| c.send(&bytes));
    wait_until("all other loads have a response", || {
        connections
            .iter_mut()
            .map(|c| c.is_readable())
            .filter(|&is| is)
            .count()
            == 7
    });
    server.order_start("m", "");
    let responses: Vec<_> = connections.iter_mut().map(|c| c.response()).collect();
    let (won, lost): (Vec<_>, Vec<_>) = responses.iter().partition(|a| a.status == 200);
    assert_eq!((won.len(), lost.len()), (1, 7));
    assert_loaded(won[0], "m");
    for response in lost {
        assert_error(response, 409, "Model m is already loaded.");
    }
    assert_eq!(server.starts().len(), 1);
}

#[test]
fn without_free_ports_loads_get_507_until_a_model_is_unloaded() {
    let server = Setup::multi_model(2).start();
    server.add_loaded(&["a", "b"]);
    server.add_model("c");
    for _ in 0..2 {
        let text = "Memory exhausted: no available ports to load the model.";
        assert_error(&server.load("c"), 507, text);
    }
    assert_eq!(server.loaded(), ["a", "b"]);
    server.assert_free_but(&["a", "b"]);
    server.assert_unloads("a");
    server.assert_loads("c");
    assert_eq!(server.loaded(), ["b", "c"]);
    // The last model got the ports of the first.
    assert_eq!(
        rest_port(&server.last_start_of("a")),
        rest_port(&server.last_start_of("c"))
    );
}

/// A model that needs more ports than are free takes none.
#[test]
fn the_instance_count_applies_to_each_model() {
    let server = Setup::multi_model(3)
        .var("SAGEMAKER_TFS_INSTANCE_COUNT", 2)
        .start();
    server.add_loaded(&["a"]);
    assert_eq!(server.starts_of("a").len(), 2);
    assert_eq!(server.model_servers().len(), 2);
    server.add_model("b");
    assert_eq!(server.load("b").status, 507);
    server.assert_model_serves("a");
    server.assert_unloads("a");
    server.assert_loads("b");
    let starts = server.starts_of("b");
    assert_ne!(rest_port(&starts[0]), rest_port(&starts[1]));
    server.assert_unloads("b");
    server.assert_no_model_left();
}

#[test]
fn a_port_in_use_by_another_program_is_skipped() {
    let setup = Setup::multi_model(2);
    let taken = setup.port() + 1;
    let _other = std::net::TcpListener::bind(("127.0.0.1", taken)).expect("our port is free");
    let server = setup.start();
    server.add_loaded(&["a"]);
    assert_eq!(grpc_port(&server.last_start_of("a")), taken + 2);
    server.add_model("b");
    assert_eq!(server.load("b").status, 507);
}

/// Asserts that a load with this body gets 400 with an error that names what is missing.
fn assert_refused(server: &Server, body: &str, named: &str) {
    let response = server.post("/models", &[], body.as_bytes());
    assert_eq!(response.status, 400, "{body}: {}", response.text());
    assert!(
        response.error().contains(named),
        "{body}: {}",
        response.text()
    );
}

#[test]
fn bodies_that_name_no_model_get_400() {
    let server = Setup::multi_model(1).start();
    for body in [
        "",
        "x",
        "[]",
        "1",
        "{\"model_name\": \"m\"",
        "\"m\"",
        "null",
    ] {
        assert_refused(&server, body, "JSON object");
    }
    for body in [
        json!({}),
        json!({"model_name": "m"}),
        json!({"url": "/m"}),
        json!({"model_name": 1, "url": "/m"}),
        json!({"model_name": "m", "url": ["/m"]}),
        json!({"model_name": null, "url": null}),
    ] {
        assert_refused(&server, &body.to_string(), "model_name and url");
    }
    assert!(server.starts().is_empty());
    server.assert_no_model_left();
}

/// SageMaker may send more fields than we know.
#[test]
fn unknown_fields_and_other_content_types_are_accepted() {
    let server = Setup::multi_model(1).start();
    server.add_model("m");
    let padding = "x".repeat(50_000);
    let body = json!({"model_name": "m", "url": server.url("m"), "more": [padding]}).to_string();
    let headers = [("Content-Type", "application/octet-stream")];
    let response = server.exchange(&request("POST", "/models", &headers, body.as_bytes()));
    assert_loaded(&response, "m");
}

#[test]
fn a_url_without_a_model_gets_404_and_leaves_nothing() {
    let server = Setup::multi_model(1).start();
    std::fs::create_dir_all(server.path("model/empty")).unwrap();
    server.model_file("hidden", ".1/saved_model.pb", "");
    server.model_file("file", "saved", "");
    let file = server.url("file") + "/saved";
    for url in [
        "/no/such/place",
        &server.path("model/empty").display().to_string(),
        &server.url("hidden"),
        &server.url("file"),
        &file,
    ] {
        let text = format!("Could not find valid base path {url} for servable m");
        assert_error(&server.load_from("m", url), 404, &text);
    }
    server.assert_no_model_left();
    // The name is still free.
    server.add_model("m");
    server.assert_loads("m");
}

#[test]
fn a_compressed_request_to_load_a_model_is_refused() {
    let server = Setup::multi_model(1).start();
    server.add_model("m");
    let plain = json!({"model_name": "m", "url": server.url("m")}).to_string();
    let post = |encodings: &[&str], body: &[u8]| {
        let encodings = encodings.iter().map(|&name| ("Content-Encoding", name));
        let headers: Vec<_> = encodings
            .chain([("Content-Type", "application/json")])
            .collect();
        server.exchange(&request("POST", "/models", &headers, body))
    };
    let gzip = b"\x1f\x8b\x08\x00 and more";
    for (encodings, body) in [
        (&["gzip"][..], plain.as_bytes()),
        (&["gzip"], gzip),
        (&["identity", "br"], plain.as_bytes()),
        (&[], gzip),
    ] {
        let response = post(encodings, body);
        assert_eq!(response.status, 415, "{encodings:?}: {}", response.text());
        let error = response.error();
        assert!(error.contains("uncompressed"), "{encodings:?}: {error}");
    }
    assert_loaded(&post(&["identity", ""], plain.as_bytes()), "m");
}
