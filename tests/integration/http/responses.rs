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
fn accept_decides_the_content_type_and_layout_of_the_response() {
    let server = Setup::new().start();
    for (accept, content_type) in [
        ("application/json", "application/json"),
        ("application/jsonlines", "application/jsonlines"),
        (
            "application/jsonlines, application/json",
            "application/jsonlines",
        ),
        ("application/json,application/jsonlines", "application/json"),
        (
            "text/csv, Application/JSONLines;q=0.5, */*",
            "application/jsonlines",
        ),
        ("*/*, application/json", "application/json"),
    ] {
        let response = invoke_accepting(&server, &[accept]);
        assert_eq!(response.status, 200);
        assert_eq!(response.text(), ON_ONE_LINE, "{accept}");
        assert_eq!(
            response.header("content-type"),
            Some(content_type),
            "{accept}"
        );
    }
}

#[test]
fn any_other_accept_leaves_the_body_unchanged() {
    let server = Setup::new().start();
    for accept in [
        &[][..],
        &[""],
        &["*/*"],
        &["text/csv"],
        &["application/jsonl"],
    ] {
        let response = invoke_accepting(&server, accept);
        assert_eq!(response.status, 200);
        assert_eq!(response.text(), PREDICTIONS, "{accept:?}");
        assert_eq!(
            response.header("content-type"),
            Some("application/json"),
            "{accept:?}"
        );
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
