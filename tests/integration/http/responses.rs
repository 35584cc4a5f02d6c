//! How responses of TensorFlow Serving reach the client: status, body, content type, and layout by `Accept`.

use serde_json::json;

use crate::support::server::fake;
use crate::support::{INSTANCES, PREDICTIONS, Response, Server, Setup};

const ON_ONE_LINE: &str = "{    \"predictions\": [3.5, 4.0, 5.5    ]}";

fn invoke_accepting(server: &Server, accept: &[&str]) -> Response {
    let headers: Vec<_> = accept.iter().map(|&value| ("Accept", value)).collect();
    server.post("/invocations", &headers, INSTANCES)
}

#[test]
fn accept_decides_the_format_of_the_response() {
    const LINES: &str = "3.5\n4.0\n5.5\n";
    let server = Setup::new().start();
    for (accept, content_type, text) in [
        (&["application/json"][..], "application/json", ON_ONE_LINE),
        (
            &["text/html, Application/JSON;q=0.5"],
            "application/json",
            ON_ONE_LINE,
        ),
        (&["*/*, application/json"], "application/json", ON_ONE_LINE),
        (
            &["application/json,application/jsonlines"],
            "application/json",
            ON_ONE_LINE,
        ),
        (&["application/jsonlines"], "application/jsonlines", LINES),
        (
            &["application/jsonlines, application/json"],
            "application/jsonlines",
            LINES,
        ),
        (&["application/x-ndjson"], "application/x-ndjson", LINES),
        (&["text/csv"], "text/csv", LINES),
        (
            &["text/html, application/json;q=0.4", "text/csv;q=0.5"],
            "text/csv",
            LINES,
        ),
        (
            &["text/csv; header=present"],
            "text/csv; header=present",
            "predictions\n3.5\n4.0\n5.5\n",
        ),
        (&[], "application/json", PREDICTIONS),
        (&[""], "application/json", PREDICTIONS),
        (&["*/*"], "application/json", PREDICTIONS),
        (&["text/html, */*;q=0.1"], "application/json", PREDICTIONS),
    ] {
        let response = invoke_accepting(&server, accept);
        assert_eq!(response.status, 200, "{accept:?}: {}", response.text());
        assert_eq!(response.text(), text, "{accept:?}");
        assert_eq!(
            response.header("content-type"),
            Some(content_type),
            "{accept:?}"
        );
    }
}

#[test]
fn nothing_acceptable_gets_406_before_the_model_works() {
    let server = Setup::new().start();
    for accept in ["text/html", "application/jsonl", "*/*;q=0", "nonsense"] {
        let response = invoke_accepting(&server, &[accept]);
        assert_eq!(response.status, 406, "{accept}");
        assert!(
            response.error().contains("application/jsonlines"),
            "{accept}"
        );
    }
    assert!(server.requests().is_empty());
}

#[test]
fn responses_that_a_format_cannot_express_get_an_error_of_their_own() {
    let server = Setup::new().start();
    for (body, status) in [
        (r#"{"outputs": {"a": [1, 2], "b": [1]}}"#, 406),
        (r#"{"outputs": {"a": 1, "b": 2}}"#, 406),
        (r#"{"predictions": [1, 2"#, 502),
        ("", 502),
        ("<html>", 502),
    ] {
        let command = fake(&json!({"body": body}));
        for accept in ["text/csv", "application/jsonlines"] {
            let response = server.post("/invocations", &[("Accept", accept)], command.as_bytes());
            assert_eq!(
                response.status,
                status,
                "{body} as {accept}: {}",
                response.text()
            );
            assert_eq!(response.header("content-type"), Some("application/json"));
            response.error();
        }
    }
}

#[test]
fn status_and_body_of_tensorflow_serving_are_passed_on() {
    let server = Setup::new().start();
    for status in [200, 400, 404, 429, 500, 501, 503, 504] {
        let body = format!("{{\n    \"error\": \"text for {status}\"\n}}");
        let response = server.invoke_fake(&json!({"status": status, "body": body}));
        assert_eq!(response.status, status);
        assert_eq!(response.text(), body);
        assert_eq!(response.header("content-type"), Some("application/json"));
    }
    assert_eq!(
        server.requests().len(),
        8,
        "an error status is a response: no request is sent again"
    );
}

#[test]
fn errors_are_laid_out_by_accept_too() {
    let server = Setup::new().start();
    let body = fake(&json!({"status": 404, "body": "{\n    \"error\": \"a\\nb\"\n}"}));
    let response = server.post(
        "/invocations",
        &[("Accept", "application/json")],
        body.as_bytes(),
    );
    assert_eq!(
        (response.status, response.text()),
        (404, r#"{    "error": "a\nb"}"#.to_owned())
    );
}

#[test]
fn an_empty_response_is_passed_on() {
    let server = Setup::new().start();
    let response = server.invoke_fake(&json!({"status": 500, "body": ""}));
    assert_eq!((response.status, response.text().as_str()), (500, ""));
}

#[test]
fn escaped_quotes_are_replaced_only_in_a_400() {
    let server = Setup::new().start();
    let escaped = r"Failed to process element: 0 of \'instances\' list. \'instances\'";
    let replaced = "Failed to process element: 0 of 'instances' list. 'instances'";
    for (status, expected) in [
        (400, replaced),
        (200, escaped),
        (404, escaped),
        (500, escaped),
    ] {
        let response = server.invoke_fake(&json!({"status": status, "body": escaped}));
        assert_eq!(
            (response.status, response.text().as_str()),
            (status, expected)
        );
    }
}

#[test]
fn large_responses_arrive_whole() {
    let bytes = 5_000_000;
    let server = Setup::new().var("FAKE_TFS_FIXED_BODY_BYTES", bytes).start();
    let response = server.invoke(INSTANCES);
    assert_eq!(response.status, 200);
    assert!(
        response.body.len() > bytes - 100,
        "{} bytes",
        response.body.len()
    );
    assert!(response.body.ends_with(b", 0.5\n    ]\n}"));

    let response = invoke_accepting(&server, &["application/json"]);
    assert!(!response.body.contains(&b'\n'));
    assert!(response.body.ends_with(b", 0.5    ]}"));
}
