//! Multi-model mode: the list of `GET /models` with its pages, and the description of `GET /models/{name}`.

use serde_json::{Value, json};

use crate::support::Setup;
use crate::support::models::{assert_error, assert_not_loaded};

const NONE: [&str; 0] = [];

/// SageMaker asks for the list at the start and fails the endpoint unless it gets 200.
#[test]
fn the_list_is_empty_at_the_start() {
    let server = Setup::multi_model(1).start();
    let response = server.get("/models");
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("application/json"));
    let list: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(list, json!({"models": []}));
    assert_eq!(server.page("?limit=1"), (vec![], None));
}

#[test]
fn a_model_is_listed_with_name_and_url_from_load_to_unload() {
    let server = Setup::multi_model(2).start();
    server.add_loaded(&["b", "a"]);
    let response = server.get("/models");
    let list: Value = serde_json::from_slice(&response.body).unwrap();
    let entry = |name: &str| json!({"modelName": name, "modelUrl": server.url(name)});
    assert_eq!(list, json!({"models": [entry("a"), entry("b")]}));
    server.assert_unloads("a");
    assert_eq!(server.loaded(), ["b"]);
    server.assert_unloads("b");
    assert_eq!(server.loaded(), NONE);
}

#[test]
fn pages_contain_every_model_once() {
    let server = Setup::multi_model(7).start();
    let names = ["A", "a", "a-b", "a.b", "b_2", "b_10", "z"];
    server.add_loaded(&names);
    let mut sorted = names.map(str::to_owned);
    sorted.sort();
    for limit in 1..=8 {
        let (mut seen, mut query) = (Vec::new(), format!("?limit={limit}"));
        loop {
            let (page, token) = server.page(&query);
            assert!(page.len() <= limit);
            seen.extend(page);
            let Some(token) = token else { break };
            assert_eq!(seen.len() % limit, 0, "all pages but the last are full");
            assert!(seen.len() < names.len(), "the last page has no token");
            query = format!("?next_page_token={token}&limit={limit}");
        }
        assert_eq!(seen, sorted, "limit {limit}");
    }
}

#[test]
fn a_page_token_stays_valid_when_models_come_and_go() {
    let server = Setup::multi_model(5).start();
    server.add_loaded(&["a", "b", "c", "d"]);
    let (page, token) = server.page("?limit=2");
    assert_eq!(page, ["a", "b"]);
    let token = token.expect("the last page has no token");
    for name in ["a", "b", "c"] {
        server.assert_unloads(name);
    }
    server.add_loaded(&["e"]);
    let (page, token) = server.page(&format!("?limit=2&next_page_token={token}"));
    assert_eq!((page, token), (vec!["d".to_owned(), "e".to_owned()], None));
    assert_eq!(server.page("?next_page_token=zzz"), (vec![], None));
}

#[test]
fn parameters_may_be_empty_or_unknown() {
    let server = Setup::multi_model(1).start();
    server.add_loaded(&["a"]);
    for query in [
        "?",
        "?limit=",
        "?next_page_token=",
        "?next_page_token=&limit=",
        "?x=1&y",
        "?&&",
    ] {
        assert_eq!(server.page(query), (vec!["a".to_owned()], None), "{query}");
    }
}

#[test]
fn a_limit_that_is_not_a_positive_integer_gets_400() {
    let server = Setup::multi_model(1).start();
    for limit in [
        "0",
        "-1",
        "x",
        "1.5",
        "1e3",
        "99999999999999999999999",
        "%31",
    ] {
        let response = server.get(&format!("/models?limit={limit}"));
        assert_eq!(response.status, 400, "{limit}");
        let error = response.error();
        assert!(error.contains("limit") && error.contains(limit), "{error}");
    }
    assert_eq!(server.page("?limit=18446744073709551615"), (vec![], None));
}

#[test]
fn a_description_has_name_url_and_status() {
    let server = Setup::multi_model(1).start();
    server.model_file("m", "2/saved_model.pb", "");
    server.model_file("m", "5/saved_model.pb", "");
    server.assert_loads("m");
    let response = server.get("/models/m");
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("application/json"));
    let description: Value = serde_json::from_slice(&response.body).unwrap();
    let version = |version: &str| json!({"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}});
    let expected = json!({
        "modelName": "m",
        "modelUrl": server.url("m"),
        "model_version_status": [version("2"), version("5")],
    });
    assert_eq!(description, expected);
    // The current state of the model server, not its state at the load.
    server.control(0, &json!({"state": "UNLOADING"}));
    let description: Value = serde_json::from_slice(&server.get("/models/m").body).unwrap();
    assert_eq!(description["model_version_status"][1]["state"], "UNLOADING");
}

#[test]
fn a_model_that_is_not_loaded_has_no_description() {
    let server = Setup::multi_model(2).start();
    server.add_held_model("held");
    server.add_loaded(&["m"]);
    let mut load = server.begin_load("held");
    server.wait_for_start_of("held", 0);
    for name in ["absent", "held", "M", "m/", "m/x", ".."] {
        assert_not_loaded(&server.get(&format!("/models/{name}")), name);
    }
    let missing = "The name of the model is missing in the path.";
    assert_error(&server.get("/models/"), 404, missing);
    server.order_start("held", "");
    assert_eq!(load.response().status, 200);
    assert_eq!(server.get("/models/held?x=1").status, 200);
    server.assert_unloads("held");
    assert_not_loaded(&server.get("/models/held"), "held");
}
