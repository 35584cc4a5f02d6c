//! Whole responses in every format.

mod arrays;
mod text;

use super::*;
use crate::budget::Budget;
use crate::convert::signature::{Dtype, Tensor, testing};

const LINES: Accepted = Accepted::JsonLines { ndjson: false };
const CSV: Accepted = Accepted::Csv { header: false };
const TABLE: Accepted = Accepted::Csv { header: true };

/// A response's body on the account of a request with this much memory.
fn body(json: &str, memory: usize) -> Buffer {
    let mut body = Budget::new(memory).arriving(0);
    body.extend(json.as_bytes()).unwrap();
    body
}

fn converted(
    json: &str,
    accepted: Accepted,
    outputs: &[Tensor],
) -> Result<(Buffer, &'static str), RequestError> {
    let signature = testing::signature(Vec::new(), outputs.to_vec());
    let signature = (!outputs.is_empty()).then_some(&*signature);
    lay_out(200, body(json, 1 << 24), accepted, signature)
}

fn text(json: &str, accepted: Accepted) -> String {
    let (body, _) = converted(json, accepted, &[]).unwrap_or_else(|e| panic!("{e}: {json}"));
    String::from_utf8(body.to_vec()).unwrap()
}

#[track_caller]
fn check_status(json: &str, accepted: Accepted, status: u16) {
    let result = converted(json, accepted, &[]);
    let error = result.expect_err(json);
    assert_eq!(error.status, status, "{error} for {json}");
    assert!(error.text.len() < 400, "{error}");
}

const PREDICTIONS: &str = "{\n    \"predictions\": [3.5, 4.0, 5.5\n    ]\n}";

#[test]
fn json_keeps_its_content() {
    let laid_out = |status, json: &str, accepted| {
        let (body, content_type) = lay_out(status, body(json, 1 << 20), accepted, None).unwrap();
        assert_eq!(content_type, "application/json");
        String::from_utf8(body.to_vec()).unwrap()
    };
    let raw = Accepted::Json { one_line: false };
    let line = Accepted::Json { one_line: true };
    assert_eq!(laid_out(200, PREDICTIONS, raw), PREDICTIONS);
    assert_eq!(
        laid_out(200, PREDICTIONS, line),
        "{    \"predictions\": [3.5, 4.0, 5.5    ]}"
    );
    assert_eq!(laid_out(200, "", raw), "");
    let error = "{\n\"error\": \"of \\'instances\\' list\"\n}";
    assert_eq!(
        laid_out(400, error, raw),
        "{\n\"error\": \"of 'instances' list\"\n}"
    );
    for accepted in [line, LINES, CSV, Accepted::Npy] {
        assert_eq!(
            laid_out(400, error, accepted),
            r#"{"error": "of 'instances' list"}"#
        );
        assert_eq!(laid_out(404, error, accepted), error.replace('\n', ""));
    }
}

#[test]
fn content_types_follow_the_format() {
    for (accepted, expected) in [
        (LINES, "application/jsonlines"),
        (Accepted::JsonLines { ndjson: true }, "application/x-ndjson"),
        (CSV, "text/csv"),
        (TABLE, "text/csv; header=present"),
        (Accepted::Npy, "application/x-npy"),
        (Accepted::Npz, "application/x-npz"),
    ] {
        assert_eq!(converted(PREDICTIONS, accepted, &[]).unwrap().1, expected);
    }
    let several = r#"{"predictions": [{"a": 1, "b": 2}]}"#;
    assert_eq!(
        converted(several, Accepted::Npy, &[]).unwrap().1,
        "application/x-npz"
    );
}

#[test]
fn what_is_no_prediction_is_a_bad_gateway() {
    for json in [
        "",
        " ",
        "no JSON",
        "[1, 2]",
        "{}",
        r#"{"error": "x"}"#,
        r#"{"predictions": "#,
        r#"{"predictions": 5}"#,
        r#"{"predictions": {"a": [1]}}"#,
        r#"{"predictions": [1, 2}"#,
        r#"{"predictions": [1 2]}"#,
        r#"{"predictions": [1,, 2]}"#,
        r#"{"predictions": [[1, 2], [3]"#,
        r#"{"predictions": [1, 2]"#,
        r#"{"predictions": [1, 2]} x"#,
        r#"{"predictions": ["a]}"#,
        "{\"predictions\": [\"a\nb\"]}",
        r#"{"predictions": [<script>]}"#,
        r#"{"outputs": {}}"#,
        r#"{"outputs": }"#,
        r#"{"outputs": {"a": [1], "a": [2]}}"#,
        r#"{"outputs": {"a": [1], "b": [2}}"#,
    ] {
        for accepted in [LINES, CSV, TABLE, Accepted::Npy, Accepted::Npz] {
            check_status(json, accepted, 502);
        }
    }
    let deep = format!("{{\"predictions\": [{}", "[".repeat(100_000));
    for accepted in [LINES, CSV, TABLE] {
        check_status(&deep, accepted, 502);
    }
}

#[test]
fn other_members_do_not_matter() {
    let json = r#"{"model": {"a": [1]}, "predictions": [1], "time": [{}], "x": "}"}"#;
    assert_eq!(text(json, LINES), "1\n");
    assert_eq!(text(json, CSV), "1\n");
}

#[test]
fn a_result_without_room_is_no_fault_of_the_request() {
    let json = format!("{{\"predictions\": [{}1]}}", "[1, 2], ".repeat(1000));
    for accepted in [LINES, CSV] {
        let result = lay_out(200, body(&json, json.len()), accepted, None);
        assert_eq!(result.unwrap_err().status, 507);
    }
    // One long string among many short ones: an array gives each as much space.
    let long = format!(
        "{{\"predictions\": [{}\"{}\"]}}",
        "\"\", ".repeat(100_000),
        "a".repeat(100_000)
    );
    let result = lay_out(200, body(&long, 1 << 24), Accepted::Npy, None);
    assert_eq!(result.unwrap_err().status, 507);
    // When it is others that use the memory, the client may try again.
    let budget = Budget::new(1 << 20);
    let mut other = budget.arriving(0);
    other.reserve_exact(900 << 10).unwrap();
    let numbers = format!("{{\"predictions\": [{}1]}}", "1,".repeat(40_000));
    let mut response = budget.arriving(0);
    response.reserve_exact(numbers.len()).unwrap();
    response.extend(numbers.as_bytes()).unwrap();
    let result = lay_out(200, response, Accepted::Npy, None);
    assert_eq!(result.unwrap_err().status, 503);
    drop(other);
}
