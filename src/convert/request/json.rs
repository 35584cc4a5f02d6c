//! Converts JSON bodies: a request to TensorFlow Serving stays unchanged, and any other values become its rows.
//!
//! Only the structure is scanned (strings, nesting). Validating values is left to TensorFlow Serving, whose messages
//! clients expect. For the same reason a body whose structure is broken stays unchanged.

use std::ops::Range;

use serde::de::IgnoredAny;

use crate::budget::{Buffer, NoRoom};
use crate::convert::request::target::{Conversion, Target};
use crate::convert::signature::Kind;
use crate::error::RequestError;

mod scan;

use scan::{Broken, FEATURES, Shape, Value, Values, is_key, is_main_key, trim_space};

/// Maximum number of members, apart from the rows, in a request that is joined with others. TensorFlow Serving knows
/// one such member.
const MAX_JOINED_MEMBERS: usize = 16;
/// The longest name of a signature that is looked up.
const MAX_NAME_BYTES: usize = 4096;

/// Converts a JSON, JSON lines or JSONs body into the body of a request to TensorFlow Serving. If the signature decides
/// and has not been looked up, the body stays unchanged.
///
/// # Errors
/// 400 when the body contains several requests to TensorFlow Serving that cannot be joined into one, JSON in a JSON
/// string, or commas between values that do not separate them clearly; 413 or 503 when no memory is left for the
/// conversion.
pub fn to_tfs(body: &mut Buffer, target: &Target) -> Result<Conversion, RequestError> {
    if body.starts_with(b"\xef\xbb\xbf") {
        body.consume(3); // a byte order mark, which TensorFlow Serving does not accept
    }
    match convert(body, target) {
        Ok(Change::None) | Err(Failure::Broken) => {}
        Ok(Change::Wrap(value, before, after)) => wrap(body, value, before.as_bytes(), after)?,
        Ok(Change::Insert(at, text)) => insert(body, at, text.as_bytes())?,
        Ok(Change::Replace(converted)) => *body = converted,
        Err(Failure::NeedsSignature) => return Ok(Conversion::NeedsSignature),
        Err(Failure::NoRoom(why)) => return Err(why.into()),
        Err(Failure::JsonInString) => {
            return Err(RequestError::bad_request(
                "The body is JSON inside a JSON string: it was encoded twice. Send the inner JSON.",
            ));
        }
        Err(Failure::StrayComma) => {
            return Err(RequestError::bad_request(
                "The body has a comma with no JSON value before or behind it. Between two values, one comma or none is \
                 accepted; there is none before the first value and after the last.",
            ));
        }
        Err(Failure::MixedCommas) => {
            return Err(RequestError::bad_request(
                "Some of the body's JSON values have commas between them, and others only white space, so it is not \
                 clear what a row is. Separate all values alike, put each row into a list, or send Content-Type: \
                 text/csv if the body is CSV.",
            ));
        }
        Err(Failure::NotJoinable) => {
            return Err(RequestError::bad_request(
                "The body holds several values, and at least one of them is a request to TensorFlow Serving. Several \
                 requests are joined only when all have their rows under the same key, 'instances' or 'examples', and \
                 all their other members (such as 'signature_name') are the same; send these requests one at a time.",
            ));
        }
    }
    Ok(Conversion::Done)
}

/// The signature that a request to TensorFlow Serving names itself.
pub fn signature_name(body: &[u8]) -> Option<String> {
    let mut values = Values { body, at: 0 };
    let Shape::Request { signature_name } = values.next_value().ok()??.shape else {
        return None;
    };
    let name = signature_name.filter(|name| name.len() <= MAX_NAME_BYTES)?;
    let name: String = serde_json::from_slice(name).ok()?;
    // TensorFlow Serving takes an empty one as none.
    (!name.is_empty()).then_some(name)
}

#[derive(Debug)]
enum Failure {
    /// The structure is not JSON.
    Broken,
    /// The body contains several values, some of them requests that cannot be joined.
    NotJoinable,
    /// A comma stands before the first value, after the last, or behind another comma.
    StrayComma,
    /// Commas separate some values but not all, and not all of the values are lists or objects.
    MixedCommas,
    /// The body is a string that contains JSON.
    JsonInString,
    /// The signature decides, and has not been looked up.
    NeedsSignature,
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
    Wrap(Range<usize>, String, &'static [u8]),
    /// Insert this text at this position.
    Insert(usize, String),
    Replace(Buffer),
}

fn convert(body: &Buffer, target: &Target) -> Result<Change, Failure> {
    let mut rows = Several {
        values: Values { body, at: 0 },
        has_comma: false,
        has_gap: false,
        has_scalar: false,
    };
    if rows.values.skip_comma() {
        return Err(Failure::StrayComma);
    }
    let Some(first) = rows.values.next_value()? else {
        return Ok(Change::None);
    };
    rows.has_scalar = is_scalar(&first, body);
    let Some(second) = rows.next()? else {
        return one_value(body, &first, target);
    };
    let mut out = body.sibling();
    let opening = target.opening();
    // A little more than the body, because commas replace the white space between values.
    let likely = opening.len() + body.len() + body.len() / 8 + 16;
    out.reserve_likely(likely, body.len())?;
    if let Shape::Request { .. } = first.shape {
        join(body, &first, second, rows, target, &mut out)?;
        return Ok(Change::Replace(out));
    }
    out.extend(opening.as_bytes())?;
    out.extend(b"[")?;
    write_row(&first, body, target, &mut out)?;
    let mut next = Some(second);
    while let Some(value) = next {
        if let Shape::Request { .. } = value.shape {
            return Err(Failure::NotJoinable);
        }
        out.extend(b", ")?;
        write_row(&value, body, target, &mut out)?;
        next = rows.next()?;
    }
    out.extend(b"]}")?;
    Ok(Change::Replace(out))
}

/// Steps over several top-level values and what separates them.
struct Several<'a> {
    values: Values<'a>,
    /// Whether a comma separated two values.
    has_comma: bool,
    /// Whether two values had no comma between them.
    has_gap: bool,
    /// Whether a value is neither a list nor an object.
    has_scalar: bool,
}

impl<'a> Several<'a> {
    /// The next value behind another; `None` at the end.
    ///
    /// Numbers with commas in some gaps and line ends in others are CSV with a wrong content type. As instances, its
    /// rows would be lost. Lists and objects show themselves where a row ends.
    fn next(&mut self) -> Result<Option<Value<'a>>, Failure> {
        let is_comma = self.values.skip_comma();
        if is_comma && self.values.skip_comma() {
            return Err(Failure::StrayComma);
        }
        let Some(value) = self.values.next_value()? else {
            return match is_comma {
                true => Err(Failure::StrayComma),
                false => Ok(None),
            };
        };
        self.has_comma |= is_comma;
        self.has_gap |= !is_comma;
        self.has_scalar |= is_scalar(&value, self.values.body);
        if self.has_comma && self.has_gap && self.has_scalar {
            return Err(Failure::MixedCommas);
        }
        Ok(Some(value))
    }
}

fn is_scalar(value: &Value, body: &[u8]) -> bool {
    !matches!(body[value.range.start], b'[' | b'{')
}

fn one_value(body: &Buffer, value: &Value, target: &Target) -> Result<Change, Failure> {
    let opening = || target.opening();
    let range = || value.range.clone();
    Ok(match value.shape {
        Shape::Request { signature_name } => match target.signature_member() {
            Some(member) if signature_name.is_none() => {
                Change::Insert(value.range.start + 1, member)
            }
            _ => Change::None,
        },
        Shape::Instances { has_features: true } if features_are_rows(target)? => {
            let mut out = body.sibling();
            out.reserve_likely(opening().len() + body.len() + 1, body.len())?;
            out.extend(opening().as_bytes())?;
            let mut elements = Values {
                body,
                at: value.range.start + 1,
            };
            let mut separator: &[u8] = b"[";
            while let Some(element) = elements.next_element()? {
                out.extend(separator)?;
                separator = b", ";
                write_row(&element, body, target, &mut out)?;
            }
            out.extend(b"]}")?;
            Change::Replace(out)
        }
        Shape::Instances { .. } => Change::Wrap(range(), opening(), b"}"),
        Shape::Features(_) => {
            let mut out = body.sibling();
            out.extend(opening().as_bytes())?;
            out.extend(b"[")?;
            write_row(value, body, target, &mut out)?;
            out.extend(b"]}")?;
            Change::Replace(out)
        }
        Shape::Instance => {
            refuse_json_in_string(body, value.text(body), target)?;
            Change::Wrap(range(), opening() + "[", b"]}")
        }
    })
}

/// Writes a value as a row. An object with `features` alone, as SageMaker's own algorithms take it, is the row that
/// `features` holds.
fn write_row(value: &Value, body: &[u8], target: &Target, out: &mut Buffer) -> Result<(), Failure> {
    let text = match value.shape {
        Shape::Features(features) if features_are_rows(target)? => features,
        _ => value.text(body),
    };
    Ok(out.extend(text)?)
}

/// Whether `features` cannot be the name of an input, and there is one input whose row it can hold.
fn features_are_rows(target: &Target) -> Result<bool, Failure> {
    if target.is_deferred {
        return Err(Failure::NeedsSignature);
    }
    let input = target.only_input();
    Ok(input.is_some_and(|input| input.name != FEATURES))
}

/// Refuses a string that contains JSON, which clients send by mistake when they encode a body twice. A model that takes
/// strings may be sent JSON as text, but not a whole request.
fn refuse_json_in_string(body: &Buffer, text: &[u8], target: &Target) -> Result<(), Failure> {
    if !matches!(text, [b'"', b'{' | b'[' | b' ' | b'\\', ..]) {
        return Ok(());
    }
    let _memory = body.reserve_outside(text.len())?;
    let Ok(inner) = serde_json::from_slice::<String>(text) else {
        return Ok(());
    };
    let inner = trim_space(inner.as_bytes());
    if !matches!(inner.first(), Some(b'{' | b'[')) {
        return Ok(());
    }
    let mut values = Values { body: inner, at: 0 };
    let first = values.next_value();
    if let Ok(Some(Value {
        shape: Shape::Request { .. },
        ..
    })) = first
    {
        return Err(Failure::JsonInString);
    }
    if first.is_err() || serde_json::from_slice::<IgnoredAny>(inner).is_err() {
        return Ok(());
    }
    if target.is_deferred {
        return Err(Failure::NeedsSignature);
    }
    let input = target.only_input();
    match input
        .is_some_and(|input| matches!(input.dtype.kind(), Kind::Float | Kind::Integer | Kind::Bool))
    {
        true => Err(Failure::JsonInString),
        false => Ok(()),
    }
}

/// Inserts a text, in place.
fn insert(body: &mut Buffer, at: usize, text: &[u8]) -> Result<(), NoRoom> {
    body.reserve_exact(text.len())?;
    let length = body.len();
    let bytes = body.bytes_mut();
    bytes.resize(length + text.len(), 0);
    bytes.copy_within(at..length, at + text.len());
    bytes[at..at + text.len()].copy_from_slice(text);
    Ok(())
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
    mut rows: Several,
    target: &Target,
    out: &mut Buffer,
) -> Result<(), Failure> {
    let names_signature = matches!(
        first.shape,
        Shape::Request {
            signature_name: Some(_)
        }
    );
    let first = Request::parse(first.text(body))?;
    let first_rows = first.rows()?;
    out.extend(b"{")?;
    if let Some(member) = target.signature_member()
        && !names_signature
    {
        out.extend(member.as_bytes())?;
    }
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
        let Shape::Request { .. } = value.shape else {
            return Err(Failure::NotJoinable);
        };
        let request = Request::parse(value.text(body))?;
        if !request.is_alike(&first) {
            return Err(Failure::NotJoinable);
        }
        let more = request.rows()?;
        if !more.is_empty() {
            out.extend(if empty { b"" } else { b", " })?;
            out.extend(more)?;
            empty = false;
        }
        next = rows.next()?;
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
mod tests;
