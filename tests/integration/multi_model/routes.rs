//! The paths and methods that exist in multi-model mode, and those that exist only there.

use crate::support::{Setup, request};

#[test]
fn other_methods_get_405_with_the_allowed_methods() {
    let server = Setup::multi_model(1).start();
    server.add_loaded(&["m"]);
    for (method, path, allowed) in [
        ("DELETE", "/models", "GET, POST"),
        ("PUT", "/models", "GET, POST"),
        ("POST", "/models/m", "GET, DELETE"),
        ("PUT", "/models/m", "GET, DELETE"),
        ("GET", "/models/m/invoke", "POST"),
        ("DELETE", "/models/m/invoke", "POST"),
        ("GET", "/models/absent/invoke", "POST"),
        ("POST", "/ping", "GET, HEAD"),
        ("GET", "/invocations", "POST"),
    ] {
        let response = server.exchange(&request(method, path, &[], b""));
        assert_eq!(response.status, 405, "{method} {path}: {}", response.text());
        assert_eq!(response.header("allow"), Some(allowed), "{method} {path}");
        assert!(response.error().contains(path), "{}", response.error());
    }
    for (method, path) in [
        ("GET", "/models/"),
        ("DELETE", "/models/"),
        ("POST", "/models//invoke"),
        ("POST", "/v1/models/:predict"),
        ("POST", "/tfs/v1/models/:predict"),
        ("GET", "/tfs/"),
    ] {
        let response = server.exchange(&request(method, path, &[], b""));
        assert_eq!(response.status, 404, "{method} {path}");
        let missing = "The name of the model is missing in the path.";
        assert_eq!(response.error(), missing, "{method} {path}");
    }
    for path in ["/model", "/models2", "/", "/v1/models", "/v2/models/m"] {
        assert_eq!(server.get(path).error(), "Not Found", "{path}");
    }
    assert_eq!(server.loaded(), ["m"]);
}

#[test]
fn single_model_mode_has_no_model_routes() {
    let server = Setup::new().start();
    for (method, path) in [
        ("GET", "/models"),
        ("POST", "/models"),
        ("GET", "/models/half_plus_three"),
        ("DELETE", "/models/half_plus_three"),
        ("POST", "/models/half_plus_three/invoke"),
    ] {
        let response = server.exchange(&request(method, path, &[], b""));
        assert_eq!(
            (response.status, response.error().as_str()),
            (404, "Not Found"),
            "{path}"
        );
    }
    server.assert_serves();
}

/// Names may also be as long as a file name may be, or contain dots.
#[test]
fn models_may_be_named_like_parts_of_the_routes() {
    let names = ["invoke", "models", "0", "v1", "a..b", &"x".repeat(255)];
    let server = Setup::multi_model(6).start();
    server.add_loaded(&names);
    for name in names {
        server.assert_model_serves(name);
        assert_eq!(server.get(&format!("/models/{name}")).status, 200, "{name}");
        assert_eq!(
            server.get(&format!("/tfs/v1/models/{name}")).status,
            200,
            "{name}"
        );
        server.assert_unloads(name);
    }
    server.assert_no_model_left();
}

#[test]
fn the_model_servers_own_api_is_available_below_tfs() {
    let server = Setup::multi_model(2).var("FAKE_TFS_ANSWER", "echo").start();
    server.add_loaded(&["one", "two"]);
    let status = server.get("/tfs/v1/models/one/versions/1");
    assert_eq!(status.status, 200);
    assert!(status.text().contains("AVAILABLE"), "{}", status.text());
    let body = b"{ \"instances\" :[1,\n2]}";
    for path in [
        "/tfs/v1/models/two:predict",
        "/tfs/v1/models/two/versions/1:classify",
    ] {
        let response = server.post(path, &[("Content-Type", "text/csv")], body);
        assert_eq!(
            (response.status, response.body.as_slice()),
            (200, &body[..]),
            "{path}"
        );
    }
    // The model server judges the rest of the path, but the path must name a model.
    assert_eq!(
        server.post("/tfs/v1/models/one:absent", &[], body).status,
        400
    );
    assert_eq!(server.get("/tfs/v1/other").status, 404);
    assert_eq!(server.get("/tfs/").status, 404);
}

#[test]
fn kserve_paths_lead_to_the_loaded_model() {
    let server = Setup::multi_model(2).var("FAKE_TFS_ANSWER", "echo").start();
    server.add_loaded(&["one", "two"]);
    let status = server.get("/v1/models/one/versions/1");
    assert_eq!(status.status, 200);
    assert!(status.text().contains("AVAILABLE"), "{}", status.text());
    let body = b"{ \"instances\" :[1,\n2]}";
    for path in [
        "/v1/models/two:predict",
        "/v1/models/two/versions/1:classify",
    ] {
        let response = server.post(path, &[], body);
        assert_eq!(
            (response.status, response.body.as_slice()),
            (200, &body[..]),
            "{path}"
        );
        assert_eq!(server.last_request().path, path);
    }
    let response = server.post("/v1/models/three:predict", &[], body);
    assert_eq!(response.status, 404);
    assert_eq!(response.error(), "Model three is not loaded yet.");
    server.assert_unloads("two");
    assert_eq!(server.post("/v1/models/two:predict", &[], body).status, 404);
    for path in ["/v2/health/live", "/v2/health/ready"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
}

/// `/ping` reports on the server alone: SageMaker replaces a container whose ping fails, with all its models.
#[test]
fn ping_and_execution_parameters_work_with_and_without_models() {
    let server = Setup::multi_model(1).start();
    for _ in 0..2 {
        let ping = server.ping();
        assert_eq!((ping.status, ping.body.as_slice()), (200, &b""[..]));
        assert_eq!(server.get("/execution-parameters").status, 200);
        if server.loaded().is_empty() {
            server.add_loaded(&["m"]);
        }
    }
}
