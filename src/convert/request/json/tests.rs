//! Tests of the conversion from JSON.

use super::*;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

fn convert_text(body: &str) -> Result<String, RequestError> {
    let mut body = Buffer::from(body.as_bytes().to_vec());
    assert_eq!(to_tfs(&mut body, &Target::default())?, Conversion::Done);
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

fn converted(body: &str) -> String {
    convert_text(body).unwrap()
}

#[test]
fn leaves_requests_unchanged() {
    for body in [
        r#"{"instances": [1.0, 2.0, 5.0]}"#,
        r#" {"inputs" : {"a": [1]}} "#,
        r#"{"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}]}"#,
        r#"{"inst\u0061nces": []}"#,
        r#"{"a": {"b": [1, "]}"]}, "instances": NaN}"#,
    ] {
        assert_eq!(converted(body), body);
    }
}

#[test]
fn wraps_a_single_value_as_one_instance() {
    for (body, expected) in [
        ("1.5", r#"{"instances": [1.5]}"#),
        ("NaN", r#"{"instances": [NaN]}"#),
        (" \"a\\\"b\" ", r#"{"instances": ["a\"b"]}"#),
        ("[1.0, 2.0, 5.0]", r#"{"instances": [[1.0, 2.0, 5.0]]}"#),
        ("[]", r#"{"instances": [[]]}"#),
        ("{}", r#"{"instances": [{}]}"#),
        ("[[1], 2]", r#"{"instances": [[[1], 2]]}"#),
        ("[[1], {}]", r#"{"instances": [[[1], {}]]}"#),
        (
            r#"{"x": {"instances": 1}}"#,
            r#"{"instances": [{"x": {"instances": 1}}]}"#,
        ),
        (
            r#"{"x": "instances"}"#,
            r#"{"instances": [{"x": "instances"}]}"#,
        ),
    ] {
        assert_eq!(converted(body), expected, "{body}");
    }
}

#[test]
fn wraps_a_list_of_lists_or_objects_as_the_instances() {
    for (body, expected) in [
        (
            "[[1.0, 2.0], [5.0]]",
            r#"{"instances": [[1.0, 2.0], [5.0]]}"#,
        ),
        (
            r#"[{"x": 1},{"x": "]"}]"#,
            r#"{"instances": [{"x": 1},{"x": "]"}]}"#,
        ),
    ] {
        assert_eq!(converted(body), expected, "{body}");
    }
}

#[test]
fn converts_several_values_to_instances_on_lines_or_not() {
    for (body, expected) in [
        (
            "[1.0, 2.0, 5.0]\n[3.0, 4.0, 5.0]\n",
            "[[1.0, 2.0, 5.0], [3.0, 4.0, 5.0]]",
        ),
        ("1 2\t3\r\n4", "[1, 2, 3, 4]"),
        ("[1][2]{\"x\":1}", "[[1], [2], {\"x\":1}]"),
        ("\"a\"\"b\"", "[\"a\", \"b\"]"),
        ("[[1]]\n[[2]]", "[[[1]], [[2]]]"),
    ] {
        assert_eq!(
            converted(body),
            format!("{{\"instances\": {expected}}}"),
            "{body}"
        );
    }
}

#[test]
fn values_may_have_commas_between_them() {
    for (body, expected) in [
        ("1,2,3", "[1, 2, 3]"),
        ("1.0 ,\t2.0,\n5.0\n", "[1.0, 2.0, 5.0]"),
        ("[1],[2]", "[[1], [2]]"),
        ("[1]\n,[2]", "[[1], [2]]"),
        ("\"a,\",\"b\"", "[\"a,\", \"b\"]"),
        (r#"{"x":1},{"x":2}"#, r#"[{"x":1}, {"x":2}]"#),
        ("{\"x\":1},\n{\"x\":2}\n", r#"[{"x":1}, {"x":2}]"#),
        ("[[1]],[[2]]", "[[[1]], [[2]]]"),
        ("null,NaN,true", "[null, NaN, true]"),
        // Where all values have brackets, it is clear what a row is.
        ("[1],[2]\n[3][4],\n{}", "[[1], [2], [3], [4], {}]"),
    ] {
        let expected = format!("{{\"instances\": {expected}}}");
        assert_eq!(converted(body), expected, "{body}");
    }
    assert_eq!(
        converted("{\"instances\": [1]},\n{\"instances\": [2]}"),
        "{\"instances\": [1, 2]}"
    );
}

#[test]
fn refuses_commas_that_do_not_separate_values_clearly() {
    for (body, part) in [
        (",", "a comma with no JSON value"),
        (",1", "a comma with no JSON value"),
        ("1,", "a comma with no JSON value"),
        ("1,,2", "a comma with no JSON value"),
        ("1, ,2", "a comma with no JSON value"),
        ("{\"x\":1},\n{\"x\":2},\n", "a comma with no JSON value"),
        ("{\"instances\": [1]},", "a comma with no JSON value"),
        ("[1],[2],,[3]", "a comma with no JSON value"),
        // CSV that says it is JSON.
        ("1,2\n3,4", "text/csv"),
        ("1 2,3", "text/csv"),
        ("a,b\n1,2", "text/csv"),
        ("[1],[2]\n3", "text/csv"),
        ("{},\"a\" \"b\"", "text/csv"),
    ] {
        let error = convert_text(body).unwrap_err();
        assert_eq!(error.status, 400, "{body}");
        assert!(error.text.contains(part), "{body}: {error}");
    }
}

#[test]
fn joins_several_requests() {
    for (body, expected) in [
        (
            "{\"instances\": [1, 2]}\n{\"instances\": [ 5 ]}{\"instances\":[]}",
            r#"{"instances": [1, 2, 5]}"#,
        ),
        (
            r#"{"instances": []} {"instances": [7]}"#,
            r#"{"instances": [7]}"#,
        ),
        (
            r#"{"signature_name": "s", "instances": [1]} {"instances": [2], "signature_name": "s"}"#,
            r#"{"signature_name": "s", "instances": [1, 2]}"#,
        ),
        (
            r#"{"examples": [{"x": 1}]} {"examples": [{"x": 2}]}"#,
            r#"{"examples": [{"x": 1}, {"x": 2}]}"#,
        ),
    ] {
        assert_eq!(converted(body), expected, "{body}");
    }
}

#[test]
fn returns_400_for_requests_that_cannot_be_joined() {
    for body in [
        r#"{"instances": [1]} {"instances": [2], "signature_name": "s"}"#,
        r#"{"instances": [1], "signature_name": "t"} {"instances": [2], "signature_name": "s"}"#,
        r#"{"inputs": [1]} {"inputs": [2]}"#,
        r#"{"instances": [1]} {"examples": [2]}"#,
        r#"{"instances": [1]} [2]"#,
        r#"[2] {"instances": [1]}"#,
        r#"{"instances": 1} {"instances": 2}"#,
        r#"{"instances": [1], "inputs": [2]} {"instances": [3], "inputs": [2]}"#,
        r#"{"instances": [1], "instances": [2]} {"instances": [1], "instances": [2]}"#,
        r#"{"instances": [1], "ex\u0061mples": []} {"instances": [1], "ex\u0061mples": []}"#,
    ] {
        let error = convert_text(body).unwrap_err();
        assert_eq!(error.status, 400, "{body}");
        assert!(error.text.contains("joined only when"));
    }
}

/// Found by fuzzing: dropping a form feed turned a body that TensorFlow Serving refuses into valid rows.
#[test]
fn drops_only_json_white_space_around_joined_rows() {
    assert_eq!(
        converted("{\"instances\": [\x0c]} {\"instances\": [ \t\n1\r ]}"),
        "{\"instances\": [\x0c, 1]}"
    );
}

#[test]
fn drops_a_byte_order_mark() {
    assert_eq!(
        converted("\u{feff}{\"instances\": []}"),
        "{\"instances\": []}"
    );
    assert_eq!(converted("\u{feff}1"), "{\"instances\": [1]}");
}

/// Many parsers treat a form feed as white space, but JSON does not.
#[test]
fn treats_control_characters_as_parts_of_values() {
    assert_eq!(converted("\x0c"), "{\"instances\": [\x0c]}");
    assert_eq!(converted("1\x0c2 \0"), "{\"instances\": [1\x0c2, \0]}");
    assert_eq!(
        converted("[1]\x0c\n[2]"),
        "{\"instances\": [[1], \x0c, [2]]}"
    );
}

#[test]
fn leaves_broken_bodies_unchanged_for_tensorflow_serving_to_refuse() {
    for body in [
        " ",
        "\n",
        "{",
        "[",
        "[1",
        "[1, [2]",
        "{\"a\"",
        "{\"a\":",
        "{\"a\": 1",
        "\"a",
        "\"a\\",
        "]",
        "}",
        ":",
        "1, 2]",
        "[1],{",
        "{\"a\" 1}",
        "{1: 2}",
        "{\"instances\": [1}",
        "[[1] 2]",
        "[1]]",
        "{\"instances\": [1]} }",
        "[[1],",
        "[{}",
        "\"\\\"",
    ] {
        assert_eq!(converted(body), body);
    }
}

/// Only makes numbers that serde_json prints as it parses them, because the conversion keeps their text.
fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        "[\\x00-\\x7f\u{e9}\u{1f600}]{0,20}".prop_map(Json::from),
        "[\\[\\]{}\",: \\\\]{0,40}".prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::btree_map("[a-z\"\\\\{\\]]{0,6}", inner, 0..6)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

fn is_list_of_one_kind(value: &Json) -> bool {
    value.as_array().is_some_and(|list| {
        !list.is_empty() && (list.iter().all(Json::is_array) || list.iter().all(Json::is_object))
    })
}

proptest! {
    /// Values with commas between them are what a parser reads in a list of them.
    #[test]
    fn reads_values_with_commas_like_a_list(
        values in prop::collection::vec((any_json(), "[ \t\r\n]{0,3}", "[ \t\r\n]{0,3}"), 2..6),
        is_pretty in any::<bool>(),
    ) {
        let texts = values.iter().map(|(value, before, after)| {
            let value = if is_pretty { format!("{value:#}") } else { value.to_string() };
            format!("{before}{value}{after}")
        });
        let body = texts.collect::<Vec<_>>().join(",");
        let list: Json = serde_json::from_str(&format!("[{body}]")).unwrap();
        let output = convert_text(&body).unwrap();
        let output: Json = serde_json::from_str(&output).unwrap();
        prop_assert_eq!(output, json!({ "instances": list }));
    }

    /// Splits any values, on lines or not and pretty or not, where a real parser splits them.
    #[test]
    fn splits_values_like_a_parser(
        values in prop::collection::vec((any_json(), any::<bool>(), "[ \t\r\n]{1,3}"), 1..6),
    ) {
        let mut body = String::new();
        for (value, pretty, space) in &values {
            body += &if *pretty { format!("{value:#}") } else { value.to_string() };
            body += space;
        }
        let parsed: Vec<Json> = serde_json::Deserializer::from_str(&body)
            .into_iter()
            .collect::<Result<_, _>>()
            .unwrap();
        let expected = match parsed.as_slice() {
            [one] if is_list_of_one_kind(one) => json!({ "instances": one }),
            several => json!({ "instances": several }),
        };
        let output = convert_text(&body).unwrap();
        prop_assert_eq!(serde_json::from_str::<Json>(&output).unwrap(), expected);
    }

    /// For any bytes, the conversion does not panic, and a body that is not converted stays unchanged.
    #[test]
    fn converts_any_bytes_or_leaves_them_unchanged(body in "[\\[\\]{}\",:\\\\ a1\n\x00\x0b\x0c\u{a0}]{0,80}") {
        match convert_text(&body) {
            Ok(output) => {
                let converted = output.as_bytes().starts_with(b"{\"instances\": ") || output.ends_with("]}");
                prop_assert!(converted || output == body);
            }
            Err(error) => prop_assert_eq!(error.status, 400),
        }
    }

    /// The scan works in blocks, which must not hide structure at any offset.
    #[test]
    fn finds_structure_at_any_offset(before in 0..70usize, inside in 0..70usize) {
        let body = format!("[{}\"{}]\"]", "1,".repeat(before), "x".repeat(inside));
        let expected = format!("{{\"instances\": [{body}]}}");
        prop_assert_eq!(converted(&body), expected);
    }
}

use crate::convert::request::target::Rows;
use crate::convert::signature::testing::{signature, tensor};
use crate::convert::signature::{Dtype, Tensor};

fn with_inputs(inputs: Vec<Tensor>) -> Target {
    Target {
        signature: Some(signature(inputs, Vec::new())),
        ..Target::default()
    }
}

fn named() -> Target {
    Target {
        signature_name: Some("a\"b".into()),
        ..Target::default()
    }
}

fn convert_for(body: &str, target: &Target) -> Result<String, RequestError> {
    let mut body = Buffer::from(body.as_bytes().to_vec());
    assert_eq!(to_tfs(&mut body, target)?, Conversion::Done);
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

#[test]
fn names_the_signature_unless_the_body_does() {
    for (body, expected) in [
        (
            r#"{"instances": [1]}"#,
            r#"{"signature_name": "a\"b", "instances": [1]}"#,
        ),
        (
            r#" { "inputs": [1] } "#,
            r#" {"signature_name": "a\"b",  "inputs": [1] } "#,
        ),
        (
            r#"{"instances": [1], "signature_name": "s"}"#,
            r#"{"instances": [1], "signature_name": "s"}"#,
        ),
        (
            r#"{"signature_n\u0061me": "s", "instances": [1]}"#,
            r#"{"signature_n\u0061me": "s", "instances": [1]}"#,
        ),
        ("1", r#"{"signature_name": "a\"b", "instances": [1]}"#),
        ("1 2", r#"{"signature_name": "a\"b", "instances": [1, 2]}"#),
        ("[[1]]", r#"{"signature_name": "a\"b", "instances": [[1]]}"#),
        (
            r#"{"instances": [1]} {"instances": [2]}"#,
            r#"{"signature_name": "a\"b", "instances": [1, 2]}"#,
        ),
        (
            r#"{"signature_name": "s", "instances": [1]} {"instances": [2], "signature_name": "s"}"#,
            r#"{"signature_name": "s", "instances": [1, 2]}"#,
        ),
        ("{\"instances\": [1", "{\"instances\": [1"),
    ] {
        assert_eq!(convert_for(body, &named()).unwrap(), expected, "{body}");
    }
}

#[test]
fn finds_the_signature_that_a_request_names() {
    for (body, name) in [
        (
            r#"{"signature_name": "a\u0062", "instances": []}"#,
            Some("ab"),
        ),
        (r#"{"instances": [{"signature_name": "x"}]}"#, None),
        (r#"{"signature_name": 1, "instances": []}"#, None),
        (r#"[{"signature_name": "x", "instances": []}]"#, None),
        ("", None),
        ("{", None),
    ] {
        assert_eq!(signature_name(body.as_bytes()).as_deref(), name, "{body}");
    }
}

#[test]
fn features_are_the_row_of_a_model_with_one_input() {
    let one = with_inputs(vec![tensor("x", Dtype::Float, &[-1, 2])]);
    for (body, expected) in [
        (r#"{"features": [1, 2]}"#, r#"{"instances": [[1, 2]]}"#),
        (
            "{\"features\": [1, 2]}\n{ \"features\" : [3, 4] }\n",
            r#"{"instances": [[1, 2], [3, 4]]}"#,
        ),
        (
            r#"[{"features": [1]}, {"features": [2]}]"#,
            r#"{"instances": [[1], [2]]}"#,
        ),
        (
            r#"[{"features": [1]}, {"x": [2]}]"#,
            r#"{"instances": [[1], {"x": [2]}]}"#,
        ),
        (
            r#"{"features": [1], "y": 1}"#,
            r#"{"instances": [{"features": [1], "y": 1}]}"#,
        ),
        (
            r#"[{"features": [1], "y": 1}]"#,
            r#"{"instances": [{"features": [1], "y": 1}]}"#,
        ),
        (
            r#"{"features": {"features": 1}}"#,
            r#"{"instances": [{"features": 1}]}"#,
        ),
        (r#"{"features": [1]"#, r#"{"features": [1]"#),
    ] {
        assert_eq!(convert_for(body, &one).unwrap(), expected, "{body}");
    }
    let unchanged = r#"{"instances": [{"features": [1]}]}"#;
    for target in [
        Target::default(),
        with_inputs(vec![tensor("features", Dtype::Float, &[-1, 1])]),
        with_inputs(vec![
            tensor("a", Dtype::Float, &[-1]),
            tensor("b", Dtype::Float, &[-1]),
        ]),
    ] {
        assert_eq!(
            convert_for(r#"{"features": [1]}"#, &target).unwrap(),
            unchanged
        );
        assert_eq!(
            convert_for(r#"[{"features": [1]}]"#, &target).unwrap(),
            unchanged
        );
    }
}

#[test]
fn asks_for_the_signature_only_where_it_decides() {
    let deferred = Target {
        is_deferred: true,
        ..Target::default()
    };
    for (body, conversion) in [
        (r#"{"features": [1]}"#, Conversion::NeedsSignature),
        ("1\n{\"features\": [1]}", Conversion::NeedsSignature),
        (r#"[{"features": [1]}]"#, Conversion::NeedsSignature),
        (r#""[1]""#, Conversion::NeedsSignature),
        (r#"{"features": [1], "x": 2}"#, Conversion::Done),
        (r#"{"instances": [{"features": [1]}]}"#, Conversion::Done),
        (r#""text""#, Conversion::Done),
        ("[1, 2]", Conversion::Done),
    ] {
        let mut buffer = Buffer::from(body.as_bytes().to_vec());
        assert_eq!(
            to_tfs(&mut buffer, &deferred).unwrap(),
            conversion,
            "{body}"
        );
        if conversion == Conversion::NeedsSignature {
            assert_eq!(&*buffer, body.as_bytes());
        }
    }
}

#[test]
fn refuses_json_in_a_json_string() {
    let numbers = with_inputs(vec![tensor("x", Dtype::Float, &[-1])]);
    let texts = with_inputs(vec![tensor("s", Dtype::String, &[-1])]);
    let unknown = Target::default();
    let text = |json: &str| serde_json::to_string(json).unwrap();
    for (json, refused_for) in [
        (r#"{"instances": [1]}"#, [true, true, true]),
        (" {\"inputs\": [1]}", [true, true, true]),
        ("[[1, 2]]", [true, false, false]),
        (r#"{"x": 1}"#, [true, false, false]),
        ("[no JSON]", [false, false, false]),
        ("{", [false, false, false]),
        ("plain", [false, false, false]),
        ("7", [false, false, false]),
    ] {
        for (target, is_refused) in [&numbers, &texts, &unknown].into_iter().zip(refused_for) {
            let converted = convert_for(&text(json), target);
            assert_eq!(converted.is_err(), is_refused, "{json} {target:?}");
            match converted {
                Ok(converted) => {
                    assert_eq!(converted, format!("{{\"instances\": [{}]}}", text(json)))
                }
                Err(error) => assert!(error.status == 400 && error.text.contains("encoded twice")),
            }
        }
    }
}

#[test]
fn rows_of_classify_and_regress_are_examples() {
    let target = Target {
        rows: Rows::Examples,
        ..Target::default()
    };
    for (body, expected) in [
        (r#"{"x": 1}"#, r#"{"examples": [{"x": 1}]}"#),
        (
            "{\"x\": 1}\n{\"x\": 2}",
            r#"{"examples": [{"x": 1}, {"x": 2}]}"#,
        ),
        (r#"{"examples": [{"x": 1}]}"#, r#"{"examples": [{"x": 1}]}"#),
    ] {
        assert_eq!(convert_for(body, &target).unwrap(), expected);
    }
}
