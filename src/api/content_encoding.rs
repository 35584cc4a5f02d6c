//! Removes the `Content-Encoding` of requests' bodies.

use crate::budget::Buffer;
use crate::convert::request::encoding;
use crate::error::RequestError;
use crate::wait::compute;

/// Compressed bodies of more than this are decompressed on a computing thread: a byte may stand for a thousand.
const SMALL_BYTES: usize = 256;
/// The most bytes of a decompressed body, as of one that is not compressed.
const MAX_BODY_BYTES: usize = 1 << 30;

/// The body without the encoding that the header `Content-Encoding` names.
///
/// # Errors
/// 415 for an encoding that is not supported, 400 for a broken body, 413 or 503 when no memory is left for it.
pub fn decoded(mut body: Buffer, content_encoding: Option<&str>) -> Result<Buffer, RequestError> {
    let Some(encoding) = content_encoding else {
        return Ok(body);
    };
    let encoding = encoding.to_owned();
    let is_small = body.len() <= SMALL_BYTES;
    let decode = move || {
        encoding::decode(&mut body, Some(&encoding), MAX_BODY_BYTES)?;
        Ok(body)
    };
    if is_small { decode() } else { compute(decode) }
}
