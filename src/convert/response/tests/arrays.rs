//! npy and npz.

use super::*;
use proptest::prelude::*;
use std::io::Read as _;

/// The parts of an array's file: type, shape and data.
fn parsed(file: &[u8]) -> (String, String, Vec<u8>) {
    assert_eq!(&file[..8], b"\x93NUMPY\x01\x00");
    let length = usize::from(u16::from_le_bytes([file[8], file[9]]));
    assert_eq!((10 + length) % 64, 0);
    let header = str::from_utf8(&file[10..10 + length]).unwrap();
    assert!(header.ends_with(" \n"), "{header:?}");
    let rest = header.strip_prefix("{'descr': '").unwrap();
    let (descr, rest) = rest
        .split_once("', 'fortran_order': False, 'shape': (")
        .unwrap();
    let (shape, rest) = rest.split_once("), }").unwrap();
    assert_eq!(rest.trim(), "");
    (descr.into(), shape.into(), file[10 + length..].to_vec())
}

fn array(json: &str, outputs: &[Tensor]) -> (String, String, Vec<u8>) {
    let (file, content_type) = converted(json, Accepted::Npy, outputs).unwrap();
    assert_eq!(content_type, "application/x-npy");
    parsed(&file)
}

/// The names and contents of the files in an archive.
fn unpacked(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let archive = rawzip::ZipArchive::from_slice(archive).unwrap();
    let entries = archive.entries().map(|entry| {
        let entry = entry.unwrap();
        let name = entry
            .file_path()
            .try_normalize()
            .unwrap()
            .as_str()
            .to_owned();
        let found = archive.get_entry(entry.wayfinder()).unwrap();
        let mut content = Vec::new();
        found
            .verifying_reader(found.data())
            .read_to_end(&mut content)
            .unwrap();
        (name, content)
    });
    entries.collect()
}

fn names(json: &str, outputs: &[Tensor]) -> Vec<String> {
    let (archive, _) = converted(json, Accepted::Npz, outputs).unwrap();
    unpacked(&archive)
        .into_iter()
        .map(|(name, _)| name)
        .collect()
}

fn tensor(dtype: Dtype) -> Tensor {
    testing::tensor("y", dtype, &[-1])
}

#[test]
fn types_follow_the_signature() {
    for (dtype, json, descr, data) in [
        (
            Dtype::Float,
            "[1.5, NaN]",
            "<f4",
            [1.5_f32.to_le_bytes(), f32::NAN.to_le_bytes()].concat(),
        ),
        (Dtype::Half, "[1]", "<f4", 1_f32.to_le_bytes().to_vec()),
        (
            Dtype::Bfloat16,
            "[-Infinity]",
            "<f4",
            f32::NEG_INFINITY.to_le_bytes().to_vec(),
        ),
        (
            Dtype::Double,
            "[-0.1]",
            "<f8",
            (-0.1_f64).to_le_bytes().to_vec(),
        ),
        (Dtype::Int8, "[-128, 127]", "|i1", vec![0x80, 0x7f]),
        (Dtype::Int16, "[-2]", "<i2", vec![0xfe, 0xff]),
        (Dtype::Int32, "[-2147483648]", "<i4", vec![0, 0, 0, 0x80]),
        (
            Dtype::Int64,
            "[-9223372036854775808]",
            "<i8",
            vec![0, 0, 0, 0, 0, 0, 0, 0x80],
        ),
        (Dtype::Uint8, "[255]", "|u1", vec![255]),
        (Dtype::Uint16, "[65535]", "<u2", vec![255; 2]),
        (Dtype::Uint32, "[4294967295]", "<u4", vec![255; 4]),
        (Dtype::Uint64, "[18446744073709551615]", "<u8", vec![255; 8]),
        (Dtype::Bool, "[true, false]", "|b1", vec![1, 0]),
        (Dtype::String, "[\"\\u00e9\"]", "<U1", vec![0xe9, 0, 0, 0]),
    ] {
        let json = format!("{{\"predictions\": {json}}}");
        let (found, _, bytes) = array(&json, &[tensor(dtype)]);
        assert_eq!((found.as_str(), bytes), (descr, data), "{json}");
    }
}

#[test]
fn values_decide_when_the_signature_does_not_fit() {
    let inferred = [
        ("[1, -2]", "<i8"),
        ("[18446744073709551615]", "<u8"),
        ("[18446744073709551615, -1]", "<f8"),
        ("[18446744073709551616]", "<f8"),
        ("[1, 2.5]", "<f8"),
        ("[NaN]", "<f8"),
        ("[true]", "|b1"),
        ("[\"abc\", \"\"]", "<U3"),
        ("[\"\"]", "<U1"),
        ("[{\"b64\": \"YWJj\"}, {\"b64\": \"YQ==\"}]", "|S3"),
        ("[{\"b64\": \"\"}]", "|S1"),
        ("[]", "<f8"),
    ];
    for (list, descr) in inferred {
        let json = format!("{{\"predictions\": {list}}}");
        assert_eq!(array(&json, &[]).0, descr, "{list}");
        let several = [
            tensor(Dtype::Int8),
            testing::tensor("z", Dtype::Int8, &[-1]),
        ];
        assert_eq!(array(&json, &several).0, descr, "{list}");
    }
    for (dtype, list, descr) in [
        (Dtype::Int8, "[128]", "<i8"),
        (Dtype::Uint8, "[-1]", "<i8"),
        (Dtype::Int64, "[1.5]", "<f8"),
        (Dtype::Int64, "[9223372036854775808]", "<u8"),
        (Dtype::Float, "[true]", "|b1"),
        (Dtype::Bool, "[1]", "<i8"),
        (Dtype::String, "[1]", "<i8"),
        (Dtype::Other, "[1.0]", "<f8"),
    ] {
        let json = format!("{{\"predictions\": {list}}}");
        assert_eq!(array(&json, &[tensor(dtype)]).0, descr, "{dtype:?} {list}");
    }
}

#[test]
fn shapes_follow_the_nesting() {
    for (json, shape) in [
        (r#"{"predictions": [1, 2, 3]}"#, "3,"),
        (r#"{"predictions": [[1, 2, 3], [4, 5, 6]]}"#, "2, 3"),
        (r#"{"predictions": [[[1], [2]]]}"#, "1, 2, 1"),
        (r#"{"predictions": []}"#, "0,"),
        (r#"{"predictions": [[], []]}"#, "2, 0"),
        (
            r#"{"predictions": [[[], []], [[], []], [[], []]]}"#,
            "3, 2, 0",
        ),
        (r#"{"outputs": 5}"#, ""),
        (r#"{"outputs": [[5]]}"#, "1, 1"),
    ] {
        assert_eq!(array(json, &[]).1, shape, "{json}");
    }
    let empty = |shape: &[i64]| {
        let output = testing::tensor("y", Dtype::Int32, shape);
        array(r#"{"predictions": []}"#, &[output])
    };
    assert_eq!(empty(&[-1, 3, 4]), ("<i4".into(), "0, 3, 4".into(), vec![]));
    assert_eq!(empty(&[-1, -1]).1, "0,");
}

#[test]
fn lists_of_different_lengths_are_a_bad_gateway() {
    for list in [
        "[[1, 2], [3]]",
        "[[1], [2, 3]]",
        "[1, [2]]",
        "[[1], 2]",
        "[[], [1]]",
        "[[1], []]",
        "[[], 1]",
        "[[[1], []]]",
        "[[[], [1]]]",
        "[1, {\"a\": 1}]",
        "[abc]",
        "[1.5, -]",
        "[1.5, 1.5.5]",
        "[{\"b64\": \"?\"}]",
        "[{\"b64\": \"YQ=\"}]",
        "[{\"b64\": \"\\x\"}]",
    ] {
        check_status(&format!("{{\"predictions\": {list}}}"), Accepted::Npy, 502);
        check_status(
            &format!("{{\"outputs\": {{\"a\": {list}}}}}"),
            Accepted::Npz,
            502,
        );
    }
}

#[test]
fn mixed_types_are_not_acceptable() {
    for list in [
        "[1, \"a\"]",
        "[1, true]",
        "[null]",
        "[1.0, null]",
        "[\"a\", {\"b64\": \"YQ==\"}]",
    ] {
        check_status(&format!("{{\"predictions\": {list}}}"), Accepted::Npy, 406);
    }
    let json = r#"{"results": [[["a", 0.5], ["b", 0.25]]]}"#;
    check_status(json, Accepted::Npy, 406);
    check_status(json, Accepted::Npz, 406);
}

#[test]
fn strings_are_padded() {
    let utf32 = |text: &str| {
        text.chars()
            .flat_map(|c| u32::from(c).to_le_bytes())
            .collect::<Vec<_>>()
    };
    let json = r#"{"predictions": ["a\ud83d\ude00", "\ud800", "", "\u0000b"]}"#;
    let expected = utf32("a\u{1f600}\u{fffd}\0\0\0\0b");
    assert_eq!(
        array(json, &[tensor(Dtype::String)]),
        ("<U2".into(), "4,".into(), expected)
    );
    let json = r#"{"predictions": [[{"b64": "YWJj"}], [{"b64": "\u0059Q=\u003d"}]]}"#;
    let expected = b"abca\0\0".to_vec();
    assert_eq!(array(json, &[]), ("|S3".into(), "2, 1".into(), expected));
    // TensorFlow Serving passes on bytes that are not UTF-8.
    let body = Buffer::from(b"{\"predictions\": [\"\xff\xfea\"]}".to_vec());
    let (file, _) = lay_out(200, body, Accepted::Npy, None).unwrap();
    assert_eq!(
        parsed(&file),
        ("<U3".into(), "1,".into(), utf32("\u{fffd}\u{fffd}a"))
    );
}

#[test]
fn archives_have_an_array_for_each_output() {
    let json = r#"{"predictions": [{"b": [1, 2], "a": "x"}, {"a": "yy", "b": [3, 4]}]}"#;
    let outputs = [
        testing::tensor("a", Dtype::String, &[-1]),
        testing::tensor("b", Dtype::Int8, &[-1, 2]),
    ];
    let rows = converted(json, Accepted::Npy, &outputs).unwrap().0;
    let files = unpacked(&rows);
    assert_eq!(files[0].0, "a.npy");
    assert_eq!(
        parsed(&files[0].1),
        (
            "<U2".into(),
            "2,".into(),
            b"x\0\0\0\0\0\0\0y\0\0\0y\0\0\0".to_vec()
        )
    );
    assert_eq!(files[1].0, "b.npy");
    assert_eq!(
        parsed(&files[1].1),
        ("|i1".into(), "2, 2".into(), vec![1, 2, 3, 4])
    );
    let columns = r#"{"outputs": {"b": [[1, 2], [3, 4]], "a": ["x", "yy"]}}"#;
    assert_eq!(converted(columns, Accepted::Npz, &outputs).unwrap().0, rows);

    let different = r#"{"outputs": {"b": 1, "a": [[1.5], [2]]}}"#;
    let files = unpacked(&converted(different, Accepted::Npz, &[]).unwrap().0);
    assert_eq!(parsed(&files[0].1).1, "2, 1");
    assert_eq!(
        parsed(&files[1].1),
        ("<i8".into(), "".into(), 1_i64.to_le_bytes().to_vec())
    );

    assert_eq!(names(r#"{"predictions": [1]}"#, &[]), ["predictions.npy"]);
    assert_eq!(names(r#"{"outputs": 1}"#, &[]), ["outputs.npy"]);
    assert_eq!(
        names(r#"{"predictions": [1]}"#, &[tensor(Dtype::Float)]),
        ["y.npy"]
    );
    assert_eq!(
        names(r#"{"outputs": {"\u00e9": [1], "b": 2}}"#, &[]),
        ["\u{e9}.npy", "b.npy"]
    );
}

proptest! {
    /// The shortest text of each number gives the number, without a detour through 64 bits.
    #[test]
    fn floats_are_exact(numbers in prop::collection::vec(any::<f32>(), 1..20)) {
        let texts: Vec<_> = numbers.iter().map(|n| match n {
            n if n.is_nan() => "NaN".to_owned(),
            n if n.is_infinite() => format!("{}Infinity", if *n > 0.0 { "" } else { "-" }),
            n => format!("{n:e}"),
        }).collect();
        let json = format!("{{\"predictions\": [{}]}}", texts.join(", "));
        let (descr, _, data) = array(&json, &[tensor(Dtype::Float)]);
        prop_assert_eq!(descr, "<f4");
        for (bytes, number) in data.chunks(4).zip(&numbers) {
            let found = f32::from_le_bytes(bytes.try_into().unwrap());
            prop_assert!(found.to_bits() == number.to_bits() || found.is_nan() && number.is_nan());
        }
    }

    #[test]
    fn whole_numbers_are_exact(numbers in prop::collection::vec(any::<i64>(), 1..20)) {
        let json = format!("{{\"predictions\": {numbers:?}}}");
        let data: Vec<_> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        prop_assert_eq!(array(&json, &[]), ("<i8".into(), format!("{}{}", numbers.len(), ","), data));
    }
}
