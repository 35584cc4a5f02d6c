//! JSON that is nested too deeply is refused, because TensorFlow Serving's recursive parser would overflow its stack.

#[cfg(feature = "python")]
use serde_json::json;

use crate::support::{INSTANCES, Server, Setup};

/// The deepest nesting that is accepted.
const LIMIT: usize = 512;

/// A model server that dies of JSON nested deeper than the limit.
fn setup() -> Setup {
    Setup::new().var("FAKE_TFS_MAX_DEPTH", LIMIT)
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

/// A request whose deepest value is at this depth.
fn instances(depth: usize) -> String {
    format!("{{\"instances\": {}}}", nested(depth - 1))
}

#[track_caller]
fn assert_refused(server: &Server, target: &str, content_type: &str, body: &str) {
    let response = server.post(target, &[("Content-Type", content_type)], body.as_bytes());
    let start = &body[..body.len().min(40)];
    assert_eq!(response.status, 400, "{start}: {}", response.text());
    let text = response.error();
    assert!(text.contains("nested") && text.contains("512"), "{text}");
}

#[test]
fn json_nested_deeper_than_512_does_not_reach_tensorflow_serving() {
    let server = setup().start();
    let predict = "/tfs/v1/models/half_plus_three:predict";
    let json = "application/json";
    for target in ["/invocations", predict] {
        assert_refused(&server, target, json, &instances(LIMIT + 1));
        assert_refused(&server, target, json, &instances(20_000));
        // Never closed; in another member; after a string that looks like the end.
        for body in [
            format!("{{\"instances\": {}", "[".repeat(LIMIT)),
            format!("{{\"instances\": [1], \"x\": {}}}", nested(LIMIT)),
            format!(
                "{{\"a\": \"]}}\\\\\\\"]}}\", \"instances\": {}}}",
                nested(LIMIT)
            ),
            "{\"a\":".repeat(LIMIT + 1),
        ] {
            assert_refused(&server, target, json, &body);
        }
        let body = instances(LIMIT);
        let response = server.post(target, &[("Content-Type", json)], body.as_bytes());
        assert_eq!(response.status, 200, "{}", response.text());
    }
    assert_eq!(server.starts().len(), 1);
    server.assert_serves();
}

/// Brackets that the conversion adds count, too.
#[test]
fn json_nested_too_deeply_after_conversion_is_refused() {
    let server = setup().start();
    let json = "application/json";
    assert_refused(&server, "/invocations", json, &nested(LIMIT));
    let lines = format!("1\n{}\n", nested(LIMIT - 1));
    assert_refused(&server, "/invocations", "application/jsonlines", &lines);
    for (content_type, body) in [
        (
            "application/jsonlines",
            format!("1\n{}\n", nested(LIMIT - 2)),
        ),
        ("text/csv", format!("{}\n", "[".repeat(2 * LIMIT))),
    ] {
        let response = server.post(
            "/invocations",
            &[("Content-Type", content_type)],
            body.as_bytes(),
        );
        assert_eq!(response.status, 200, "{}", response.text());
    }
    assert_eq!(server.starts().len(), 1);
}

#[test]
fn brackets_in_strings_do_not_count() {
    let server = setup().start();
    let predict = "/tfs/v1/models/half_plus_three:predict";
    let many = "[{".repeat(LIMIT);
    let body = format!("{{\"instances\": [\"{many}\\\"{many}\"]}}");
    assert_eq!(server.post(predict, &[], body.as_bytes()).status, 200);
    assert_eq!(server.invoke(INSTANCES).status, 200);
}

#[cfg(feature = "python")]
#[test]
fn json_nested_too_deeply_by_input_handler_is_refused() {
    let script = "
def input_handler(data, context):
    data.read()
    return '{\"instances\": ' + '[' * 40000 + ']' * 40000 + '}'


def output_handler(response, context):
    return response.content, 'application/json'
";
    let server = setup().handler(script).start();
    let response = server.invoke(json!({"n": 1}).to_string());
    assert_eq!(response.status, 400, "{}", response.text());
    assert!(response.error().contains("512"), "{}", response.error());
    assert_eq!(server.starts().len(), 1);
}
