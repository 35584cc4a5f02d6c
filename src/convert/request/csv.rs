//! Converts CSV into `{"instances": [...]}`: each row becomes an instance, each bare number a JSON number, and each
//! other field a string.
//!
//! Quoting follows RFC 4180. A quoted field is always a string, and the `csv` crate does not report which fields were
//! quoted, so this module has its own parser; tests compare it with that crate.

use super::target::escape;
use crate::budget::{Buffer, NoRoom};
use crate::error::RequestError;

/// Converts a CSV body into the body of a request to TensorFlow Serving.
///
/// # Errors
/// 400 with the row for bytes that are not UTF-8 or a quote that is never closed; 413 or 503 when no memory is left.
pub fn to_tfs(buffer: &Buffer) -> Result<Buffer, RequestError> {
    let body: &[u8] = buffer;
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if let Err(error) = std::str::from_utf8(body) {
        return Err(RequestError::bad_request(format!(
            "CSV row {} is not valid UTF-8.",
            row_of(body, error.valid_up_to(), buffer.sibling())
        )));
    }
    // Room for brackets and commas, and for some fields that grow. Larger results are rare and cost a copy.
    let mut out = buffer.sibling();
    let likely = body.len() + body.len() / 8 + 64;
    out.reserve_likely(likely, body.len())?;
    out.extend(b"{\"instances\": [")?;
    let mut rows = Rows::new(body);
    while rows.write_next(&mut out)? {}
    out.extend(b"]}")?;
    Ok(out)
}

/// The number, from 1, of the row that contains the byte at `at`.
fn row_of(body: &[u8], at: usize, mut scratch: Buffer) -> usize {
    let before = &body[..at];
    let mut rows = Rows::new(before);
    loop {
        scratch.consume(scratch.len());
        match rows.write_next(&mut scratch) {
            Ok(true) => {}
            Ok(false) if matches!(before.last(), None | Some(b'\n' | b'\r')) => {
                return rows.row + 1;
            }
            // The byte is inside a row or a quoted field.
            Ok(false) | Err(_) => return rows.row.max(1),
        }
    }
}

struct Rows<'a> {
    body: &'a [u8],
    at: usize,
    /// The number of rows begun, which is also the number of the current row.
    row: usize,
}

impl<'a> Rows<'a> {
    fn new(body: &'a [u8]) -> Self {
        Self {
            body,
            at: 0,
            row: 0,
        }
    }

    /// Writes the next row as a JSON value, after a comma unless it is the first. `false` at the end of the body.
    fn write_next(&mut self, out: &mut Buffer) -> Result<bool, RequestError> {
        while matches!(self.peek(), Some(b'\n' | b'\r')) {
            self.at += 1; // blank lines, and the \n of \r\n
        }
        if self.at >= self.body.len() {
            return Ok(false);
        }
        if self.row > 0 {
            out.extend(b",")?;
        }
        self.row += 1;

        let bracket = out.len();
        out.extend(b"[")?;
        let mut single = true;
        loop {
            // Plain numbers are valid JSON, so a run of them is copied at once, with its commas.
            let run = self.at;
            while let Some(end) = plain_number(self.body, self.at) {
                self.at = end;
                if self.peek() != Some(b',') {
                    out.extend(&self.body[run..end])?;
                    close_row(out, bracket, single)?;
                    return Ok(true);
                }
                self.at += 1;
                single = false;
            }
            out.extend(&self.body[run..self.at])?;

            self.write_field(out)?;
            if self.peek() != Some(b',') {
                close_row(out, bracket, single)?;
                return Ok(true);
            }
            self.at += 1;
            out.extend(b",")?;
            single = false;
        }
    }

    /// Writes a field that is not a plain number. Stops at the comma or line end after it.
    fn write_field(&mut self, out: &mut Buffer) -> Result<(), RequestError> {
        if self.peek() == Some(b'"') {
            return self.write_quoted(out);
        }
        let field = self.bare_part();
        if !write_number(field, out)? {
            out.extend(b"\"")?;
            escape(field, out)?;
            out.extend(b"\"")?;
        }
        Ok(())
    }

    fn write_quoted(&mut self, out: &mut Buffer) -> Result<(), RequestError> {
        out.extend(b"\"")?;
        self.at += 1;
        loop {
            let rest = &self.body[self.at..];
            let Some(quote) = memchr::memchr(b'"', rest) else {
                return Err(RequestError::bad_request(format!(
                    "CSV row {}: a quoted field is never closed.",
                    self.row
                )));
            };
            escape(&rest[..quote], out)?;
            self.at += quote + 1;
            if self.peek() != Some(b'"') {
                break;
            }
            escape(b"\"", out)?; // two quotes stand for one
            self.at += 1;
        }
        // RFC 4180 allows no text after the closing quote. Other readers keep it, and so does this one.
        escape(self.bare_part(), out)?;
        out.extend(b"\"")?;
        Ok(())
    }

    /// Returns the bytes up to the next comma or line end, and stops there.
    fn bare_part(&mut self) -> &'a [u8] {
        let rest = &self.body[self.at..];
        let length = rest
            .iter()
            .position(|b| matches!(b, b',' | b'\n' | b'\r'))
            .unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }
}

/// Ends a row. A row with one column is a scalar, so its bracket is removed, which moves only one field.
fn close_row(out: &mut Buffer, bracket: usize, single: bool) -> Result<(), NoRoom> {
    if single {
        out.bytes_mut().remove(bracket);
        return Ok(());
    }
    out.extend(b"]")
}

/// The end of the field at `at` if the field is a valid JSON number.
fn plain_number(body: &[u8], mut at: usize) -> Option<usize> {
    let byte = |at: usize| body.get(at).copied();
    // Without a branch, because processors predict signs badly.
    at += usize::from(byte(at) == Some(b'-'));
    let integer = at;
    at = skip_digits(body, at);
    if at == integer || (byte(integer) == Some(b'0') && at > integer + 1) {
        return None;
    }
    if byte(at) == Some(b'.') {
        let fraction = at + 1;
        at = skip_digits(body, fraction);
        if at == fraction {
            return None;
        }
    }
    if let Some(b'e' | b'E') = byte(at) {
        at += 1;
        if let Some(b'+' | b'-') = byte(at) {
            at += 1;
        }
        let exponent = at;
        at = skip_digits(body, exponent);
        if at == exponent {
            return None;
        }
    }
    matches!(byte(at), None | Some(b',' | b'\n' | b'\r')).then_some(at)
}

/// The end of the run of digits at `at`. Looks at eight bytes at a time, because most of a CSV body is numbers.
fn skip_digits(body: &[u8], mut at: usize) -> usize {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    const TO_TOP_BIT: u64 = 0x7676_7676_7676_7676; // sets bit 7 of a byte that is 10 or more
    const TOP_BITS: u64 = 0x8080_8080_8080_8080;
    while let Some(eight) = body.get(at..at + 8) {
        let word = u64::from_le_bytes(eight.try_into().expect("eight bytes")) ^ ZEROS;
        // Only a byte that is no digit carries into the next byte, so the first such byte is always right.
        let others = (word.wrapping_add(TO_TOP_BIT) | word) & TOP_BITS;
        if others != 0 {
            return at + (others.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while body.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
}

/// Writes `field` as a JSON number if it is a number in a common spelling: `.5`, `+1`, `1.`, `007`, ` 1e5`, or `NaN`,
/// `inf` or `infinity` in any case, which become the spellings that TensorFlow Serving reads. `false`: the field is no
/// number.
fn write_number(field: &[u8], out: &mut Buffer) -> Result<bool, NoRoom> {
    let text = field.trim_ascii();
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let sign: &[u8] = if negative { b"-" } else { b"" };

    let word = |name: &str| text.eq_ignore_ascii_case(name.as_bytes());
    if word("nan") {
        out.extend(b"NaN")?;
        return Ok(true);
    }
    if word("inf") || word("infinity") {
        out.extend(sign)?;
        out.extend(b"Infinity")?;
        return Ok(true);
    }

    let integer_end = skip_digits(text, 0);
    let integer = &text[..integer_end];
    let mut rest = &text[integer_end..];
    let mut fraction = None;
    if let Some(after_point) = rest.strip_prefix(b".") {
        let end = skip_digits(after_point, 0);
        fraction = Some(&after_point[..end]);
        rest = &after_point[end..];
    }
    if integer.is_empty() && fraction.is_none_or(<[u8]>::is_empty) {
        return Ok(false);
    }
    let exponent = rest;
    if !exponent.is_empty() && !is_exponent(exponent) {
        return Ok(false);
    }

    out.extend(sign)?;
    match integer.iter().position(|&digit| digit != b'0') {
        Some(first) => out.extend(&integer[first..])?,
        None => out.extend(b"0")?,
    }
    if let Some(fraction) = fraction {
        out.extend(b".")?;
        out.extend(if fraction.is_empty() { b"0" } else { fraction })?;
    }
    out.extend(exponent)?;
    Ok(true)
}

fn is_exponent(text: &[u8]) -> bool {
    let digits = match text {
        [b'e' | b'E', b'+' | b'-', digits @ ..] | [b'e' | b'E', digits @ ..] => digits,
        _ => return false,
    };
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value as Json;

    fn converted(csv: &[u8]) -> Result<Buffer, RequestError> {
        to_tfs(&csv.to_vec().into())
    }

    fn instances(csv: &str) -> String {
        let out = String::from_utf8(converted(csv.as_bytes()).unwrap().to_vec()).unwrap();
        let inner = out.strip_prefix("{\"instances\": [").unwrap();
        inner.strip_suffix("]}").unwrap().to_owned()
    }

    #[test]
    fn converts_rows_to_instances() {
        for (csv, expected) in [
            ("1.0\n2.0\n5.0\n", "1.0,2.0,5.0"),
            ("1.0\r\n2.0\r\n5.0", "1.0,2.0,5.0"),
            ("1.0,2.0,5.0\n3.0,4.0,5.0", "[1.0,2.0,5.0],[3.0,4.0,5.0]"),
            ("a\nb", r#""a","b""#),
            ("a,1\nb,2", r#"["a",1],["b",2]"#),
            ("1,a,2,b,3", r#"[1,"a",2,"b",3]"#),
            ("\n\n1\n\r\n\n2\n\n", "1,2"),
            ("", ""),
            ("\n", ""),
            ("\u{feff}1,2", "[1,2]"),
            ("\u{feff}\"a\"", r#""a""#),
            (",", r#"["",""]"#),
            ("1,\n,1", r#"[1,""],["",1]"#),
            (" ", r#"" ""#),
            ("1\r2", "1,2"),
            ("\u{e9},\u{1f600}", "[\"\u{e9}\",\"\u{1f600}\"]"),
        ] {
            assert_eq!(instances(csv), expected, "{csv:?}");
        }
    }

    #[test]
    fn converts_quoted_fields_to_strings() {
        for (csv, expected) in [
            (r#""1.0""#, r#""1.0""#),
            (r#""1",2"#, r#"["1",2]"#),
            (r#""a,b","c""d""#, r#"["a,b","c\"d"]"#),
            ("\"a\nb\"\nc", r#""a\nb","c""#),
            (r#""""#, r#""""#),
            (r#""""""#, r#""\"""#),
            (r#""a"b,c"#, r#"["ab","c"]"#),
            (r#"a"b,c"#, r#"["a\"b","c"]"#),
            (r"a\b", r#""a\\b""#),
            ("a\tb\u{1}", r#""a\tb\u0001""#),
        ] {
            assert_eq!(instances(csv), expected, "{csv:?}");
        }
    }

    #[test]
    fn converts_numbers_in_common_spellings() {
        for (field, expected) in [
            ("0", "0"),
            ("-0", "-0"),
            ("12345678901234567890", "12345678901234567890"),
            ("1.5", "1.5"),
            ("-1.5", "-1.5"),
            ("1e5", "1e5"),
            ("1E+05", "1E+05"),
            ("1.5e-7", "1.5e-7"),
            (".5", "0.5"),
            ("-.5", "-0.5"),
            ("+.5", "0.5"),
            ("+1", "1"),
            ("1.", "1.0"),
            ("-1.", "-1.0"),
            ("1.e5", "1.0e5"),
            ("007", "7"),
            ("000", "0"),
            ("00.50", "0.50"),
            (" 1", "1"),
            ("1 ", "1"),
            ("\t-2.5 ", "-2.5"),
            ("NaN", "NaN"),
            ("nan", "NaN"),
            ("-nan", "NaN"),
            ("inf", "Infinity"),
            ("-INF", "-Infinity"),
            ("+Infinity", "Infinity"),
            ("123456789.123456789", "123456789.123456789"),
        ] {
            assert_eq!(instances(field), expected, "{field:?}");
            assert_eq!(
                instances(&format!("{field},x")),
                format!("[{expected},\"x\"]"),
                "{field:?}"
            );
            assert_eq!(
                instances(&format!("x,{field}")),
                format!("[\"x\",{expected}]"),
                "{field:?}"
            );
        }
    }

    #[test]
    fn converts_fields_that_only_resemble_numbers_to_strings() {
        for field in [
            "-",
            "+",
            ".",
            "-.",
            "e5",
            "1e",
            "1e+",
            "1e5.0",
            "1.2.3",
            "1-2",
            "--1",
            "+-1",
            "0x10",
            "1_000",
            "12a",
            "1 2",
            "1d5",
            "nanx",
            "in",
            "1e5e5",
            "true",
            "2020-01-01",
            "1/2",
            "1:2",
            "\u{0661}",
        ] {
            assert_eq!(instances(field), format!("{field:?}"), "{field:?}");
        }
    }

    #[test]
    fn returns_400_with_the_row_for_invalid_utf8() {
        for (csv, row) in [
            (&b"\xff"[..], 1),
            (b"a\n\xff", 2),
            (b"a\nb,\xff", 2),
            (b"a\n\n\nb\xff", 2),
            (b"\"a\nb\"\n\"c\n\xff\"", 2),
            (b"\xef\xbb\xbfa\r\nb\r\n\xc3(", 3),
            (b"a\nb\n\xe2\x82", 3),
        ] {
            let error = converted(csv).unwrap_err();
            assert_eq!(error.status, 400);
            assert_eq!(
                error.text,
                format!("CSV row {row} is not valid UTF-8."),
                "{csv:?}"
            );
        }
    }

    #[test]
    fn returns_400_with_the_row_for_an_open_quote() {
        let error = converted(b"a\nb\n\"c\nd").unwrap_err();
        assert_eq!((error.status, error.text.contains("row 3")), (400, true));
    }

    fn field() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z0-9+.eE,\"\n\r -]{0,12}",
            "\\PC{0,8}",
            any::<f64>().prop_map(|n| n.to_string()),
            any::<i64>().prop_map(|n| n.to_string()),
        ]
    }

    proptest! {
        /// The `csv` crate writes records with every field quoted; the conversion yields equal strings.
        #[test]
        fn reads_fully_quoted_records_as_strings(
            records in prop::collection::vec(prop::collection::vec(field(), 1..6), 1..6),
            crlf in any::<bool>(),
        ) {
            let mut writer = csv::WriterBuilder::new()
                .flexible(true)
                .quote_style(csv::QuoteStyle::Always)
                .terminator(if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') })
                .from_writer(Vec::new());
            for record in &records {
                writer.write_record(record).unwrap();
            }
            let out = converted(&writer.into_inner().unwrap()).unwrap();
            let parsed: Json = serde_json::from_slice(&out).unwrap();
            let expected: Vec<Json> = records
                .iter()
                .map(|r| if r.len() == 1 { r[0].as_str().into() } else { r.clone().into() })
                .collect();
            prop_assert_eq!(&parsed["instances"], &Json::from(expected));
        }

        /// The `csv` crate writes records with quotes only where needed; the conversion yields numbers of equal value
        /// and equal strings.
        #[test]
        fn reads_sparsely_quoted_records_as_numbers_and_strings(
            records in prop::collection::vec(prop::collection::vec(field(), 1..6), 1..6),
        ) {
            let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
            for record in &records {
                writer.write_record(record).unwrap();
            }
            let text = writer.into_inner().unwrap();
            let out = converted(&text).unwrap();
            // TensorFlow Serving reads NaN and Infinity, but serde_json does not.
            let out = String::from_utf8(out.to_vec()).unwrap();
            prop_assume!(!out.contains("NaN") && !out.contains("Infinity"));
            let Ok(parsed) = serde_json::from_str::<Json>(&out) else {
                // serde_json may only refuse numbers that are too large for a double.
                return Err(TestCaseError::reject("number out of range"));
            };
            let rows = parsed["instances"].as_array().unwrap();
            prop_assert_eq!(rows.len(), records.len());
            for (row, record) in rows.iter().zip(&records) {
                let fields = match row {
                    Json::Array(fields) => fields.clone(),
                    single => vec![single.clone()],
                };
                prop_assert_eq!(fields.len(), record.len());
                for (field, text) in fields.iter().zip(record) {
                    match field {
                        Json::String(string) => prop_assert_eq!(string, text),
                        number => {
                            let written: f64 = text.trim_ascii().parse().unwrap();
                            prop_assert_eq!(number.as_f64().unwrap(), written);
                        }
                    }
                }
            }
        }

        /// Fields end where the `csv` crate's reader ends them.
        #[test]
        fn splits_fields_like_the_csv_crate(text in "[ab1.,\"\n]{0,40}") {
            let mut reader = csv::ReaderBuilder::new()
                .has_headers(false)
                .flexible(true)
                .from_reader(text.as_bytes());
            let records: Vec<Vec<String>> = reader
                .records()
                .map(|r| r.unwrap().iter().map(str::to_owned).collect())
                .collect();
            let Ok(out) = converted(text.as_bytes()) else {
                // The only difference: the crate closes an open quote at the end of the input.
                prop_assert!(text.contains('"'));
                return Ok(());
            };
            let parsed: Json = serde_json::from_slice(&out).unwrap();
            let rows = parsed["instances"].as_array().unwrap();
            prop_assert_eq!(rows.len(), records.len());
            for (row, record) in rows.iter().zip(records) {
                let width = row.as_array().map_or(1, Vec::len);
                prop_assert_eq!(width, record.len());
            }
        }

        #[test]
        fn skips_the_same_digits_as_a_bytewise_loop(text in "[0-9./:\u{e9}-]{0,30}") {
            let body = text.as_bytes();
            let expected = body.iter().position(|b| !b.is_ascii_digit()).unwrap_or(body.len());
            prop_assert_eq!(skip_digits(body, 0), expected);
        }
    }
}
