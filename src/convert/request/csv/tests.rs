//! Tests of the conversion from CSV.

use super::number::skip_digits;
use super::*;
use proptest::prelude::*;
use serde_json::Value as Json;

fn converted(csv: &[u8]) -> Result<Buffer, RequestError> {
    to_tfs(&csv.to_vec().into(), None, &Target::default())
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
        ("1\r2", "1,2"),
        ("\u{e9},\u{1f600}", "[\"\u{e9}\",\"\u{1f600}\"]"),
    ] {
        assert_eq!(instances(csv), expected, "{csv:?}");
    }
}

/// The Python container trims lines and skips those that are empty then.
#[test]
fn blanks_at_the_ends_of_rows_do_not_count() {
    for (csv, expected) in [
        (" ", ""),
        (" \t\n \r\n\t", ""),
        ("1\n  \n2\n\t\n \t ", "1,2"),
        ("  1,2\n\t3,4\r\n", "[1,2],[3,4]"),
        ("1,2  \n3,4\t\r\n5,6 ", "[1,2],[3,4],[5,6]"),
        (" a ", r#""a""#),
        (" a , b , c \n", r#"["a "," b "," c"]"#),
        (" , ", r#"["",""]"#),
        ("\u{feff} 1 ", "1"),
        // Not those inside of quotes; quotes behind blanks are quotes.
        ("\" a \"", r#"" a ""#),
        ("  \" a\",\"b \"  \n", r#"[" a","b "]"#),
        ("\" \"\n\" \n \"", r#"" "," \n ""#),
        // Text behind a closing quote, as before; around other fields, as before.
        ("\"a\" ,\"b\" c ", r#"["a ","b c"]"#),
        (" a \" ", r#""a \"""#),
        // Other white space is text.
        (
            "\u{a0}a\u{a0}\n\u{b}b\u{c}",
            "\"\u{a0}a\u{a0}\",\"\\u000bb\\u000c\"",
        ),
    ] {
        assert_eq!(instances(csv), expected, "{csv:?}");
    }
    let error = converted(b"1,2\n \n 3,4,5 ").unwrap_err();
    assert!(error.text.contains("row 2 has 3"), "{error}");
    let error = converted(b"a\n  \n\xff").unwrap_err();
    assert!(error.text.contains("row 2"), "{error}");
    let strings = target(vec![tensor("s", Dtype::String, &[-1])]);
    assert_rows(&strings, &[(" a \n \n\"  \"\nb\n", r#""a","  ","b""#)]);
    let floats = target(vec![tensor("x", Dtype::Float, &[-1, 4])]);
    let row = "1,2,3,4".to_owned();
    let padded = format!("  {row}  \n \n\t{row}\t\r\n{row} ,\n", row = row);
    assert_refused(&floats, &[(&padded, "row 3 has 5 fields")]);
    assert_rows(
        &floats,
        &[
            (&padded.replace(" ,", ""), "[1,2,3,4],[1,2,3,4],[1,2,3,4]"),
            (" , 2 , 3 , ", "[NaN,2,3,NaN]"),
            (" \"1\",2,3,\"4\" ", "[1,2,3,4]"),
        ],
    );
    assert_refused(&floats, &[("\"1\" ,2,3,4", "column 1")]);
    let named = with_header(several(), Header::Present);
    let expected = r#"{"age": [7], "name": "x", "pair": [1,2]}"#;
    assert_rows(
        &named,
        &[
            ("  pair_0,name,pair_1,age  \n  1,x,2,7  \n", expected),
            (" \n\"pair_0\",name,pair_1,\"age\" \n \n1,x,2,7", expected),
        ],
    );
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

/// What a reader makes of records that were written with quotes only where needed: without blanks at the ends of rows
/// that have no quotes there, and without rows of nothing else.
fn without_outer_blanks(records: &[Vec<String>]) -> Vec<Vec<String>> {
    let is_quoted = |field: &str| field.contains([',', '"', '\n', '\r']);
    let blanks = [' ', '\t'];
    let mut kept = Vec::new();
    for record in records {
        let mut record = record.clone();
        let (last, single) = (record.len() - 1, record.len() == 1);
        if single && !record[0].is_empty() && record[0].trim_matches(blanks).is_empty() {
            continue;
        }
        if !is_quoted(&record[0]) {
            record[0] = record[0].trim_start_matches(blanks).to_owned();
        }
        if !is_quoted(&record[last]) {
            record[last] = record[last].trim_end_matches(blanks).to_owned();
        }
        kept.push(record);
    }
    kept
}

/// Records with the same number of fields.
fn records() -> impl Strategy<Value = Vec<Vec<String>>> {
    (1..6_usize)
        .prop_flat_map(|width| prop::collection::vec(prop::collection::vec(field(), width), 1..6))
}

proptest! {
    /// The `csv` crate writes records with every field quoted; the conversion yields equal strings.
    #[test]
    fn reads_fully_quoted_records_as_strings(
        records in records(),
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
        records in records(),
    ) {
        let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
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
        let records = without_outer_blanks(&records);
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
        let is_even = records.windows(2).all(|two| two[0].len() == two[1].len());
        let out = match converted(text.as_bytes()) {
            Ok(out) => out,
            Err(error) => {
                // The crate closes an open quote at the end of the input.
                prop_assert!(!is_even || error.text.contains("never closed"), "{error}");
                return Ok(());
            }
        };
        prop_assert!(is_even);
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

use crate::convert::request::target::{Header, Row, Rows};
use crate::convert::signature::testing::{signature, tensor};
use crate::convert::signature::{Dtype, Tensor};

fn target(inputs: Vec<Tensor>) -> Target {
    Target {
        signature: Some(signature(inputs, Vec::new())),
        ..Target::default()
    }
}

/// The rows that a target gets, or the text of the 400.
fn rows(csv: &str, target: &Target) -> Result<String, String> {
    let out = to_tfs(&csv.as_bytes().to_vec().into(), None, target).map_err(|error| {
        assert_eq!(error.status, 400, "{error}");
        error.text
    })?;
    let out = String::from_utf8(out.to_vec()).unwrap();
    let inner = out.strip_prefix(&format!("{}[", target.opening())).unwrap();
    Ok(inner.strip_suffix("]}").unwrap().to_owned())
}

#[track_caller]
fn assert_rows(target: &Target, cases: &[(&str, &str)]) {
    for (csv, expected) in cases {
        assert_eq!(rows(csv, target).as_deref(), Ok(*expected), "{csv:?}");
    }
}

#[track_caller]
fn assert_refused(target: &Target, cases: &[(&str, &str)]) {
    for (csv, part) in cases {
        let text = rows(csv, target).unwrap_err();
        assert!(text.contains(part), "{csv:?}: {text}");
    }
}

#[test]
fn floats_are_read_however_they_are_written() {
    let floats = target(vec![tensor("x", Dtype::Float, &[-1, 2])]);
    assert_rows(
        &floats,
        &[
            ("1,2.5\n-3e2,.5", "[1,2.5],[-3e2,0.5]"),
            ("\"1.5\",2\n3,\" 4 \"", "[1.5,2],[3,4]"),
            (
                ",NA\nnull,\\N\n\"\",nan\nNULL,na",
                "[NaN,NaN],[NaN,NaN],[NaN,NaN],[NaN,NaN]",
            ),
            ("inf,-Infinity", "[Infinity,-Infinity]"),
            ("<NA>,None\nn/a,#N/A", "[NaN,NaN],[NaN,NaN]"),
            ("True,FALSE", "[1,0]"),
            // TensorFlow Serving refuses whole numbers that a float cannot hold exactly.
            ("1234567,12345678", "[1234567,12345678.0]"),
            ("-12345678,\"16777217\"", "[-12345678.0,16777217.0]"),
            ("007,0000000012", "[7,12]"),
            ("123456789.5,123456789e1", "[123456789.5,123456789e1]"),
        ],
    );
    assert_refused(
        &floats,
        &[
            (
                "1,2\n3,x\n",
                "CSV row 2, column 2: \"x\" is not a number, and input x is float32 of shape [-1, 2].",
            ),
            ("a,b\n1,2", "column 1: \"a\" is not a number"),
            ("a,b\n1,2", "header=present"),
            ("1,truth", "\"truth\" is not a number"),
            ("1,\"2\"3", "column 2"),
            (
                "1,2\n1,2,3",
                "CSV row 2 has 3 fields, and the first row has 2.",
            ),
            ("1,2\n1", "CSV row 2 has 1 field, and the first row has 2."),
            (
                "1,2,3",
                "CSV rows have 3 fields for it, and input x is float32 of shape [-1, 2]",
            ),
        ],
    );
    let doubles = target(vec![tensor("x", Dtype::Double, &[-1])]);
    assert_rows(
        &doubles,
        &[(
            "123456789012345\n1234567890123456",
            "123456789012345,1234567890123456.0",
        )],
    );
}

#[test]
fn integers_may_have_a_fraction_of_zero_and_nothing_else() {
    let integers = target(vec![tensor("i", Dtype::Int64, &[-1])]);
    assert_rows(
        &integers,
        &[
            ("1\n-2\n007\n+4", "1,-2,7,4"),
            ("1.0\n-2.000\n3.\n\"4.0\"", "1,-2,3,4"),
            ("1e3\n2.5E+1\n-0.0\n0e9", "1000,25,0,0"),
            (
                "9223372036854775807\n-9223372036854775808.0",
                "9223372036854775807,-9223372036854775808",
            ),
            (
                "9007199254740993e1\n1e18\n9007199254740993000e-3",
                "90071992547409930,1000000000000000000,9007199254740993",
            ),
            ("True\nfalse", "1,0"),
        ],
    );
    for (field, part) in [
        (
            "1.5",
            "\"1.5\" is not a whole number of its range, and input i is int64 of shape [-1]",
        ),
        ("\"\"", "\"\" is not a whole number"),
        ("NA", "\"NA\""),
        ("null", "\"null\""),
        ("NaN", "\"NaN\""),
        ("1e-3", "\"1e-3\""),
        ("1e300", "\"1e300\""),
        ("9223372036854775808", "\"9223372036854775808\""),
        ("4503599627370496.3e0", "whole number"),
        ("1\"2", "not a whole number"),
        ("abc", "CSV row 2, column 1: \"abc\" is not a whole number"),
    ] {
        assert_refused(&integers, &[(&format!("1\n{field}\n2"), part)]);
    }
}

#[test]
fn integers_lie_in_the_range_of_their_type() {
    for (dtype, inside, outside) in [
        (Dtype::Uint8, ["0", "255"], ["256", "-1"]),
        (Dtype::Int8, ["-128", "127"], ["128", "-129"]),
        (Dtype::Uint16, ["0.0", "65535"], ["65536", "-0.5"]),
        (
            Dtype::Int32,
            ["-2147483648", "2147483647"],
            ["2147483648", "1e10"],
        ),
        (
            Dtype::Uint64,
            ["0", "18446744073709551615"],
            ["18446744073709551616", "-1"],
        ),
    ] {
        let target = target(vec![tensor("i", dtype, &[-1])]);
        for field in inside {
            let expected = field.replace(".0", "");
            assert_rows(&target, &[(field, &expected)]);
        }
        for field in outside {
            assert_refused(&target, &[(field, "is not a whole number of its range")]);
        }
    }
}

#[test]
fn strings_stay_as_they_are() {
    let strings = target(vec![tensor("s", Dtype::String, &[-1, 3])]);
    assert_rows(
        &strings,
        &[
            (
                "007,1.0,NaN\n,\"a,\"\"b\"\"\",true",
                r#"["007","1.0","NaN"],["","a,\"b\"","true"]"#,
            ),
            (" a ,\"\",\\N", r#"["a ","","\\N"]"#),
            ("a, b ,c", r#"["a"," b ","c"]"#),
        ],
    );
    let one = target(vec![tensor("s", Dtype::String, &[-1])]);
    assert_rows(&one, &[("007\n\"a,b\"", r#""007","a,b""#)]);
    assert_refused(
        &one,
        &[
            ("a,b", "SAGEMAKER_TFS_CSV_ROW=string"),
            // Spark escapes quotes with backslashes, by default.
            (r#""say \"hi\"""#, "text follows the closing quote"),
        ],
    );
}

#[test]
fn truth_values_have_four_spellings() {
    let bools = target(vec![tensor("b", Dtype::Bool, &[-1, 4])]);
    assert_rows(
        &bools,
        &[(
            "true,False,\"1\",0\nTRUE,false,1.0,\" 0\"",
            "[true,false,true,false],[true,false,true,false]",
        )],
    );
    assert_refused(
        &bools,
        &[
            ("1,0,1,yes", "column 4: \"yes\" is not true, false, 1 or 0"),
            ("1,0,1,", "column 4: \"\""),
        ],
    );
}

#[test]
fn the_shape_decides_how_rows_nest() {
    let nested =
        |shape: &[i64], csv: &str| rows(csv, &target(vec![tensor("x", Dtype::Float, shape)]));
    for (shape, csv, expected) in [
        (&[-1][..], "1\n2", "1,2"),
        (&[-1, 1], "1\n2", "[1],[2]"),
        (&[-1, 1, 1], "1\n2", "[[1]],[[2]]"),
        (&[-1, -1], "1\n2", "[1],[2]"),
        (&[-1, -1], "1,2", "[1,2]"),
        (
            &[-1, 2, 3],
            "1,2,3,4,5,6\n7,8,9,10,11,12",
            "[[1,2,3],[4,5,6]],[[7,8,9],[10,11,12]]",
        ),
        (&[-1, -1, 3], "1,2,3,4,5,6", "[[1,2,3],[4,5,6]]"),
        (&[-1, 2, -1], "1,2,3,4,5,6", "[[1,2,3],[4,5,6]]"),
        (&[-1, 2, 1, 2], "1,2,3,4", "[[[1,2]],[[3,4]]]"),
        (&[1, 2], "1,2", "[1,2]"),
        // Of unknown shape, or without rows.
        (&[], "1,2", "[1,2]"),
        (&[], "1", "1"),
    ] {
        assert_eq!(
            nested(shape, csv).as_deref(),
            Ok(expected),
            "{shape:?} {csv}"
        );
    }
    for (shape, csv) in [
        (&[-1][..], "1,2"),
        (&[-1, 2, 3], "1,2,3,4,5"),
        (&[-1, -1, 3], "1,2,3,4"),
        (&[-1, -1, -1], "1,2"),
        (&[-1, 0], "1"),
        (&[-1, i64::MAX, i64::MAX], "1"),
    ] {
        assert!(
            nested(shape, csv).unwrap_err().contains("do not fit"),
            "{shape:?}"
        );
    }
    let mut unknown = tensor("x", Dtype::Int32, &[]);
    unknown.shape = None;
    assert_rows(
        &target(vec![unknown]),
        &[("1.0\n2", "1,2"), ("1.0,2", "[1,2]")],
    );
}

#[test]
fn graphs_of_tensorflow_1_take_other_shapes_than_they_list() {
    let mut x = tensor("x", Dtype::Float, &[-1, 1]);
    x.is_strict = false;
    let loose = target(vec![x]);
    assert_rows(&loose, &[("1\n\"2\"", "1,2"), ("1,2,3", "[1,2,3]")]);
    let mut x = tensor("x", Dtype::Float, &[-1, 2, 2]);
    x.is_strict = false;
    let loose = target(vec![x]);
    assert_rows(
        &loose,
        &[("1,2,3,4", "[[1,2],[3,4]]"), ("1,2,3", "[1,2,3]")],
    );
}

fn several() -> Vec<Tensor> {
    vec![
        tensor("age", Dtype::Int64, &[-1, 1]),
        tensor("name", Dtype::String, &[-1]),
        tensor("pair", Dtype::Float, &[-1, 2]),
    ]
}

fn with_header(inputs: Vec<Tensor>, csv_header: Header) -> Target {
    Target {
        csv_header,
        ..target(inputs)
    }
}

#[test]
fn a_header_names_inputs_in_any_order() {
    let present = with_header(several(), Header::Present);
    let expected =
        r#"{"age": [7], "name": "007", "pair": [1,2]},{"age": [8], "name": "x", "pair": [3,NaN]}"#;
    for header in [
        "pair_0,name,pair_1,age",
        "pair,name,pair,age",
        "pair,name,pair.1,age",
        "pair_1,name,pair_2,age",
        "\"pair_0\", name ,pair_1,age",
    ] {
        let csv = format!("{header}\n1,007,2,7.0\n3,x,,8\n");
        assert_eq!(rows(&csv, &present).as_deref(), Ok(expected), "{header}");
    }
    assert_rows(
        &present,
        &[(
            "pair_1,pair_0,name,age\n1,2,x,3",
            r#"{"age": [3], "name": "x", "pair": [2,1]}"#,
        )],
    );
    assert_rows(&present, &[("pair_1,pair_0,name,age\n", "")]);
    assert_refused(
        &present,
        &[
            (
                "name,age\nx,1",
                "no column for input \"pair\"; the inputs are age, name, pair.",
            ),
            (
                "name,age,pair_0,pair_0\n",
                "numbers do not follow one another for input \"pair\"",
            ),
            ("name,age,pair_5,pair_9\n", "numbers do not follow"),
            ("name,age,pair,pair_2\n", "numbers do not follow"),
            (
                "name,age,pair,pair,other\n",
                "column 5, \"other\", is no input of the model",
            ),
            (",name,age,pair,pair\n", "index=False"),
            (
                "name,age,pair\nx,1,2",
                "input pair is float32 of shape [-1, 2]",
            ),
            (
                "name,age,pair,pair\nx,1,2",
                "CSV row 2 has 3 fields, and the first row has 4.",
            ),
            ("name,age,pair,pair\nx,1,2,3,4", "CSV row 2 has 5 fields"),
            (
                "name,age,pair,pair\nx,1.5,2,3",
                "CSV row 2, column 2: \"1.5\" is not a whole number",
            ),
        ],
    );
}

#[test]
fn without_a_header_inputs_of_one_field_are_read_in_alphabetical_order() {
    let inputs = vec![
        tensor("a", Dtype::String, &[-1]),
        tensor("b", Dtype::Float, &[-1, 1]),
    ];
    let positions = target(inputs.clone());
    assert_rows(
        &positions,
        &[(
            "1,2\nx,\n",
            r#"{"a": "1", "b": [2]},{"a": "x", "b": [NaN]}"#,
        )],
    );
    assert_refused(
        &positions,
        &[
            ("1,2,3", "The model has several inputs: a, b."),
            ("1", "these have 1 field."),
        ],
    );
    assert_refused(&target(several()), &[("1,x,2", "header=present")]);
    // The first row cannot be data because `b` is no number, or because it names the inputs.
    let auto = with_header(inputs, Header::Auto);
    assert_rows(
        &auto,
        &[
            ("b,a\n1,2", r#"{"a": "2", "b": [1]}"#),
            ("a,b\n1,2", r#"{"a": "1", "b": [2]}"#),
            ("1,2", r#"{"a": "1", "b": [2]}"#),
        ],
    );
    assert_refused(&auto, &[("x,y\n1,2", "column 2: \"y\" is not a number")]);
}

#[test]
fn a_header_is_recognized_only_where_it_cannot_be_data() {
    let numbers = |header| with_header(vec![tensor("x", Dtype::Float, &[-1, 2])], header);
    assert_rows(
        &numbers(Header::Present),
        &[("a,b\n1,2", "[1,2]"), ("1,2\n3,4", "[3,4]"), ("a,b", "")],
    );
    assert_rows(
        &numbers(Header::Auto),
        &[
            ("a,b\n1,2", "[1,2]"),
            ("1,2\n3,4", "[1,2],[3,4]"),
            ("x_0,x_1\n3,4", "[3,4]"),
            (",NA\n3,4", "[NaN,NaN],[3,4]"),
        ],
    );
    let text = with_header(vec![tensor("s", Dtype::String, &[-1])], Header::Auto);
    assert_rows(&text, &[("s\na", r#""a""#), ("t\na", r#""t","a""#)]);
    // One wrong field makes no header, or the row would be lost.
    assert_refused(
        &numbers(Header::Auto),
        &[("1,b\n3,4", "column 2: \"b\""), ("1.2.3,1", "column 1")],
    );
    assert_refused(
        &numbers(Header::Present),
        &[(
            ",b\n0,1",
            "column 1 has no name (pandas writes its index there",
        )],
    );
    let typed = |dtype| with_header(vec![tensor("i", dtype, &[-1, 2])], Header::Auto);
    for (dtype, row) in [
        (Dtype::Int64, "1.5,2.5"),
        (Dtype::Uint8, "-1,256"),
        (Dtype::Bool, "2,3"),
        (Dtype::Float, "\"a\"b,\"c\"d"),
    ] {
        assert_refused(
            &typed(dtype),
            &[(&format!("{row}\n1,0"), "CSV row 1, column 1")],
        );
        assert_refused(&typed(dtype), &[("a,b\n", "Only a CSV header is there")]);
    }
    let quoted = with_header(several(), Header::Present);
    assert_refused(
        &quoted,
        &[(
            "\"name\"x,age,pair,pair\n",
            "text follows the closing quote",
        )],
    );
    // Nothing says what is data.
    let unknown = |csv_header| Target {
        csv_header,
        ..Target::default()
    };
    assert_rows(
        &unknown(Header::Auto),
        &[("a,b\n1,2", r#"["a","b"],[1,2]"#)],
    );
    assert_rows(&unknown(Header::Present), &[("a,b\n1,2", "[1,2]")]);
}

#[test]
fn the_setting_decides_how_rows_are_read() {
    let set = |csv_row, inputs| Target {
        csv_row,
        ..target(inputs)
    };
    let text = || vec![tensor("s", Dtype::String, &[-1, 1])];
    assert_rows(
        &set(Row::String, text()),
        &[
            ("a,\"b\"\r\n\n1", r#"["a,\"b\""],["1"]"#),
            ("\"open", r#"["\"open"]"#),
            // Blanks belong to the line, but a line of blanks is none.
            (" a,\tb \n \t\n\tc", r#"[" a,\tb "],["\tc"]"#),
        ],
    );
    let header = Target {
        csv_header: Header::Present,
        ..set(Row::String, text())
    };
    assert_rows(&header, &[("s,t\na,b", r#"["a,b"]"#)]);
    // Models with other inputs are not affected.
    assert_rows(
        &set(Row::String, vec![tensor("x", Dtype::Float, &[-1])]),
        &[("\"1\"", "1")],
    );
    assert_rows(
        &set(Row::Fields, vec![tensor("x", Dtype::Float, &[-1, 1])]),
        &[("1\n\"2\"", "1,\"2\""), ("1,2,3", "[1,2,3]")],
    );
}

#[test]
fn examples_have_features_by_the_names_in_the_header() {
    let examples = |csv_header| Target {
        rows: Rows::Examples,
        csv_header,
        ..target(vec![tensor("inputs", Dtype::String, &[-1])])
    };
    assert_rows(
        &examples(Header::Present),
        &[(
            "x,\"a\"\"b\",x\n1,z,2\n\"3\",,4",
            r#"{"a\"b": "z", "x": [1,2]},{"a\"b": "", "x": ["3",4]}"#,
        )],
    );
    assert_refused(&examples(Header::Absent), &[("1,2", "header=present")]);
}

#[test]
fn names_the_signature_in_the_request() {
    let named = Target {
        signature_name: Some("a\"b".into()),
        ..Target::default()
    };
    let out = to_tfs(&b"1".to_vec().into(), None, &named).unwrap();
    assert_eq!(&*out, br#"{"signature_name": "a\"b", "instances": [1]}"#);
}

#[test]
fn names_that_every_row_repeats_are_short() {
    let examples = Target {
        rows: Rows::Examples,
        csv_header: Header::Present,
        ..Target::default()
    };
    let long = format!("{}\n1\n", "k".repeat(201));
    assert_refused(&examples, &[(&long, "a name of 201 bytes")]);
    let wide = format!("{}k\n", "k,".repeat(100_000));
    assert_refused(&examples, &[(&wide, "100001 columns")]);
}

#[test]
fn hostile_rows_cost_no_more_memory_than_they_have_bytes() {
    let budget = crate::budget::Budget::new(1 << 20);
    let mut body = budget.arriving(0);
    body.extend(&b",".repeat(99_999)).unwrap();
    body.extend(b"\n").unwrap();
    let examples = Target {
        rows: Rows::Examples,
        csv_header: Header::Present,
        ..Target::default()
    };
    assert_eq!(to_tfs(&body, None, &examples).unwrap_err().status, 413);
    let mut any = tensor("x", Dtype::Float, &[]);
    any.shape = None;
    let two = vec![
        any.clone(),
        Tensor {
            name: "y".into(),
            ..any
        },
    ];
    let named = with_header(two, Header::Present);
    assert_eq!(to_tfs(&body, None, &named).unwrap_err().status, 413);
}

proptest! {
    /// By the signature, quotes make no difference to numbers, and strings are what the `csv` crate reads.
    #[test]
    fn quotes_make_no_difference_where_the_type_is_known(
        numbers in prop::collection::vec(prop::collection::vec(any::<f64>(), 3), 1..5),
    ) {
        let write = |style| {
            let mut writer = csv::WriterBuilder::new().quote_style(style).from_writer(Vec::new());
            for row in &numbers {
                writer.write_record(row.iter().map(f64::to_string)).unwrap();
            }
            writer.into_inner().unwrap()
        };
        let doubles = target(vec![tensor("x", Dtype::Double, &[-1, 3])]);
        let strings = target(vec![tensor("x", Dtype::String, &[-1, 3])]);
        for target in [&doubles, &strings] {
            let always = to_tfs(&write(csv::QuoteStyle::Always).into(), None, target).unwrap();
            let sparse = to_tfs(&write(csv::QuoteStyle::Necessary).into(), None, target).unwrap();
            prop_assert_eq!(always, sparse);
        }
    }

    #[test]
    fn the_strings_of_a_string_input_are_those_of_the_csv_crate(records in records()) {
        let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
        for record in &records {
            writer.write_record(record).unwrap();
        }
        let shape = [-1, i64::try_from(records[0].len()).unwrap()];
        let strings = target(vec![tensor("s", Dtype::String, &shape)]);
        let out = to_tfs(&writer.into_inner().unwrap().into(), None, &strings);
        let records = without_outer_blanks(&records);
        let parsed: Json = serde_json::from_slice(&out.unwrap()).unwrap();
        prop_assert_eq!(&parsed["instances"], &Json::from(records));
    }

    /// Never a panic, and always valid JSON apart from the words for numbers.
    #[test]
    fn any_text_gives_json_or_400(
        text in "[ab1.,\"\n-]{0,40}",
        columns in 1..4_i64,
        dtype in prop::sample::select(vec![Dtype::Float, Dtype::Int64, Dtype::Bool, Dtype::String]),
        header in prop::sample::select(vec![Header::Absent, Header::Present, Header::Auto]),
    ) {
        let input = |name| tensor(name, dtype, &[-1, columns]);
        for inputs in [vec![input("a")], vec![input("a"), input("b")]] {
            match rows(&text, &with_header(inputs, header)) {
                Ok(rows) => {
                    let rows = format!("[{}]", rows.replace("NaN", "0"));
                    prop_assert!(serde_json::from_str::<Json>(&rows).is_ok(), "{}", rows);
                }
                Err(text) => prop_assert!(text.len() < 600, "{}", text),
            }
        }
    }
}
