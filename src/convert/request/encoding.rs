//! Removes the `Content-Encoding` of bodies. Only gzip is supported: SDKs and `curl` users send nothing else.

use std::io::{self, Read};

use flate2::bufread::GzDecoder;

use crate::budget::{Buffer, NoRoom};
use crate::error::{RequestError, shown};

/// The most members of a gzip file. Each costs more time than its bytes; parallel compressors write one per 64 KB.
const MAX_MEMBERS: usize = 100_000;
/// Bytes that are decompressed at once.
const PIECE_BYTES: usize = 32 << 10;

/// Removes the encoding that the header `Content-Encoding` names from a body, which may have at most `limit` bytes then.
/// The encoded body is freed.
///
/// # Errors
/// 415 for an encoding that is not supported, 400 for a broken body, 413 for a body that becomes too large, 503 when no
/// memory is left for it. The body is unchanged then.
pub fn decode(
    body: &mut Buffer,
    content_encoding: Option<&str>,
    limit: usize,
) -> Result<(), RequestError> {
    let encoding = content_encoding.unwrap_or_default().trim();
    if encoding.is_empty() || encoding.eq_ignore_ascii_case("identity") {
        return Ok(());
    }
    if !encoding.eq_ignore_ascii_case("gzip") && !encoding.eq_ignore_ascii_case("x-gzip") {
        return Err(RequestError::new(
            415,
            format!(
                "The Content-Encoding {} is not supported; accepted: gzip, once.",
                shown(encoding)
            ),
        ));
    }
    *body = decompressed(body, limit)?;
    Ok(())
}

fn decompressed(body: &Buffer, limit: usize) -> Result<Buffer, RequestError> {
    let broken = |problem: &dyn std::fmt::Display| {
        RequestError::bad_request(format!(
            "The body is not valid gzip, which Content-Encoding announces: {problem}."
        ))
    };
    let mut out = body.arriving_sibling();
    let mut rest: &[u8] = body;
    for _ in 0..MAX_MEMBERS {
        let mut decoder = GzDecoder::new(rest);
        read_to_end(&mut decoder, &mut out, limit).map_err(|error| match error {
            ReadError::Broken(problem) => broken(&problem),
            ReadError::NoRoom(no_room) => no_room.into(),
            ReadError::TooLong => RequestError::new(
                413,
                format!(
                    "The decompressed body has more than {limit} bytes, the most that is accepted."
                ),
            ),
        })?;
        rest = decoder.into_inner();
        // Files that were padded to a block end with zeros.
        if rest.iter().all(|&byte| byte == 0) {
            return Ok(out);
        }
    }
    Err(broken(&format!("it has more than {MAX_MEMBERS} members")))
}

/// Why compressed bytes could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// They are broken.
    Broken(io::Error),
    /// No memory is left for the result.
    NoRoom(NoRoom),
    /// The result has more bytes than it may have.
    TooLong,
}

/// Appends all that a decoder yields to `out`, which may have at most `most` bytes then.
pub(super) fn read_to_end(
    decoder: &mut impl Read,
    out: &mut Buffer,
    most: usize,
) -> Result<(), ReadError> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = match decoder.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ReadError::Broken(error)),
        };
        if length > most.saturating_sub(out.len()) {
            return Err(ReadError::TooLong);
        }
        // The whole piece fits, so that the memory of a large result is reserved in large steps.
        out.reserve(length, most).map_err(ReadError::NoRoom)?;
        out.extend(&piece[..length]).map_err(ReadError::NoRoom)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::io::Write;

    const LIMIT: usize = 1 << 20;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decoded(body: &[u8]) -> Result<Vec<u8>, RequestError> {
        let mut buffer = body.to_vec().into();
        decode(&mut buffer, Some("gzip"), LIMIT).map(|()| buffer.to_vec())
    }

    #[test]
    fn only_gzip_is_accepted() {
        let compressed = gzip(b"body");
        for (encoding, expected) in [
            (None, &compressed[..]),
            (Some(""), &compressed),
            (Some("identity"), &compressed),
            (Some("Identity "), &compressed),
            (Some("gzip"), b"body"),
            (Some(" GZIP\t"), b"body"),
            (Some("x-gzip"), b"body"),
        ] {
            let mut body = compressed.clone().into();
            decode(&mut body, encoding, LIMIT).unwrap();
            assert_eq!(&*body, expected, "{encoding:?}");
        }
        for encoding in [
            "gzip, gzip",
            "gzip,identity",
            "br",
            "deflate",
            "zstd",
            "*",
            "\u{e9}",
        ] {
            let mut body = compressed.clone().into();
            let error = decode(&mut body, Some(encoding), LIMIT).unwrap_err();
            assert_eq!(error.status, 415, "{encoding}");
            assert!(error.text.contains("accepted: gzip"));
            assert_eq!(&*body, compressed, "the body is unchanged");
        }
    }

    #[test]
    fn reads_several_members_and_padding() {
        let two = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
        assert_eq!(decoded(&two).unwrap(), b"one two");
        assert_eq!(
            decoded(&[&two[..], &[0; 512]].concat()).unwrap(),
            b"one two"
        );
    }

    #[test]
    fn refuses_broken_bodies() {
        let whole = gzip(b"some text that is compressed");
        for end in 0..whole.len() {
            assert_eq!(decoded(&whole[..end]).unwrap_err().status, 400, "{end}");
        }
        let trailer = whole.len() - 8;
        for at in (0..4).chain(trailer..whole.len()) {
            let mut changed = whole.clone();
            changed[at] ^= 0x80;
            assert_eq!(decoded(&changed).unwrap_err().status, 400, "byte {at}");
        }
        for behind in [&b"x"[..], b"\0\0x", &whole[..whole.len() - 1], &whole[..5]] {
            let error = decoded(&[&whole[..], behind].concat()).unwrap_err();
            assert_eq!(error.status, 400, "{behind:?}");
            assert!(error.text.contains("not valid gzip"), "{error}");
        }
    }

    /// Requests run on small stacks.
    #[test]
    fn decompressing_needs_little_stack() {
        let body = gzip(&[b'x'; 100_000]);
        let small = std::thread::Builder::new().stack_size(64 << 10);
        let length = small.spawn(move || decoded(&body).unwrap().len());
        assert_eq!(length.unwrap().join().unwrap(), 100_000);
    }

    #[test]
    fn too_many_members_are_refused() {
        let many = gzip(b"").repeat(MAX_MEMBERS + 1);
        assert!(decoded(&many).unwrap_err().text.contains("members"));
    }

    #[test]
    fn limits_and_the_budget_stop_bombs() {
        let zeros = |length: usize| gzip(&vec![0; length]);
        assert_eq!(decoded(&zeros(LIMIT)).unwrap().len(), LIMIT);
        assert_eq!(decoded(&zeros(LIMIT + 1)).unwrap_err().status, 413);
        let halves = [zeros(LIMIT / 2 + 1), zeros(LIMIT / 2)].concat();
        assert_eq!(decoded(&halves).unwrap_err().status, 413, "the sum counts");

        let budget = Budget::new(LIMIT);
        let mut body = budget.arriving(0);
        body.extend(&zeros(LIMIT)).unwrap();
        let error = decode(&mut body, Some("gzip"), usize::MAX).unwrap_err();
        assert_eq!(error.status, 413, "the request alone needs more");
        let mut other = budget.arriving(0);
        other.reserve_exact(LIMIT / 2).unwrap();
        let error = decode(&mut body, Some("gzip"), usize::MAX).unwrap_err();
        assert_eq!(error.status, 503, "together they need more");
        drop(other);

        body.consume(body.len());
        body.extend(&zeros(LIMIT / 4)).unwrap();
        decode(&mut body, Some("gzip"), usize::MAX).unwrap();
        assert_eq!(body.len(), LIMIT / 4);
        // The compressed body is freed: the rest of the memory is available.
        let rest = LIMIT - body.len() - body.room();
        assert!(budget.arriving(0).check_room(rest).is_ok());
    }

    proptest! {
        #[test]
        fn reads_what_was_compressed(
            parts in prop::collection::vec(prop::collection::vec(0..4u8, 0..3000), 1..4),
        ) {
            let body: Vec<u8> = parts.iter().flat_map(|part| gzip(part)).collect();
            prop_assert_eq!(decoded(&body).unwrap(), parts.concat());
        }

        #[test]
        fn any_bytes_are_refused_or_read(head in 0..2usize, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let body = [&b"\x1f\x8b\x08\0\0\0\0\0\0\x03"[..10 * head], &bytes].concat();
            if let Err(error) = decoded(&body) {
                prop_assert_eq!(error.status, 400);
            }
        }
    }
}
