//! JSON bodies: the output agrees with a JSON parser, and no value is lost or added.

use std::fmt;

use sagemaker_tfs::budget::Buffer;
use sagemaker_tfs::convert::request::{Conversion, Target, json};
use sagemaker_tfs::error::RequestError;
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::{Deserializer, Value};

/// Deeper nesting is not checked: the parser that we compare with gives up at 128 levels, and outputs have more levels
/// than inputs.
const MAX_BRACKETS: usize = 100;

fn to_tfs(data: Vec<u8>) -> Result<Vec<u8>, RequestError> {
    let mut body = Buffer::from(data);
    assert_eq!(
        json::to_tfs(&mut body, &Target::default())?,
        Conversion::Done
    );
    Ok(body.to_vec())
}

pub fn check(data: &[u8]) {
    let body = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
    let output = match to_tfs(data.to_vec()) {
        Ok(output) => Some(output),
        Err(error) => {
            assert_eq!(error.status, 400);
            None
        }
    };
    let brackets = body.iter().filter(|&b| matches!(b, b'[' | b'{')).count();
    if brackets > MAX_BRACKETS {
        return;
    }
    let Some(Parsed { values, commas }) = values(body) else {
        // Broken bodies pass, and TensorFlow Serving refuses them; the conversion must not make one valid.
        if let Some(output) = output {
            let valid = serde_json::from_slice::<Value>(&output).is_ok();
            assert!(!valid, "made valid: {}", lossy(&output));
        }
        return;
    };
    if !are_clear(&values, &commas) {
        assert_eq!(output, None, "commas separate nothing, or not everything");
        return;
    }
    let (requests, others): (Vec<_>, Vec<_>) = values.iter().partition(|v| v.is_request());
    match (values.as_slice(), output) {
        // JSON in a string may be a request.
        ([one], None) => {
            let text = one.value.as_str().expect("other values pass");
            assert!(text.trim_ascii().starts_with('{'), "{text:?} is refused");
        }
        ([], None) => panic!("a body without values is refused"),
        ([], Some(output)) => assert_eq!(output, body),
        ([one], Some(output)) if one.is_request() => {
            assert_eq!(output, body, "a request does not pass unchanged");
        }
        ([one], Some(output)) => {
            let instances = match one.value.as_array() {
                Some(list) if is_instances(list) => one.value.clone(),
                _ => Value::from(vec![one.value.clone()]),
            };
            assert_members(&output, &[("instances".into(), instances)]);
        }
        (_, None) => assert!(!requests.is_empty(), "values are refused"),
        (_, Some(output)) if requests.is_empty() => {
            let instances = values.iter().map(|v| v.value.clone()).collect();
            assert_members(&output, &[("instances".into(), instances)]);
        }
        (_, Some(output)) => {
            assert!(others.is_empty(), "requests are joined with other values");
            assert_joined(&values, &output);
        }
    }
    // A request passes unchanged, so converting twice equals converting once.
    if let Ok(output) = to_tfs(data.to_vec())
        && !values.is_empty()
    {
        assert_eq!(to_tfs(output.clone()).ok(), Some(output));
    }
}

/// A top-level value and, if it is an object, its members in order, including duplicates.
struct Member {
    value: Value,
    members: Vec<(String, Value)>,
}

impl Member {
    fn is_request(&self) -> bool {
        self.members.iter().any(|(key, _)| is_main(key))
    }
}

fn is_main(key: &str) -> bool {
    ["instances", "inputs", "examples"].contains(&key)
}

fn is_instances(list: &[Value]) -> bool {
    !list.is_empty() && (list.iter().all(Value::is_array) || list.iter().all(Value::is_object))
}

/// Asserts that the requests differ only in their rows, and that the output has the rows of all.
fn assert_joined(requests: &[Member], output: &[u8]) {
    let mut rows = Vec::new();
    let mut first = None;
    for request in requests {
        let (main, mut others): (Vec<_>, Vec<_>) =
            request.members.iter().partition(|(key, _)| is_main(key));
        let [(key, value)] = main.as_slice() else {
            panic!("joined although rows come twice: {}", lossy(output));
        };
        assert_ne!(key, "inputs", "requests in column form are joined");
        rows.extend(value.as_array().expect("rows are a list").clone());
        others.sort_by(|a, b| (&a.0, a.1.to_string()).cmp(&(&b.0, b.1.to_string())));
        let this = (key, others);
        assert_eq!(*first.get_or_insert_with(|| this.clone()), this);
    }
    let (key, others) = first.expect("at least one request");
    let mut expected: Vec<_> = others.into_iter().cloned().collect();
    expected.push((key.clone(), Value::from(rows)));
    assert_members(output, &expected);
}

/// Asserts that the output is one object with exactly these members, in any order.
fn assert_members(output: &[u8], expected: &[(String, Value)]) {
    let parsed = values(output).unwrap_or_else(|| panic!("not valid: {}", lossy(output)));
    let [parsed] = parsed.values.as_slice() else {
        panic!("not one value: {}", lossy(output));
    };
    let sorted = |members: &[(String, Value)]| {
        let texts = members
            .iter()
            .map(|(key, value)| (key.clone(), value.to_string()));
        let mut texts: Vec<_> = texts.collect();
        texts.sort();
        texts
    };
    assert_eq!(
        sorted(&parsed.members),
        sorted(expected),
        "{}",
        lossy(output)
    );
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The values of a body in order, and how many commas stand before the first, between two, and behind the last.
struct Parsed {
    values: Vec<Member>,
    commas: Vec<usize>,
}

/// Whether one comma or none stands between two values, and in all places alike unless all values have brackets.
fn are_clear(values: &[Member], commas: &[usize]) -> bool {
    let [outer_first, between @ .., outer_last] = commas else {
        return commas == [0];
    };
    let has_scalar = values
        .iter()
        .any(|v| !v.value.is_array() && !v.value.is_object());
    let is_mixed = between.contains(&0) && between.contains(&1);
    (outer_first, outer_last) == (&0, &0)
        && between.iter().all(|&n| n <= 1)
        && !(is_mixed && has_scalar)
}

/// The values of a body; `None` if one of them is broken.
fn values(body: &[u8]) -> Option<Parsed> {
    let is_space = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
    let is_between = |b: &u8| is_space(b) || *b == b',';
    let mut parsed = Parsed {
        values: Vec::new(),
        commas: Vec::new(),
    };
    let mut rest = body;
    loop {
        let start = rest.iter().position(|b| !is_between(b));
        let (between, behind) = rest.split_at(start.unwrap_or(rest.len()));
        let commas = between.iter().filter(|&&b| b == b',').count();
        parsed.commas.push(commas);
        if start.is_none() {
            return Some(parsed);
        }
        rest = behind;
        let length = match rest[0] {
            b'{' | b'[' | b'"' => {
                let mut stream = Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
                stream.next()?.ok()?;
                stream.byte_offset()
            }
            // The parser requires a space between a number and a string; the converter does not.
            _ => {
                let is_end = |b: &u8| is_space(b) || b"{}[],:\"".contains(b);
                rest.iter().position(is_end).unwrap_or(rest.len())
            }
        };
        let (text, behind) = rest.split_at(length);
        let members = match text.first() {
            Some(b'{') => serde_json::from_slice::<Members>(text).ok()?.0,
            _ => Vec::new(),
        };
        parsed.values.push(Member {
            value: serde_json::from_slice(text).ok()?,
            members,
        });
        rest = behind;
    }
}

/// An object's members in order, including duplicates.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
                to.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}
