//! Error responses are cut, because TensorFlow Serving up to 2.17 quotes the document in them: 1 MB became 16 MB.

use serde_json::{Value, json};

use crate::support::server::fake;
use crate::support::{INSTANCES, PREDICTIONS, Setup, processes};

/// The longest body of an error response.
const LIMIT: usize = 4096;
const PREDICT: &str = "/tfs/v1/models/half_plus_three:predict";

#[test]
fn a_long_json_error_is_cut_and_stays_json() {
    let server = Setup::new().start();
    for bytes in [4_000, 4_097, 5_000, 100_000, 16 << 20] {
        for status in [400, 500] {
            let body = fake(&json!({"status": status, "error_bytes": bytes}));
            for target in ["/invocations", PREDICT] {
                let response = server.post(target, &[], body.as_bytes());
                assert_eq!(response.status, status);
                assert!(
                    response.body.len() <= LIMIT,
                    "{} bytes",
                    response.body.len()
                );
                let json: Value = serde_json::from_slice(&response.body).expect("valid JSON");
                let text = json["error"].as_str().expect("a text");
                assert!(text.starts_with("JSON Value: "), "{text}");
                assert_eq!(text.contains("error shortened"), bytes > LIMIT, "{text}");
                // The next response does not begin with the rest of the error.
                let next = server.invoke(INSTANCES);
                assert_eq!((next.status, next.text().as_str()), (200, PREDICTIONS));
            }
        }
    }
}

#[test]
fn a_long_error_that_is_not_json_is_cut_between_characters() {
    let server = Setup::new().start();
    for shift in 0..4 {
        let body = format!("{}{}", "x".repeat(shift), "\u{1f600}".repeat(2_000));
        let command = fake(&json!({"status": 404, "body": body}));
        let response = server.post(PREDICT, &[], command.as_bytes());
        assert_eq!(response.status, 404);
        assert!(
            response.body.len() <= LIMIT,
            "{} bytes",
            response.body.len()
        );
        let text = std::str::from_utf8(&response.body).expect("valid UTF-8");
        assert!(text.contains("error shortened"), "{text}");
    }
}

#[test]
fn successful_responses_are_not_cut() {
    let server = Setup::new().var("FAKE_TFS_ANSWER", "echo").start();
    let body = format!("{{\"instances\": [{}1]}}", "1, ".repeat(100_000));
    let response = server.invoke(&body);
    assert_eq!((response.status, response.text().len()), (200, body.len()));
}

#[test]
fn a_long_error_is_not_held_in_memory() {
    let server = Setup::new().start();
    server.assert_serves();
    let body = fake(&json!({"status": 400, "error_bytes": 64 << 20}));
    assert_eq!(server.invoke(&body).status, 400);
    let peak = processes::memory(server.pid(), "VmHWM");
    assert!(peak < 64 << 20, "{peak} bytes");
}

#[cfg(feature = "python")]
#[test]
fn output_handler_gets_the_cut_error() {
    let script = "
import json


def input_handler(data, context):
    return data.read()


def output_handler(response, context):
    length = int(response.headers['content-length'])
    text = json.loads(response.content)['error']
    return json.dumps([response.status_code, len(response.content), length, text]), 'application/json'
";
    let server = Setup::new().handler(script).start();
    let body = fake(&json!({"status": 400, "error_bytes": 1 << 20}));
    let response = server.invoke(&body);
    assert_eq!(response.status, 200, "{}", response.text());
    let seen: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(seen[0], 400);
    assert!(seen[1].as_u64().unwrap() <= LIMIT as u64, "{seen}");
    assert_eq!(seen[1], seen[2]);
    assert!(
        seen[3].as_str().unwrap().contains("error shortened"),
        "{seen}"
    );
}
