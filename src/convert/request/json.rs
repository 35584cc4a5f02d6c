//! Converts JSON bodies: a request to TensorFlow Serving stays unchanged, and any other values become its `instances`.
//!
//! Only the structure is scanned (strings, nesting). Validating values is left to TensorFlow Serving, whose messages
//! clients expect. For the same reason a body whose structure is broken stays unchanged.

use std::ops::Range;

use crate::budget::{Buffer, NoRoom};
use crate::error::RequestError;

mod scan;

use scan::{Broken, Shape, Value, Values, is_key, is_main_key, trim_space};

/// Maximum number of members, apart from the rows, in a request that is joined with others. TensorFlow Serving knows
/// one such member.
const MAX_JOINED_MEMBERS: usize = 16;

/// Converts a JSON, JSON lines or JSONs body into the body of a request to TensorFlow Serving.
///
/// # Errors
/// 400 when the body contains several requests to TensorFlow Serving that cannot be joined into one; 413 or 503 when no
/// memory is left for the conversion.
pub fn to_tfs(body: &mut Buffer) -> Result<(), RequestError> {
    if body.starts_with(b"\xef\xbb\xbf") {
        body.consume(3); // a byte order mark, which TensorFlow Serving does not accept
    }
    match convert(body) {
        Ok(Change::None) | Err(Failure::Broken) => Ok(()),
        Ok(Change::Wrap(value, before, after)) => Ok(wrap(body, value, before, after)?),
        Ok(Change::Replace(converted)) => {
            *body = converted;
            Ok(())
        }
        Err(Failure::NoRoom(why)) => Err(why.into()),
        Err(Failure::NotJoinable) => Err(RequestError::bad_request(
            "The body holds several values, and at least one of them is a request to TensorFlow Serving. Several \
             requests are joined only when all have their rows under the same key, 'instances' or 'examples', and all \
             their other members (such as 'signature_name') are the same; send these requests one at a time.",
        )),
    }
}

#[derive(Debug)]
enum Failure {
    /// The structure is not JSON.
    Broken,
    /// The body contains several values, some of them requests that cannot be joined.
    NotJoinable,
    NoRoom(NoRoom),
}

impl From<NoRoom> for Failure {
    fn from(no_room: NoRoom) -> Self {
        Self::NoRoom(no_room)
    }
}

impl From<Broken> for Failure {
    fn from(_: Broken) -> Self {
        Self::Broken
    }
}

/// The change that makes a body a request to TensorFlow Serving.
enum Change {
    None,
    /// Keep the value in this range, with these texts before and after it.
    Wrap(Range<usize>, &'static [u8], &'static [u8]),
    Replace(Buffer),
}

const INSTANCES: &[u8] = b"{\"instances\": ";
const INSTANCES_LIST: &[u8] = b"{\"instances\": [";

fn convert(body: &Buffer) -> Result<Change, Failure> {
    let mut values = Values { body, at: 0 };
    let Some(first) = values.next_value()? else {
        return Ok(Change::None);
    };
    let Some(second) = values.next_value()? else {
        return Ok(match &first.shape {
            Shape::Request => Change::None,
            Shape::Instances => Change::Wrap(first.range, INSTANCES, b"}"),
            Shape::Instance => Change::Wrap(first.range, INSTANCES_LIST, b"]}"),
        });
    };
    let mut out = body.sibling();
    // A little more than the body, because commas replace the white space between values.
    let likely = INSTANCES_LIST.len() + body.len() + body.len() / 8 + 16;
    out.reserve_likely(likely, body.len())?;
    if matches!(first.shape, Shape::Request) {
        join(body, &first, second, values, &mut out)?;
        return Ok(Change::Replace(out));
    }
    out.extend(INSTANCES_LIST)?;
    out.extend(first.text(body))?;
    let mut next = Some(second);
    while let Some(value) = next {
        if matches!(value.shape, Shape::Request) {
            return Err(Failure::NotJoinable);
        }
        out.extend(b", ")?;
        out.extend(value.text(body))?;
        next = values.next_value()?;
    }
    out.extend(b"]}")?;
    Ok(Change::Replace(out))
}

/// Reduces the body to one value, with these texts before and after it. Works in place, without a copy of a large body.
fn wrap(body: &mut Buffer, value: Range<usize>, before: &[u8], after: &[u8]) -> Result<(), NoRoom> {
    let length = value.len();
    body.bytes_mut().truncate(value.end);
    body.consume(value.start);
    body.reserve_exact(before.len() + after.len())?;
    let bytes = body.bytes_mut();
    bytes.resize(before.len() + length, 0);
    bytes.copy_within(..length, before.len());
    bytes[..before.len()].copy_from_slice(before);
    bytes.extend_from_slice(after);
    Ok(())
}

/// Joins several requests into one with the members of the first and the rows of all.
fn join(
    body: &[u8],
    first: &Value,
    second: Value,
    mut values: Values,
    out: &mut Buffer,
) -> Result<(), Failure> {
    let first = Request::parse(first.text(body))?;
    let first_rows = first.rows()?;
    out.extend(b"{")?;
    for (key, value) in &first.others {
        for text in [key, &b": "[..], value, b", "] {
            out.extend(text)?;
        }
    }
    out.extend(first.main.0)?;
    out.extend(b": [")?;
    out.extend(first_rows)?;
    let mut empty = first_rows.is_empty();

    let mut next = Some(second);
    while let Some(value) = next {
        let Shape::Request = value.shape else {
            return Err(Failure::NotJoinable);
        };
        let request = Request::parse(value.text(body))?;
        if !request.is_alike(&first) {
            return Err(Failure::NotJoinable);
        }
        let rows = request.rows()?;
        if !rows.is_empty() {
            out.extend(if empty { b"" } else { b", " })?;
            out.extend(rows)?;
            empty = false;
        }
        next = values.next_value()?;
    }
    out.extend(b"]}")?;
    Ok(())
}

/// The key and value of an object's member, as they appear in the body.
type Member<'a> = (&'a [u8], &'a [u8]);

/// An object that is a request to TensorFlow Serving because of one of its keys.
struct Request<'a> {
    /// `instances`, `inputs` or `examples`.
    main: Member<'a>,
    others: Vec<Member<'a>>,
}

impl<'a> Request<'a> {
    /// Parses a request that is to be joined with others.
    fn parse(text: &'a [u8]) -> Result<Self, Failure> {
        let mut values = Values { body: text, at: 0 };
        let (mut main, mut others) = (None, Vec::new());
        values.each_member(|key, value| {
            if main.is_none() && is_main_key(key) {
                main = Some((key, value));
            } else if others.len() < MAX_JOINED_MEMBERS {
                others.push((key, value));
            } else {
                return Err(Failure::NotJoinable);
            }
            Ok(())
        })?;
        let main = main.ok_or(Failure::NotJoinable)?;
        Ok(Self { main, others })
    }

    /// The text between the brackets of the rows.
    fn rows(&self) -> Result<&'a [u8], Failure> {
        let (key, value) = self.main;
        if is_key(key, "inputs") {
            return Err(Failure::NotJoinable); // columns instead of rows
        }
        if self.others.iter().any(|(key, _)| is_main_key(key)) {
            return Err(Failure::NotJoinable); // which member has the rows is unclear
        }
        value
            .strip_prefix(b"[")
            .and_then(|v| v.strip_suffix(b"]"))
            .map(trim_space)
            .ok_or(Failure::NotJoinable)
    }

    /// Whether this request and `other` differ only in their rows. Compares texts, so equal values in different
    /// spellings count as different. The requests are then refused, never joined wrongly.
    fn is_alike(&self, other: &Self) -> bool {
        let pairs = |request: &Self| {
            let mut pairs = request.others.clone();
            pairs.sort_unstable();
            pairs
        };
        self.main.0 == other.main.0 && pairs(self) == pairs(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    fn convert_text(body: &str) -> Result<String, RequestError> {
        let mut body = Buffer::from(body.as_bytes().to_vec());
        to_tfs(&mut body)?;
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
            ",",
            ":",
            "1, 2",
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
            !list.is_empty()
                && (list.iter().all(Json::is_array) || list.iter().all(Json::is_object))
        })
    }

    proptest! {
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
                    let converted = output.as_bytes().starts_with(INSTANCES) || output.ends_with("]}");
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
}
