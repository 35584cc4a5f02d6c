//! Conversions of responses: lines, rows and arrays have the values that `serde_json` finds in the response.
//!
//! Input: one byte for the signature; the body of a response.

use sagemaker_tfs::budget::{Budget, Buffer};
use sagemaker_tfs::convert::response::{Accepted, lay_out};
use sagemaker_tfs::convert::signature::{Dtype, Signature, Tensor};
use serde_json::Value;

const MEMORY: usize = 16 << 20;

pub fn check(data: &[u8]) {
    let Some((&selector, body)) = data.split_first() else {
        return;
    };
    let lines = converted(body, Accepted::JsonLines { ndjson: false }, None);
    let csv = converted(body, Accepted::Csv { header: false }, None);
    let table = converted(body, Accepted::Csv { header: true }, None);
    if let Some(table) = &table {
        let csv = csv.as_ref().expect("only the header line can be wrong");
        assert!(table.ends_with(csv) && table.len() > csv.len());
    }
    let signature = signature(selector);
    let npy = converted(body, Accepted::Npy, signature.as_ref());
    let npz = converted(body, Accepted::Npz, signature.as_ref());
    if let (Some(npy), Some(npz)) = (&npy, &npz) {
        assert!(npz.starts_with(b"PK"));
        let mut files = npz.windows(npy.len());
        assert!(
            npy.starts_with(b"PK") || files.any(|file| file == &**npy),
            "files are stored"
        );
    }

    let Some(rows) = rows(body) else {
        return;
    };
    let Some(lines) = lines else {
        // Outputs without a name or with the same name: `serde_json` sees the last of them.
        let first = rows.first();
        assert!(first.is_some_and(Value::is_object), "{rows:?} have lines");
        return;
    };
    let lines = String::from_utf8(lines.to_vec()).expect("UTF-8 stays UTF-8");
    let parsed = lines
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).expect("a line is JSON"));
    assert_eq!(parsed.collect::<Vec<_>>(), rows);
    if let Some(csv) = csv {
        check_rows(&csv, &rows);
    }
    if let Some(npy) = npy.filter(|npy| npy.starts_with(b"\x93NUMPY")) {
        check_array(&npy, &rows);
    }
}

fn converted(body: &[u8], accepted: Accepted, signature: Option<&Signature>) -> Option<Buffer> {
    let mut buffer = Budget::new(MEMORY).arriving(0);
    buffer.extend(body).ok()?;
    match lay_out(200, buffer, accepted, signature) {
        Ok((body, _)) => Some(body),
        Err(error) => {
            assert!(matches!(error.status, 406 | 502 | 507), "{error}");
            assert!(error.text.len() < 1000);
            None
        }
    }
}

fn signature(selector: u8) -> Option<Signature> {
    let dtype = match selector % 6 {
        0 => return None,
        1 => Dtype::Float,
        2 => Dtype::Double,
        3 => Dtype::Int8,
        4 => Dtype::Bool,
        _ => Dtype::String,
    };
    let output = Tensor {
        name: "y".into(),
        dtype,
        shape: Some(vec![None, Some(2)]),
        is_strict: true,
    };
    Some(Signature {
        name: "serving_default".into(),
        inputs: Vec::new(),
        outputs: vec![output],
    })
}

/// The rows of a response in row form, unless two parsers may see different ones because of keys with escapes or
/// repeated keys.
fn rows(body: &[u8]) -> Option<Vec<Value>> {
    let text = str::from_utf8(body).ok()?;
    let is_plain = text.matches("predictions").count() == 1 && !text.contains("\\u");
    if !is_plain || text.contains("outputs") || text.contains("results") {
        return None;
    }
    let document: Value = serde_json::from_str(text).ok()?;
    document.get("predictions")?.as_array().cloned()
}

/// The value in lists of one element.
fn unwrapped(value: &Value) -> &Value {
    match value.as_array().map(Vec::as_slice) {
        Some([single]) => unwrapped(single),
        _ => value,
    }
}

fn bytes(value: &Value) -> Option<&str> {
    let members = value.as_object().filter(|members| members.len() == 1)?;
    members.get("b64")?.as_str()
}

fn check_rows(csv: &[u8], rows: &[Value]) {
    let mut reader = ::csv::ReaderBuilder::new();
    let mut reader = reader.has_headers(false).flexible(true).from_reader(csv);
    let records: Vec<_> = reader.records().map(|r| r.expect("a row")).collect();
    assert_eq!(records.len(), rows.len());
    let are_named = rows
        .first()
        .is_some_and(|row| row.is_object() && bytes(row).is_none());
    for (record, row) in records.iter().zip(rows) {
        let fields: Vec<&Value> = match unwrapped(row) {
            // Keys with escapes may be in another order.
            Value::Object(members) if are_named => {
                if members
                    .keys()
                    .any(|key| key.contains(['"', '\\']) || key.contains(char::is_control))
                {
                    return;
                }
                members.values().collect()
            }
            Value::Array(list) if list.is_empty() => vec![&Value::Null],
            Value::Array(list) => list.iter().collect(),
            other => vec![other],
        };
        assert_eq!(record.len(), fields.len(), "{record:?} for {row}");
        for (text, value) in record.iter().zip(fields) {
            assert!(is_field(text, unwrapped(value)), "{text:?} for {value}");
        }
    }
}

fn is_field(text: &str, value: &Value) -> bool {
    match value {
        Value::Null => text.is_empty(),
        Value::String(string) => text == string,
        Value::Number(number) => text.parse().ok() == number.as_f64(),
        Value::Object(_) if bytes(value) == Some(text) => true,
        other => serde_json::from_str::<Value>(text).ok().as_ref() == Some(other),
    }
}

fn leaves<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| leaves(value, found)),
        leaf => found.push(leaf),
    }
}

/// Checks the number of elements, and those of 64 bits.
fn check_array(npy: &[u8], rows: &[Value]) {
    let length = 10 + usize::from(u16::from_le_bytes([npy[8], npy[9]]));
    let header = str::from_utf8(&npy[10..length]).expect("the header is text");
    let shape = header.split_once("'shape': (").expect("a shape").1;
    let shape = shape.split_once(')').expect("a shape").0;
    let sizes = shape
        .split(',')
        .filter_map(|size| size.trim().parse::<usize>().ok());
    let mut found = Vec::new();
    rows.iter().for_each(|row| leaves(row, &mut found));
    let elements: usize = sizes.product();
    assert_eq!(elements, found.len(), "{header}");
    let data = &npy[length..];
    // An empty array has no data.
    assert!(data.len().is_multiple_of(elements), "{header}");
    for (bytes, leaf) in data.chunks(8).zip(found) {
        let Ok(bytes) = <[u8; 8]>::try_from(bytes) else {
            return;
        };
        if header.contains("'<f8'") {
            assert_eq!(Some(f64::from_le_bytes(bytes)), leaf.as_f64());
        } else if header.contains("'<i8'") && !leaf.is_f64() {
            assert_eq!(Some(i64::from_le_bytes(bytes)), leaf.as_i64());
        }
    }
}
