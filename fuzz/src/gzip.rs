//! gzip: members that are written byte by byte are read back, and nothing exceeds the limit.
//!
//! Input: a gzip file; and the same bytes as the content of members, separated by zero bytes.

use sagemaker_tfs::convert::request::encoding::decode;

use super::checksum::{CRC32, crc};

const LIMIT: usize = 1 << 20;

pub fn check(data: &[u8]) {
    let result = decoded(data, LIMIT);
    if let Ok(output) = &result {
        assert!(output.len() <= LIMIT && data.starts_with(b"\x1f\x8b"));
        if let Some(less) = output.len().checked_sub(1) {
            assert_eq!(decoded(data, less), Err(413));
        }
        // Another member may follow, unless zeros were added to the end.
        let more = decoded(&[data, &member(b"more")].concat(), LIMIT + 4);
        let longer = [&output[..], b"more"].concat();
        assert!(more == Ok(longer) || data.ends_with(b"\0"));
        assert!(decoded(&[data, b"x"].concat(), LIMIT).is_err());
    }

    let parts: Vec<&[u8]> = data.split(|&byte| byte == 0).collect();
    let file: Vec<u8> = parts.iter().flat_map(|part| member(part)).collect();
    let content = parts.concat();
    assert_eq!(decoded(&file, content.len()).as_ref(), Ok(&content));
    // The last byte of a member is part of its length.
    assert_eq!(decoded(&file[..file.len() - 1], usize::MAX), Err(400));
}

fn decoded(data: &[u8], limit: usize) -> Result<Vec<u8>, u16> {
    let mut body = data.to_vec().into();
    match decode(&mut body, Some("gzip"), limit) {
        Ok(()) => Ok(body.to_vec()),
        Err(error) => {
            assert!(matches!(error.status, 400 | 413), "{error}");
            assert_eq!(&*body, data, "the body stays unchanged");
            Err(error.status)
        }
    }
}

/// A member whose content is not compressed.
fn member(content: &[u8]) -> Vec<u8> {
    const LONGEST_BLOCK: usize = 0xffff;
    let mut out = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec();
    for block in content.chunks(LONGEST_BLOCK) {
        let length = u16::try_from(block.len()).expect("blocks have at most 65535 bytes");
        out.push(0);
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(block);
    }
    out.extend(b"\x01\0\0\xff\xff"); // an empty last block
    out.extend(crc(CRC32, content).to_le_bytes());
    out.extend(
        u32::try_from(content.len())
            .expect("inputs are small")
            .to_le_bytes(),
    );
    out
}
