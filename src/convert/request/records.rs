//! Bytes that a model with one string input reads itself: images, serialized `tf.Example`s, and TFRecord streams.
//!
//! A TFRecord stream is a sequence of records: the length (64 bits, little-endian), a checksum of these 8 bytes, the
//! data, and a checksum of the data.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::{Rows, Target};
use crate::budget::{Buffer, NoRoom};
use crate::convert::signature::{Kind, Tensor};
use crate::error::{RequestError, shown};

/// Bytes of a record before and after its data.
const LENGTH_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 4;
const HEAD_BYTES: usize = LENGTH_BYTES + CHECKSUM_BYTES;

/// Converts the whole body to one instance.
///
/// # Errors
/// 400 for a target that takes no bytes, 413 or 503 when no memory is left for the conversion.
pub fn bytes_to_tfs(image: &Buffer, target: &Target) -> Result<Buffer, RequestError> {
    check_inputs(target)?;
    let nesting = nesting(target);
    let opening = target.opening();
    let mut out = image.sibling();
    out.reserve_exact(opening.len() + row_length(image.len(), nesting) + b"[]}".len())?;
    out.extend(opening.as_bytes())?;
    out.extend(b"[")?;
    write_row(image, nesting, &mut out)?;
    out.extend(b"]}")?;
    Ok(out)
}

/// Converts a serialized `tf.Example`, or a stream of them in TFRecord framing: a body that begins with the checksum of
/// a record's length is a stream.
///
/// # Errors
/// 400 for a broken stream or a target that takes no serialized examples, 413 or 503 when no memory is left for the
/// conversion.
pub fn example_to_tfs(body: &Buffer, target: &Target) -> Result<Buffer, RequestError> {
    if record_length(body).is_some() {
        return to_tfs(body, target);
    }
    check_target(target)?;
    bytes_to_tfs(body, target)
}

/// Converts a TFRecord stream: each record becomes a row.
///
/// # Errors
/// 400 for a broken stream or a target that takes no records, 413 or 503 when no memory is left for the conversion.
pub fn to_tfs(body: &Buffer, target: &Target) -> Result<Buffer, RequestError> {
    check_target(target)?;
    let nesting = nesting(target);
    let opening = target.opening();
    let mut length = opening.len() + b"[]}".len();
    for record in Records::new(body) {
        length += row_length(record?.len(), nesting) + b",".len();
    }
    let mut out = body.sibling();
    out.reserve_exact(length)?;
    out.extend(opening.as_bytes())?;
    out.extend(b"[")?;
    for (number, data) in Records::new(body).flatten().enumerate() {
        if number > 0 {
            out.extend(b",")?;
        }
        write_row(data, nesting, &mut out)?;
    }
    out.extend(b"]}")?;
    Ok(out)
}

/// Checks that the rows may be strings without a name.
fn check_target(target: &Target) -> Result<(), RequestError> {
    if target.rows == Rows::Examples {
        return Err(RequestError::bad_request(
            "TensorFlow Serving's classify and regress take features as JSON, not serialized examples; send JSON, or \
             use tfs-method=predict with a signature that takes serialized examples.",
        ));
    }
    check_inputs(target)
}

/// Checks that the model takes one input of strings.
fn check_inputs(target: &Target) -> Result<(), RequestError> {
    let Some(signature) = &target.signature else {
        return Ok(());
    };
    let problem = match signature.inputs.as_slice() {
        [] => return Ok(()),
        [input] if matches!(input.dtype.kind(), Kind::String | Kind::Other) => return Ok(()),
        [input] => format!("input {} is {}", shown(&input.name), input.description()),
        inputs => format!("the signature has {} inputs", inputs.len()),
    };
    Err(RequestError::bad_request(format!(
        "This format carries bytes for one string input, and {problem}; send JSON, CSV or a numpy file."
    )))
}

/// How many lists are around each row: a model that takes one string per row may want it in a list.
fn nesting(target: &Target) -> usize {
    target.only_input().map_or(0, Tensor::lists_around_element)
}

const BEFORE: &[u8] = br#"{"b64": ""#;
const AFTER: &[u8] = br#""}"#;

/// The number of bytes that [`write_row`] writes.
fn row_length(data: usize, nesting: usize) -> usize {
    BEFORE.len() + data.div_ceil(3) * 4 + AFTER.len() + 2 * nesting
}

fn write_row(data: &[u8], nesting: usize, out: &mut Buffer) -> Result<(), NoRoom> {
    for _ in 0..nesting {
        out.extend(b"[")?;
    }
    out.extend(BEFORE)?;
    write_base64(data, out)?;
    out.extend(AFTER)?;
    for _ in 0..nesting {
        out.extend(b"]")?;
    }
    Ok(())
}

/// Writes bytes as base64.
pub(super) fn write_base64(bytes: &[u8], out: &mut Buffer) -> Result<(), NoRoom> {
    /// Bytes that are encoded at once; a multiple of three, so that no padding appears in between.
    const PIECE: usize = 48 << 10;
    let mut text = String::new();
    for piece in bytes.chunks(PIECE) {
        text.clear();
        BASE64_STANDARD.encode_string(piece, &mut text);
        out.extend(text.as_bytes())?;
    }
    Ok(())
}

/// The data of the records of a stream. Ends after an error.
struct Records<'a> {
    stream: &'a [u8],
    at: usize,
    /// The number of records read.
    count: usize,
}

impl<'a> Records<'a> {
    fn new(stream: &'a [u8]) -> Self {
        Self {
            stream,
            at: 0,
            count: 0,
        }
    }

    /// Reads the next record, and stops behind it.
    fn read(&mut self) -> Result<&'a [u8], String> {
        let rest = &self.stream[self.at..];
        if rest.len() < HEAD_BYTES {
            return Err("is cut off in its head of 12 bytes".to_owned());
        }
        let Some(length) = record_length(rest) else {
            return Err(
                "has a length with a wrong checksum; send a TFRecord stream that is not compressed"
                    .to_owned(),
            );
        };
        let behind = &rest[HEAD_BYTES..];
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some((data, behind)) = behind.split_at_checked(length) else {
            return Err(format!(
                "has {length} bytes of data, but only {} follow its head",
                behind.len()
            ));
        };
        let Some(checksum) = behind.first_chunk() else {
            return Err("is cut off in the checksum of its data".to_owned());
        };
        if u32::from_le_bytes(*checksum) != masked_checksum(data) {
            return Err("has data with a wrong checksum".to_owned());
        }
        self.at += HEAD_BYTES + length + CHECKSUM_BYTES;
        self.count += 1;
        Ok(data)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<&'a [u8], RequestError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.stream.len() {
            return None;
        }
        let (number, at) = (self.count + 1, self.at);
        let record = self.read().map_err(|problem| {
            self.at = self.stream.len();
            RequestError::bad_request(format!("Record {number}, at byte {at}, {problem}."))
        });
        Some(record)
    }
}

/// The length of the record that begins here, if its checksum is right.
fn record_length(stream: &[u8]) -> Option<u64> {
    let (length, rest) = stream.split_first_chunk::<LENGTH_BYTES>()?;
    let checksum = u32::from_le_bytes(*rest.first_chunk::<CHECKSUM_BYTES>()?);
    (checksum == masked_checksum(length)).then(|| u64::from_le_bytes(*length))
}

/// The checksum of TFRecord: CRC-32C, rotated and offset, because a checksum of data that contains checksums is weak.
fn masked_checksum(bytes: &[u8]) -> u32 {
    const OFFSET: u32 = 0xa282_ead8;
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(OFFSET)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::signature::testing::{signature, tensor};
    use crate::convert::signature::{Dtype, Tensor};
    use proptest::prelude::*;

    fn record(data: &[u8]) -> Vec<u8> {
        let length = (data.len() as u64).to_le_bytes();
        let parts = [
            &length[..],
            &masked_checksum(&length).to_le_bytes(),
            data,
            &masked_checksum(data).to_le_bytes(),
        ];
        parts.concat()
    }

    fn target(inputs: Vec<Tensor>) -> Target {
        Target {
            signature: Some(signature(inputs, Vec::new())),
            ..Target::default()
        }
    }

    fn text(result: Result<Buffer, RequestError>) -> Result<String, String> {
        let text = |buffer: Buffer| String::from_utf8(buffer.to_vec()).unwrap();
        result.map(text).map_err(|error| {
            assert_eq!(error.status, 400);
            error.text
        })
    }

    fn stream(body: &[u8], target: &Target) -> Result<String, String> {
        text(to_tfs(&body.to_vec().into(), target))
    }

    #[test]
    fn encodes_the_whole_body_as_base64() {
        for length in [0, 1, 2, 3, 4, 49_151, 49_152, 49_153, 100_000] {
            let image: Vec<u8> = (0..length).map(|i| (i * 31 + 7) as u8).collect();
            let out = text(bytes_to_tfs(&image.clone().into(), &Target::default())).unwrap();
            let json: serde_json::Value = serde_json::from_str(&out).unwrap();
            let base64 = json["instances"][0]["b64"].as_str().unwrap();
            assert_eq!(BASE64_STANDARD.decode(base64).unwrap(), image, "{length}");
        }
        let out = text(bytes_to_tfs(&b"image".to_vec().into(), &Target::default()));
        assert_eq!(out.unwrap(), r#"{"instances": [{"b64": "aW1hZ2U="}]}"#);
    }

    #[test]
    fn nests_rows_as_a_strict_input_wants_them() {
        let mut loose = tensor("x", Dtype::String, &[-1, 1]);
        loose.is_strict = false;
        for (input, row) in [
            (tensor("x", Dtype::String, &[-1]), r#"{"b64": "YQ=="}"#),
            (tensor("x", Dtype::String, &[-1, 1]), r#"[{"b64": "YQ=="}]"#),
            (
                tensor("x", Dtype::String, &[-1, 1, 1]),
                r#"[[{"b64": "YQ=="}]]"#,
            ),
            (tensor("x", Dtype::String, &[-1, 2]), r#"{"b64": "YQ=="}"#),
            (tensor("x", Dtype::String, &[-1, -1]), r#"{"b64": "YQ=="}"#),
            (loose, r#"{"b64": "YQ=="}"#),
        ] {
            let target = target(vec![input]);
            let expected = format!("{{\"instances\": [{row}]}}");
            let body = b"a".to_vec().into();
            assert_eq!(text(bytes_to_tfs(&body, &target)).unwrap(), expected);
            assert_eq!(text(example_to_tfs(&body, &target)).unwrap(), expected);
            let two = [record(b"a"), record(b"a")].concat();
            let expected = format!("{{\"instances\": [{row},{row}]}}");
            assert_eq!(stream(&two, &target).unwrap(), expected);
        }
    }

    #[test]
    fn knows_a_stream_by_its_first_checksum() {
        let convert = |body: &[u8]| text(example_to_tfs(&body.to_vec().into(), &Target::default()));
        let two = [record(b"a"), record(b"")].concat();
        let expected = r#"{"instances": [{"b64": "YQ=="},{"b64": ""}]}"#;
        assert_eq!(convert(&two).unwrap(), expected);
        assert_eq!(stream(&two, &Target::default()).unwrap(), expected);
        // What tf.io.TFRecordWriter writes for the same two records.
        let real = b"\x01\0\0\0\0\0\0\0\x01u\xdeAxP=\xaaa\
            \0\0\0\0\0\0\0\0)\x03\x98\x07\xd8\xea\x82\xa2";
        let expected = r#"{"instances": [{"b64": "eA=="},{"b64": ""}]}"#;
        assert_eq!(stream(real, &Target::default()).unwrap(), expected);
        assert_eq!(
            stream(b"", &Target::default()).unwrap(),
            r#"{"instances": []}"#
        );
        let mut other = two;
        other[8] ^= 1;
        assert!(
            convert(&other)
                .unwrap()
                .starts_with(r#"{"instances": [{"b64": "AQAA"#)
        );
        let cut = &record(b"a")[..14];
        assert!(convert(cut).unwrap_err().contains("Record 1"));
    }

    #[test]
    fn broken_streams_name_the_record() {
        let first = record(b"first");
        let at = first.len();
        let with = |second: &[u8]| stream(&[&first, second].concat(), &Target::default());
        let second = record(b"second");
        for end in 1..second.len() {
            let error = with(&second[..end]).unwrap_err();
            assert!(
                error.starts_with(&format!("Record 2, at byte {at}, ")),
                "{error}"
            );
        }
        for byte in 0..second.len() {
            for bit in 0..8 {
                let mut changed = second.clone();
                changed[byte] ^= 1 << bit;
                assert!(with(&changed).unwrap_err().contains("Record 2"), "{byte}");
            }
        }
        // A length with a right checksum that is far too large.
        let length = u64::MAX.to_le_bytes();
        let huge = [&length[..], &masked_checksum(&length).to_le_bytes(), b"abc"].concat();
        assert!(with(&huge).unwrap_err().contains("only 3 follow"));
        assert!(
            stream(b"\x1f\x8b\x08\0\0\0\0\0\0\x03abc", &Target::default())
                .unwrap_err()
                .contains("not compressed")
        );
    }

    #[test]
    fn records_need_a_single_input_of_predict() {
        let input = |name| tensor(name, Dtype::String, &[-1]);
        let body = record(b"a");
        let two = target(vec![input("a"), input("b")]);
        assert!(
            stream(&body, &two)
                .unwrap_err()
                .contains("one string input")
        );
        let examples = Target {
            rows: Rows::Examples,
            ..target(vec![input("a")])
        };
        for body in [body, b"no stream".to_vec()] {
            let error = text(example_to_tfs(&body.into(), &examples)).unwrap_err();
            assert!(error.contains("tfs-method=predict"), "{error}");
        }
    }

    #[test]
    fn memory_is_reserved_before_it_is_used() {
        let budget = crate::budget::Budget::new(100_000);
        let mut body = budget.arriving(0);
        body.extend(&record(&[0; 80_000])).unwrap();
        assert_eq!(to_tfs(&body, &Target::default()).unwrap_err().status, 413);
    }

    proptest! {
        #[test]
        fn rows_are_the_records(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..8)) {
            let body: Vec<u8> = records.iter().flat_map(|data| record(data)).collect();
            let json: serde_json::Value =
                serde_json::from_str(&stream(&body, &Target::default()).unwrap()).unwrap();
            let rows = json["instances"].as_array().unwrap();
            let decode = |row: &serde_json::Value| BASE64_STANDARD.decode(row["b64"].as_str().unwrap()).unwrap();
            prop_assert_eq!(rows.iter().map(decode).collect::<Vec<_>>(), records);
        }
    }
}
