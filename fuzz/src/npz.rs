//! npz: rows and columns of an archive that is written byte by byte are those of its arrays.
//!
//! Input: an archive; and the same bytes as two arrays of six bytes each, as in `npy.rs`, and their data.

use sagemaker_tfs::budget::Budget;
use sagemaker_tfs::convert::request::{Format, Target};
use serde_json::Value;

use super::checksum::{CRC32, crc};
use super::npy::{Array, Nested};

/// More than inputs need, and little enough to stop an archive of zeros.
const BUDGET_BYTES: usize = 16 << 20;

pub fn check(data: &[u8]) {
    if data.is_empty() {
        return; // no format converts an empty body
    }
    if let Ok(output) = convert(data)
        && !output.contains("NaN")
        && !output.contains("Infinity")
    {
        let value: Value = serde_json::from_str(&output).expect("the output is JSON");
        assert!(value["instances"].is_array() || value["inputs"].is_object());
    }
    let Some((head, data)) = data.split_first_chunk::<12>() else {
        return;
    };
    // Kinds 0 to 8: no floats, whose special values are not JSON.
    let array = |head: &[u8]| {
        Array::new(
            head[0] % 9,
            head[1],
            &[head[2], head[3], head[4]],
            head[5],
            data,
        )
    };
    let arrays = [("a", array(&head[..6])), ("b\u{e9}\"", array(&head[6..]))];
    let output = convert(&archive(&arrays)).expect("the archive is valid");
    let value: Value = serde_json::from_str(&output).expect("the output is JSON");

    let rows = |array: &Array| array.shape.first().copied();
    let [(_, first), (_, second)] = &arrays;
    match (rows(first), rows(second)) {
        (Some(one), Some(other)) if one == other => {
            let found = value["instances"].as_array().expect("rows");
            assert_eq!(found.len(), one);
            for (i, row) in found.iter().enumerate() {
                assert_eq!(row.as_object().map(serde_json::Map::len), Some(2));
                for (name, array) in &arrays {
                    assert_eq!(Nested::of(&row[name]), array.part(&mut vec![i]));
                }
            }
        }
        _ => {
            let found = &value["inputs"];
            assert_eq!(found.as_object().map(serde_json::Map::len), Some(2));
            for (name, array) in &arrays {
                assert_eq!(Nested::of(&found[name]), array.nested());
            }
        }
    }
}

fn convert(file: &[u8]) -> Result<String, u16> {
    let mut body = Budget::new(BUDGET_BYTES).arriving(0);
    if body.extend(file).is_err() {
        return Err(413);
    }
    match Format::Npz.to_tfs(&mut body, &Target::default()) {
        Ok(_) => Ok(String::from_utf8(body.to_vec()).expect("the output is UTF-8")),
        Err(error) => {
            assert!(matches!(error.status, 400 | 413), "{error}");
            assert!(error.text.len() < 2048);
            Err(error.status)
        }
    }
}

/// A ZIP archive of files that are not compressed.
fn archive(arrays: &[(&str, Array)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, array) in arrays {
        let file = array.file();
        let name = format!("{name}.npy");
        let length = u32::try_from(file.len())
            .expect("files are small")
            .to_le_bytes();
        let name_length = u16::try_from(name.len())
            .expect("names are short")
            .to_le_bytes();
        let offset = u32::try_from(out.len())
            .expect("archives are small")
            .to_le_bytes();
        // Version, flags (names in UTF-8), method, time and date.
        let common = b"\x14\0\0\x08\0\0\0\0\0\0";
        let sizes = [
            &crc(CRC32, &file).to_le_bytes()[..],
            &length,
            &length,
            &name_length,
            b"\0\0",
        ]
        .concat();
        let head = [b"PK\x03\x04", &common[..], &sizes, name.as_bytes(), &file].concat();
        out.extend(head);
        directory.extend([b"PK\x01\x02\x14\0", &common[..], &sizes].concat());
        directory.extend([&[0; 10][..], &offset, name.as_bytes()].concat());
    }
    let count = u16::try_from(arrays.len())
        .expect("few arrays")
        .to_le_bytes();
    let start = u32::try_from(out.len())
        .expect("archives are small")
        .to_le_bytes();
    let length = u32::try_from(directory.len())
        .expect("archives are small")
        .to_le_bytes();
    let end = [
        b"PK\x05\x06\0\0\0\0",
        &count[..],
        &count,
        &length,
        &start,
        b"\0\0",
    ]
    .concat();
    [out, directory, end].concat()
}
