//! JSON bodies: what is a request to TensorFlow Serving already passes unchanged, all else becomes `instances`.
//!
//! Only structure is scanned (strings, nesting); whether a value is valid is for TensorFlow Serving to say, in
//! its own words. A body whose structure is broken therefore passes unchanged, too.

use std::ops::Range;

use memchr::memchr2;

use crate::error::RequestError;

/// The body TensorFlow Serving gets for a JSON, JSON lines or JSONs body.
///
/// # Errors
/// 400 when the body holds several requests to TensorFlow Serving that cannot be joined into one.
pub fn to_tfs(mut body: Vec<u8>) -> Result<Vec<u8>, RequestError> {
    if body.starts_with(b"\xef\xbb\xbf") {
        body.drain(..3); // a byte order mark, which TensorFlow Serving does not take
    }
    match convert(&body) {
        Ok(Some(converted)) => Ok(converted),
        Ok(None) | Err(Failure::Broken) => Ok(body),
        Err(Failure::NotJoinable) => Err(RequestError::bad_request(
            "The body holds several values, and at least one of them is a request to TensorFlow Serving. Several \
             requests are joined only when each has its rows in the same key, 'instances' or 'examples', and \
             everything beside them (such as 'signature_name') is the same in all; send these one by one.",
        )),
    }
}

#[derive(Debug)]
enum Failure {
    /// The structure is not that of JSON values.
    Broken,
    NotJoinable,
}

const INSTANCES: &[u8] = b"{\"instances\": ";

/// `None`: the body is right as it is.
fn convert(body: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
    let mut values = Values { body, at: 0 };
    let Some(first) = values.next_value()? else {
        return Ok(None);
    };
    let Some(second) = values.next_value()? else {
        return Ok(match &first.shape {
            Shape::Request(_) => None,
            Shape::Instances => Some([INSTANCES, first.text(body), b"}"].concat()),
            Shape::Instance => Some([INSTANCES, b"[", first.text(body), b"]}"].concat()),
        });
    };
    if let Shape::Request(request) = first.shape {
        return join(body, request, second, values).map(Some);
    }

    // A little more than the body: commas take the place of what is between the values now.
    let mut out = Vec::with_capacity(INSTANCES.len() + body.len() + body.len() / 8 + 16);
    out.extend_from_slice(INSTANCES);
    out.push(b'[');
    out.extend_from_slice(first.text(body));
    let mut next = Some(second);
    while let Some(value) = next {
        if matches!(value.shape, Shape::Request(_)) {
            return Err(Failure::NotJoinable);
        }
        out.extend_from_slice(b", ");
        out.extend_from_slice(value.text(body));
        next = values.next_value()?;
    }
    out.extend_from_slice(b"]}");
    Ok(Some(out))
}

/// Joins the rows of several requests into the first one's.
fn join(
    body: &[u8],
    first: Request,
    second: Value,
    mut values: Values,
) -> Result<Vec<u8>, Failure> {
    let first_rows = first.rows(body)?;
    let mut out = Vec::with_capacity(body.len() + 16);
    out.push(b'{');
    for member in &first.others {
        out.extend_from_slice(&body[member.key.clone()]);
        out.extend_from_slice(b": ");
        out.extend_from_slice(&body[member.value.clone()]);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(&body[first.main.key.clone()]);
    out.extend_from_slice(b": [");
    out.extend_from_slice(first_rows);
    let mut empty = first_rows.is_empty();

    let mut next = Some(second);
    while let Some(value) = next {
        let Shape::Request(request) = value.shape else {
            return Err(Failure::NotJoinable);
        };
        if !request.is_alike(&first, body) {
            return Err(Failure::NotJoinable);
        }
        let rows = request.rows(body)?;
        if !rows.is_empty() {
            out.extend_from_slice(if empty { b"" } else { b", " });
            out.extend_from_slice(rows);
            empty = false;
        }
        next = values.next_value()?;
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// A top-level value.
struct Value {
    range: Range<usize>,
    shape: Shape,
}

impl Value {
    fn text<'a>(&self, body: &'a [u8]) -> &'a [u8] {
        &body[self.range.clone()]
    }
}

/// What a top-level value means.
enum Shape {
    /// An object that is a request to TensorFlow Serving.
    Request(Request),
    /// A list of lists, or a list of objects: the instances.
    Instances,
    /// Anything else: one instance.
    Instance,
}

/// An object with one of the keys that make it a request.
struct Request {
    /// `instances`, `inputs` or `examples`.
    main: Member,
    others: Vec<Member>,
}

/// A member of an object, as ranges of the body.
struct Member {
    key: Range<usize>,
    value: Range<usize>,
}

impl Request {
    /// What stands between the brackets of the rows.
    fn rows<'a>(&self, body: &'a [u8]) -> Result<&'a [u8], Failure> {
        let value = &body[self.main.value.clone()];
        if is_key(&body[self.main.key.clone()], "inputs") {
            return Err(Failure::NotJoinable); // column form: has no rows
        }
        let mut others = self.others.iter();
        if others.any(|m| is_main_key(&body[m.key.clone()])) {
            return Err(Failure::NotJoinable); // which are its rows, nobody knows
        }
        value
            .strip_prefix(b"[")
            .and_then(|v| v.strip_suffix(b"]"))
            .map(trim_space)
            .ok_or(Failure::NotJoinable)
    }

    /// Whether this and `other` differ in nothing but their rows. Texts are compared: the same value written
    /// differently counts as different, which is refused and so never wrong.
    fn is_alike(&self, other: &Self, body: &[u8]) -> bool {
        let text = |range: &Range<usize>| &body[range.clone()];
        let pairs = |request: &Self| {
            let mut pairs: Vec<_> = request
                .others
                .iter()
                .map(|m| (text(&m.key), text(&m.value)))
                .collect();
            pairs.sort_unstable();
            pairs
        };
        text(&self.main.key) == text(&other.main.key) && pairs(self) == pairs(other)
    }
}

/// Whether a key, quotes included, makes its object a request.
fn is_main_key(text: &[u8]) -> bool {
    let mut names = ["instances", "inputs", "examples"].iter();
    names.any(|name| is_key(text, name))
}

/// Whether a key as it stands in the body, quotes included, means `name`.
fn is_key(text: &[u8], name: &str) -> bool {
    let inner = &text[1..text.len() - 1];
    if inner.contains(&b'\\') {
        serde_json::from_slice::<String>(text).is_ok_and(|key| key == name)
    } else {
        inner == name.as_bytes()
    }
}

/// Steps over the top-level values of a body.
struct Values<'a> {
    body: &'a [u8],
    at: usize,
}

impl Values<'_> {
    /// The next top-level value, or `None` at the end.
    fn next_value(&mut self) -> Result<Option<Value>, Failure> {
        self.skip_space();
        let start = self.at;
        let shape = match self.peek() {
            None => return Ok(None),
            Some(b'{') => self.object()?,
            Some(b'[') => self.list()?,
            Some(_) => {
                self.skip_value()?;
                Shape::Instance
            }
        };
        Ok(Some(Value {
            range: start..self.at,
            shape,
        }))
    }

    fn object(&mut self) -> Result<Shape, Failure> {
        self.at += 1;
        let mut main = None;
        let mut others = Vec::new();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Shape::Instance);
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(Failure::Broken);
            }
            let key = self.value_range()?;
            self.skip_space();
            self.expect(b':')?;
            self.skip_space();
            let value = self.value_range()?;
            match main {
                None if is_main_key(&self.body[key.clone()]) => main = Some(Member { key, value }),
                _ => others.push(Member { key, value }),
            }
            self.skip_space();
            match self.next_byte()? {
                b',' => {}
                b'}' => break,
                _ => return Err(Failure::Broken),
            }
        }
        Ok(match main {
            Some(main) => Shape::Request(Request { main, others }),
            None => Shape::Instance,
        })
    }

    /// A list is scanned element by element only as long as it may be the instances.
    fn list(&mut self) -> Result<Shape, Failure> {
        self.at += 1;
        let mut opening = None;
        loop {
            self.skip_space();
            let first = self.peek().ok_or(Failure::Broken)?;
            let nested = matches!(first, b'[' | b'{');
            if !nested || opening.is_some_and(|o| o != first) {
                self.skip_nested(1)?;
                return Ok(Shape::Instance);
            }
            opening = Some(first);
            self.skip_value()?;
            self.skip_space();
            match self.next_byte()? {
                b',' => {}
                b']' => return Ok(Shape::Instances),
                _ => return Err(Failure::Broken),
            }
        }
    }

    fn value_range(&mut self) -> Result<Range<usize>, Failure> {
        let start = self.at;
        self.skip_value()?;
        Ok(start..self.at)
    }

    /// Steps over one value.
    fn skip_value(&mut self) -> Result<(), Failure> {
        match self.peek().ok_or(Failure::Broken)? {
            b'"' => self.skip_string(),
            b'{' | b'[' => {
                self.at += 1;
                self.skip_nested(1)
            }
            b'}' | b']' | b',' | b':' => Err(Failure::Broken),
            _ => {
                let rest = &self.body[self.at..];
                let end = rest.iter().position(|&b| {
                    is_space(b) || matches!(b, b'{' | b'}' | b'[' | b']' | b',' | b':' | b'"')
                });
                self.at += end.unwrap_or(rest.len());
                Ok(())
            }
        }
    }

    /// From inside `depth` open brackets to behind the one that closes the outermost.
    fn skip_nested(&mut self, mut depth: usize) -> Result<(), Failure> {
        /// Long runs of numbers are passed in blocks; the compiler turns the test into vector instructions.
        const BLOCK: usize = 32;
        loop {
            while let Some(block) = self.body.get(self.at..self.at + BLOCK) {
                if block.iter().fold(false, |any, &b| any | is_structural(b)) {
                    break;
                }
                self.at += BLOCK;
            }
            let end = self.body.len().min(self.at + BLOCK);
            while self.at < end {
                match self.body[self.at] {
                    b'"' => {
                        self.skip_string()?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                self.at += 1;
                if depth == 0 {
                    return Ok(());
                }
            }
            if self.at >= self.body.len() {
                return Err(Failure::Broken);
            }
        }
    }

    fn skip_string(&mut self) -> Result<(), Failure> {
        self.at += 1;
        loop {
            let rest = self.body.get(self.at..).ok_or(Failure::Broken)?;
            let found = memchr2(b'"', b'\\', rest).ok_or(Failure::Broken)?;
            if rest[found] == b'"' {
                self.at += found + 1;
                return Ok(());
            }
            self.at += found + 2;
        }
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Failure> {
        if self.next_byte()? == byte {
            Ok(())
        } else {
            Err(Failure::Broken)
        }
    }

    fn next_byte(&mut self) -> Result<u8, Failure> {
        let byte = self.peek().ok_or(Failure::Broken)?;
        self.at += 1;
        Ok(byte)
    }

    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }
}

fn trim_space(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_space(*first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_space(*last)
    {
        text = rest;
    }
    text
}

/// JSON's white space, which has no form feed.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// A quote or a bracket. With bit 5 set, `[` becomes `{` and `]` becomes `}`.
fn is_structural(byte: u8) -> bool {
    let folded = byte | 0x20;
    (byte == b'"') | (folded == b'{') | (folded == b'}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    fn converted(body: &str) -> String {
        String::from_utf8(to_tfs(body.as_bytes().to_vec()).unwrap()).unwrap()
    }

    #[test]
    fn requests_pass_unchanged() {
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
    fn a_single_value_is_one_instance() {
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
    fn a_list_of_lists_or_objects_is_the_instances() {
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
    fn several_values_are_instances_on_lines_or_not() {
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
    fn several_requests_are_joined() {
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
    fn requests_that_cannot_be_joined_are_refused() {
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
            let error = to_tfs(body.as_bytes().to_vec()).unwrap_err();
            assert_eq!(error.status, 400, "{body}");
            assert!(error.text.contains("joined only when"));
        }
    }

    /// Found by fuzzing: a form feed was dropped, which made rows of what TensorFlow Serving would refuse.
    #[test]
    fn only_json_white_space_is_dropped_around_joined_rows() {
        assert_eq!(
            converted("{\"instances\": [\x0c]} {\"instances\": [ \t\n1\r ]}"),
            "{\"instances\": [\x0c, 1]}"
        );
    }

    #[test]
    fn a_byte_order_mark_is_dropped() {
        assert_eq!(
            converted("\u{feff}{\"instances\": []}"),
            "{\"instances\": []}"
        );
        assert_eq!(converted("\u{feff}1"), "{\"instances\": [1]}");
    }

    /// A form feed is white space to many, but not to JSON.
    #[test]
    fn control_characters_are_part_of_values() {
        assert_eq!(converted("\x0c"), "{\"instances\": [\x0c]}");
        assert_eq!(converted("1\x0c2 \0"), "{\"instances\": [1\x0c2, \0]}");
        assert_eq!(
            converted("[1]\x0c\n[2]"),
            "{\"instances\": [[1], \x0c, [2]]}"
        );
    }

    #[test]
    fn what_is_broken_passes_for_tensorflow_serving_to_judge() {
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

    /// Numbers keep their text (`arbitrary_precision` is off), so only those that print as they parse are made.
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
        /// Any values, on lines or not, pretty or not, split as a real parser splits them.
        #[test]
        fn values_split_as_a_parser_splits_them(
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
            let output = to_tfs(body.into_bytes()).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Json>(&output).unwrap(), expected);
        }

        /// Any bytes: no panic, and what is not converted is unchanged.
        #[test]
        fn any_bytes_pass_or_convert(body in "[\\[\\]{}\",:\\\\ a1\n\x00\x0b\x0c\u{a0}]{0,80}") {
            match to_tfs(body.clone().into_bytes()) {
                Ok(output) => {
                    let converted = output.starts_with(INSTANCES) || output.ends_with(b"]}");
                    prop_assert!(converted || output == body.as_bytes());
                }
                Err(error) => prop_assert_eq!(error.status, 400),
            }
        }

        /// Blocks are an optimisation only: structure at any offset is seen.
        #[test]
        fn structure_is_seen_at_any_offset(before in 0..70usize, inside in 0..70usize) {
            let body = format!("[{}\"{}]\"]", "1,".repeat(before), "x".repeat(inside));
            let expected = format!("{{\"instances\": [{body}]}}");
            prop_assert_eq!(converted(&body), expected);
        }
    }
}
