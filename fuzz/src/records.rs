//! TFRecord: a second reader of the framing accepts the same streams and finds the same records.
//!
//! Input: a stream; and the same bytes as the data of records, separated by zero bytes.

use sagemaker_tfs::convert::request::{Target, records};
use serde_json::Value;

use super::checksum::{CRC32C, crc};

pub fn check(data: &[u8]) {
    check_stream(data);
    let parts: Vec<&[u8]> = data.split(|&byte| byte == 0).collect();
    let stream: Vec<u8> = parts.iter().flat_map(|part| record(part)).collect();
    assert_eq!(read(&stream).as_deref(), Some(&parts[..]));
    check_stream(&stream);

    // Any other body is one row.
    if read(data).is_none()
        && let Ok(output) = records::example_to_tfs(&data.to_vec().into(), &Target::default())
    {
        assert_eq!(rows(&output), [base64(data)]);
    }
}

fn check_stream(stream: &[u8]) {
    match (
        records::to_tfs(&stream.to_vec().into(), &Target::default()),
        read(stream),
    ) {
        (Ok(output), Some(records)) => {
            let expected: Vec<_> = records.iter().map(|record| base64(record)).collect();
            assert_eq!(rows(&output), expected);
        }
        (Err(error), None) => {
            assert_eq!(error.status, 400);
            assert!(error.text.starts_with("Record "), "{error}");
        }
        (result, records) => panic!("{result:?}, but the second reader found {records:?}"),
    }
}

/// The base64 texts of the rows.
fn rows(output: &[u8]) -> Vec<String> {
    let value: Value = serde_json::from_slice(output).expect("the output is JSON");
    let rows = value["instances"]
        .as_array()
        .expect("rows are a list")
        .iter();
    rows.map(|row| row["b64"].as_str().expect("rows are base64").to_owned())
        .collect()
}

/// The records of a stream; `None` if it is broken.
fn read(stream: &[u8]) -> Option<Vec<&[u8]>> {
    let mut records = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest.get(..8)?.try_into().ok()?);
        let end = usize::try_from(length).ok()?.checked_add(12)?;
        let data = rest.get(12..end)?;
        if rest.get(..end.checked_add(4)?)? != record(data) {
            return None;
        }
        records.push(data);
        rest = &rest[end + 4..];
    }
    Some(records)
}

fn record(data: &[u8]) -> Vec<u8> {
    let masked = |bytes: &[u8]| {
        let crc = crc(CRC32C, bytes);
        crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
    };
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), data, &masked(data)].concat()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, i| {
            bits << 8 | u32::from(*three.get(i).unwrap_or(&0))
        });
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= three.len() { digit.into() } else { '=' });
        }
    }
    text
}
