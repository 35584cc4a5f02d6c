//! CSV: fields are split as the `csv` crate splits them, and numbers are those that the standard library parses.

use sagemaker_tfs::convert::request::{Target, csv};
use sagemaker_tfs::error::RequestError;
use serde_json::Value;

fn to_tfs(data: &[u8]) -> Result<Vec<u8>, RequestError> {
    csv::to_tfs(&data.to_vec().into(), None, &Target::default()).map(|out| out.to_vec())
}

pub fn check(data: &[u8]) {
    let output = match to_tfs(data) {
        Ok(output) => output,
        Err(error) => {
            assert_eq!(error.status, 400);
            if error.text.contains("the first row has") {
                let records = records(data);
                let mut lengths = records.iter().map(|record| record.len());
                let first = lengths.next();
                assert!(lengths.any(|length| Some(length) != first), "{error}");
            } else if str::from_utf8(data).is_ok() {
                let closed = to_tfs(&[data, b"\""].concat());
                let closed = closed.map_err(|e| e.text);
                assert!(
                    closed.is_ok() || closed.is_err_and(|text| text.contains("the first row has")),
                    "{error}, and the reason is not an open quote"
                );
            }
            return;
        }
    };
    assert!(
        str::from_utf8(data).is_ok(),
        "input that is not UTF-8 was converted"
    );
    let output = String::from_utf8(output).expect("the output is UTF-8");
    let rows = rows(&output);

    let records = records(data);
    assert_eq!(rows.len(), records.len(), "rows of {output}");
    for (row, record) in rows.iter().zip(&records) {
        assert_eq!(row.len(), record.len(), "fields of {row:?}, {record:?}");
        for (field, text) in row.iter().zip(record) {
            assert_field(field, text, data.contains(&b'"'));
        }
    }
}

/// The records as the `csv` crate reads them, without the blanks at the ends of rows.
pub fn records(data: &[u8]) -> Vec<::csv::StringRecord> {
    let trimmed = without_outer_blanks(data);
    let mut reader = ::csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(trimmed.as_slice());
    reader.records().map(|r| r.expect("UTF-8")).collect()
}

/// The rows without the spaces and tabs at their ends that are not quoted, and without rows of nothing else.
fn without_outer_blanks(data: &[u8]) -> Vec<u8> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    let data = data.strip_prefix(MARK).unwrap_or(data);
    // The crate drops a byte order mark at the start, and only there.
    let mut out = MARK.to_vec();
    let mut row = Vec::new();
    // How much of the row ends with a closing quote.
    let (mut is_quoted, mut closed) = (false, 0);
    for &byte in data {
        if is_quoted {
            row.push(byte);
            if byte == b'"' {
                (is_quoted, closed) = (false, row.len());
            }
            continue;
        }
        match byte {
            b'\n' | b'\r' => end_row(&mut row, &mut closed, &mut out),
            b' ' | b'\t' if row.is_empty() => {}
            _ => {
                let begins_field = row.last().is_none_or(|&last| last == b',');
                // Directly behind a closing quote, it is the second of two that stand for one.
                let reopens = closed > 0 && closed == row.len();
                is_quoted = byte == b'"' && (begins_field || reopens);
                row.push(byte);
            }
        }
    }
    end_row(&mut row, &mut closed, &mut out);
    out
}

fn end_row(row: &mut Vec<u8>, closed: &mut usize, out: &mut Vec<u8>) {
    while row.len() > *closed && (row.ends_with(b" ") || row.ends_with(b"\t")) {
        row.pop();
    }
    if !row.is_empty() {
        out.append(row);
        out.push(b'\n');
    }
    *closed = 0;
}

/// Asserts that a field matches its text. If the input contains quotes, it is unknown whether this text was quoted.
fn assert_field(field: &Field, text: &str, quotes: bool) {
    let number = text.trim_ascii().parse::<f64>().ok();
    match field {
        Field::Text(string) => {
            assert_eq!(string, text);
            assert!(
                quotes || number.is_none(),
                "the number {text:?} became a string"
            );
        }
        Field::Number(token) => {
            let number = number.unwrap_or_else(|| panic!("{text:?} became the number {token}"));
            let written = match token.as_str() {
                "NaN" => f64::NAN,
                "Infinity" => f64::INFINITY,
                "-Infinity" => f64::NEG_INFINITY,
                _ => {
                    assert!(is_json_number(token), "{token} is not a JSON number");
                    token.parse().expect("a number")
                }
            };
            let same = number == written || (number.is_nan() && written.is_nan());
            assert!(same, "{text:?} became {token}");
        }
    }
}

/// Whether the parser accepts the token, or refuses it only because the number is too large.
fn is_json_number(token: &str) -> bool {
    let parsed = serde_json::from_str::<Value>(token);
    parsed.is_ok_and(|v| v.is_number())
        || token.parse::<f64>().is_ok_and(f64::is_infinite)
            && token
                .bytes()
                .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))
}

/// A field in the output.
#[derive(Debug, PartialEq)]
enum Field {
    Text(String),
    /// The token, unchanged.
    Number(String),
}

/// The rows of the output. A row with one field is not a list.
fn rows(output: &str) -> Vec<Vec<Field>> {
    let json = serde_json::from_str(&with_numbers_as_text(output));
    let json: Value = json.unwrap_or_else(|e| panic!("{e}: {output}"));
    assert_eq!(json.as_object().map(|o| o.len()), Some(1), "{output}");
    let field = |value: &Value| {
        let text = value
            .as_str()
            .unwrap_or_else(|| panic!("{value} is not a field"));
        match text.strip_prefix(NUMBER) {
            Some(token) => Field::Number(token.to_owned()),
            None => Field::Text(text[1..].to_owned()),
        }
    };
    let row = |value: &Value| match value {
        Value::Array(fields) => fields.iter().map(field).collect(),
        single => vec![field(single)],
    };
    let instances = json["$instances"].as_array().expect("a list");
    instances.iter().map(row).collect()
}

const NUMBER: char = '#';

/// Quotes and marks all bare tokens, because JSON parsers accept neither `NaN` nor 1e999. Strings get another mark.
fn with_numbers_as_text(output: &str) -> String {
    let mut marked = String::new();
    let mut rest = output;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => {
                let mut escaped = false;
                let end = rest[1..].find(|c| {
                    let is_end = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    is_end
                });
                let end = 1 + end.expect("strings end");
                marked.push_str("\"$");
                marked.push_str(&rest[1..=end]);
                end + 1
            }
            '{' | '}' | '[' | ']' | ',' | ':' | ' ' => {
                marked.push(first);
                1
            }
            _ => {
                let end = rest.find(['{', '}', '[', ']', ',', ':', ' ', '"']);
                let end = end.expect("the last character is a bracket");
                marked.push_str(&format!("\"{NUMBER}{}\"", &rest[..end]));
                end
            }
        };
        rest = &rest[length..];
    }
    marked
}
