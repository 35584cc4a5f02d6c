//! JSON lines and CSV.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

#[track_caller]
fn check(accepted: Accepted, cases: &[(&str, &str)]) {
    for (json, expected) in cases {
        assert_eq!(text(json, accepted), *expected, "{json}");
    }
}

#[test]
fn json_lines_are_one_for_each_instance() {
    check(
        LINES,
        &[
            (PREDICTIONS, "3.5\n4.0\n5.5\n"),
            (r#"{"predictions": []}"#, ""),
            (r#"{"predictions": [[1, 2], [3, 4]]}"#, "[1,2]\n[3,4]\n"),
            (r#"{"predictions": [[[1.0]], [[]]]}"#, "[[1.0]]\n[[]]\n"),
            (
                r#"{"predictions": [NaN, -Infinity, null]}"#,
                "NaN\n-Infinity\nnull\n",
            ),
            (
                r#"{"predictions": ["a b", "\u0000\n\ud800 ]"]}"#,
                "\"a b\"\n\"\\u0000\\n\\ud800 ]\"\n",
            ),
            (
                "{\"predictions\": [{\n  \"b64\": \"YQ==\"\n}, {}]}",
                "{\"b64\":\"YQ==\"}\n{}\n",
            ),
            (
                r#"{"predictions": [{"b": [1, 2], "a": "x"}]}"#,
                "{\"b\":[1,2],\"a\":\"x\"}\n",
            ),
            (
                r#"{"results": [[["a", 0.5], ["b", 0.25]]]}"#,
                "[[\"a\",0.5],[\"b\",0.25]]\n",
            ),
            (r#"{"results": [1.5, 2.5]}"#, "1.5\n2.5\n"),
            (
                "{\"outputs\": [\n  [\n 1,\n 2\n ],\n [3, 4]\n]\n}",
                "[1,2]\n[3,4]\n",
            ),
            (r#"{"outputs": 5.0}"#, "5.0\n"),
            (r#"{"outputs": "a b"}"#, "\"a b\"\n"),
            (r#"{"outputs": {"b64": "YQ=="}}"#, "{\"b64\":\"YQ==\"}\n"),
            (
                r#"{"outputs": {"b": [1, 2], "a": [[3], [4]]}}"#,
                "{\"b\":1,\"a\":[3]}\n{\"b\":2,\"a\":[4]}\n",
            ),
            (
                r#"{"outputs": {"b64": [1], "a\"": ["x "]} }"#,
                "{\"b64\":1,\"a\\\"\":\"x \"}\n",
            ),
            (r#"{"outputs": {"a": [], "b": []}}"#, ""),
        ],
    );
}

#[test]
fn outputs_without_common_rows_are_not_acceptable() {
    for json in [
        r#"{"outputs": {"a": [1, 2], "b": [1]}}"#,
        r#"{"outputs": {"a": [1], "b": [1, 2]}}"#,
        r#"{"outputs": {"a": [1], "b": []}}"#,
        r#"{"outputs": {"a": 1, "b": [1]}}"#,
        r#"{"outputs": {"a": 1, "b": 2}}"#,
    ] {
        for accepted in [LINES, CSV, TABLE] {
            check_status(json, accepted, 406);
        }
    }
}

#[test]
fn csv_has_a_row_for_each_instance() {
    check(
        CSV,
        &[
            (PREDICTIONS, "3.5\n4.0\n5.5\n"),
            (r#"{"predictions": []}"#, ""),
            (r#"{"predictions": [[1, 2], [3, 4]]}"#, "1,2\n3,4\n"),
            (
                r#"{"predictions": [[0.5], [[0.25]], [[[1]], [2]]]}"#,
                "0.5\n0.25\n1,2\n",
            ),
            (
                r#"{"predictions": [[[1, 2], [3, 4]]]}"#,
                "\"[1,2]\",\"[3,4]\"\n",
            ),
            (
                r#"{"predictions": [[[[1, 2]]], [[[1, 2]], 3]]}"#,
                "1,2\n\"[1,2]\",3\n",
            ),
            (
                r#"{"predictions": [true, NaN, -Infinity, null]}"#,
                "true\nNaN\n-Infinity\n\"\"\n",
            ),
            (
                r#"{"predictions": [[null, 1, null], [null], [], [[]]]}"#,
                ",1,\n\"\"\n\"\"\n\"\"\n",
            ),
            (
                r#"{"predictions": ["a b", "a,b", "a\"b", ""]}"#,
                "a b\n\"a,b\"\n\"a\"\"b\"\n\"\"\n",
            ),
            (
                r#"{"predictions": [["\u00e9\ud83d\ude00", "\ud800", "a\nb\r"]]}"#,
                "é😀,\u{fffd},\"a\nb\r\"\n",
            ),
            (
                r#"{"predictions": [["a,", 1], ["", ","], ["", ""]]}"#,
                "\"a,\",1\n,\",\"\n,\n",
            ),
            (
                r#"{"predictions": [{"b64": "YQ=="}, [{"b64": "YQ=="}]]}"#,
                "YQ==\nYQ==\n",
            ),
            (r#"{"predictions": [[1, "a"], ["a", 1]]}"#, "1,a\na,1\n"),
            (
                r#"{"results": [[["a", 0.5], ["b", 0.25]]]}"#,
                "\"[\"\"a\"\",0.5]\",\"[\"\"b\"\",0.25]\"\n",
            ),
            (r#"{"outputs": 5.0}"#, "5.0\n"),
            (
                r#"{"outputs": {"b": [1, 2], "a": [[3], [4, 5]]}}"#,
                "3,1\n\"[4,5]\",2\n",
            ),
            (
                r#"{"predictions": [{"b": 1, "a": "x"}, {"a": [[2]], "b": [1, 2]}]}"#,
                "x,1\n2,\"[1,2]\"\n",
            ),
            (
                r#"{"predictions": [{"b": {"b64": "YQ=="}, "a": []}]}"#,
                "[],YQ==\n",
            ),
        ],
    );
}

#[test]
fn rows_have_the_outputs_of_the_first_row() {
    for json in [
        r#"{"predictions": [{"a": 1, "b": 2}, {"a": 1}]}"#,
        r#"{"predictions": [{"a": 1}, {"a": 1, "b": 2}]}"#,
        r#"{"predictions": [{"a": 1}, {"a": 1, "a": 2}]}"#,
        r#"{"predictions": [{"a": 1}, {"b": 1}]}"#,
        r#"{"predictions": [{"a": 1}, 1]}"#,
        r#"{"predictions": [{}]}"#,
    ] {
        for accepted in [CSV, TABLE, Accepted::Npy, Accepted::Npz] {
            check_status(json, accepted, 502);
        }
    }
}

#[test]
fn header_lines_name_outputs() {
    let float = |name: &str| testing::tensor(name, Dtype::Float, &[-1]);
    for (json, outputs, expected) in [
        (PREDICTIONS, vec![], "predictions\n3.5\n4.0\n5.5\n"),
        (PREDICTIONS, vec![float("y")], "y\n3.5\n4.0\n5.5\n"),
        (
            PREDICTIONS,
            vec![float("y"), float("z")],
            "predictions\n3.5\n4.0\n5.5\n",
        ),
        (
            r#"{"predictions": []}"#,
            vec![float("a,\"b")],
            "\"a,\"\"b\"\n",
        ),
        (
            r#"{"predictions": [[1, 2]]}"#,
            vec![float("y")],
            "y_0,y_1\n1,2\n",
        ),
        (
            r#"{"predictions": [[[[1], [2]]]]}"#,
            vec![],
            "predictions_0,predictions_1\n1,2\n",
        ),
        (r#"{"predictions": [[1]]}"#, vec![], "predictions\n1\n"),
        (r#"{"predictions": [[]]}"#, vec![], "predictions\n\"\"\n"),
        (
            r#"{"results": [[["a", 1]]]}"#,
            vec![],
            "results_0,results_1\na,1\n",
        ),
        (r#"{"outputs": 1}"#, vec![], "outputs\n1\n"),
        (
            r#"{"outputs": {"b": [1], "a\"": [2]}}"#,
            vec![float("y")],
            "\"a\"\"\",b\n2,1\n",
        ),
        (
            r#"{"predictions": [{"b": 1, "a": 2}]}"#,
            vec![],
            "a,b\n2,1\n",
        ),
    ] {
        let (body, _) = converted(json, TABLE, &outputs).unwrap();
        assert_eq!(str::from_utf8(&body).unwrap(), expected, "{json}");
    }
}

#[test]
fn wrong_escapes_are_found_where_strings_are_read() {
    for content in [r"\x", r"\ud8", r"\uzzzz"] {
        let json = format!("{{\"predictions\": [\"{content}\"]}}");
        for accepted in [CSV, Accepted::Npy] {
            check_status(&json, accepted, 502);
        }
    }
}

#[test]
fn deep_nesting_is_converted() {
    let depth = 255;
    let nested = |inside: &str| format!("{}{inside}{}", "[".repeat(depth), "]".repeat(depth));
    let json = format!(
        "{{\"predictions\": [{}, {}]}}",
        nested("1"),
        nested("[1], [2]")
    );
    assert_eq!(text(&json, CSV), "1\n1,2\n");
    assert!(text(&json, LINES).starts_with("[[[["));
    check_status(&json, Accepted::Npy, 406);
}

/// Words are copied in blocks, whatever their lengths.
#[test]
fn long_lists_and_long_words_are_copied_completely() {
    for length in (1..40).chain(250..262).chain([1000]) {
        let long = "1".repeat(length);
        let words: Vec<_> = (0..300)
            .map(|i| {
                if i % 50 == 0 {
                    long.clone()
                } else {
                    "1".repeat(i % 9 + 1)
                }
            })
            .collect();
        let mut json = format!("{{\"predictions\": [[{}]]}}", words.join(", "));
        assert_eq!(text(&json, CSV), words.join(",") + "\n");
        assert_eq!(text(&json, LINES), format!("[{}]\n", words.join(",")));
        json = json.replace(", ", " , ");
        assert_eq!(text(&json, CSV), words.join(",") + "\n");
    }
}

fn scalars() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        "[a\",\n\r\\\\ \u{e9}\\[\\]{}]{0,6}".prop_map(Value::from),
        "[a-z]{0,3}".prop_map(|text| json!({ "b64": text })),
    ]
}

fn values() -> impl Strategy<Value = Value> {
    scalars().prop_recursive(3, 20, 4, |inner| {
        prop::collection::vec(inner, 0..4).prop_map(Value::from)
    })
}

/// The value in lists of one element.
fn unwrapped(value: &Value) -> &Value {
    match value.as_array().map(Vec::as_slice) {
        Some([single]) => unwrapped(single),
        _ => value,
    }
}

/// The text of a field, by its definition.
fn field(value: &Value) -> String {
    match unwrapped(value) {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(members) if members.contains_key("b64") => {
            members["b64"].as_str().unwrap().into()
        }
        other => other.to_string(),
    }
}

fn records(csv: &[u8]) -> Vec<Vec<String>> {
    let mut reader = ::csv::ReaderBuilder::new();
    let mut reader = reader.has_headers(false).flexible(true).from_reader(csv);
    let records = reader.records().map(|record| record.unwrap());
    records
        .map(|record| record.iter().map(str::to_owned).collect())
        .collect()
}

proptest! {
    #[test]
    fn rows_are_those_of_the_definition(rows in prop::collection::vec(values(), 0..5), pretty: bool) {
        let document = json!({ "predictions": rows });
        let json = if pretty { format!("{document:#}") } else { document.to_string() };
        let lines = text(&json, LINES);
        prop_assert!(lines.is_empty() || lines.ends_with('\n'));
        let lines: Vec<_> = lines.lines().collect();
        let expected: Vec<_> = rows.iter().map(Value::to_string).collect();
        prop_assert_eq!(lines, expected);

        let expected: Vec<Vec<String>> = rows.iter().map(|row| match unwrapped(row) {
            Value::Array(list) if list.is_empty() => vec![String::new()],
            Value::Array(list) => list.iter().map(field).collect(),
            other => vec![field(other)],
        }).collect();
        prop_assert_eq!(records(text(&json, CSV).as_bytes()), expected);
    }

    /// Row form and column form of several outputs give the same rows.
    #[test]
    fn columns_are_read_in_lockstep(
        rows in prop::collection::vec((values(), values(), values()), 1..5),
    ) {
        let row_form: Vec<_> = rows.iter().map(|(a, b, c)| json!({"c": c, "a": a, "b\"": b})).collect();
        let column = |get: &dyn Fn(&(Value, Value, Value)) -> Value| rows.iter().map(get).collect::<Vec<_>>();
        let columns = json!({
            "c": column(&|row| row.2.clone()),
            "a": column(&|row| row.0.clone()),
            "b\"": column(&|row| row.1.clone()),
        });
        let row_form = json!({ "predictions": row_form }).to_string();
        let columns = format!("{:#}", json!({ "outputs": columns }));
        prop_assert_eq!(text(&row_form, LINES), text(&columns, LINES));
        for accepted in [CSV, TABLE] {
            prop_assert_eq!(text(&row_form, accepted), text(&columns, accepted));
        }
        let expected: Vec<_> = rows.iter().map(|(a, b, c)| vec![field(a), field(b), field(c)]).collect();
        prop_assert_eq!(records(text(&columns, CSV).as_bytes()), expected);
    }
}
