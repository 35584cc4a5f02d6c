//! Removes the `Content-Encoding` of requests' bodies.

use crate::budget::Buffer;
use crate::convert::request::encoding;
use crate::error::RequestError;
use crate::http::body::MAX_BODY_BYTES;
use crate::wait::compute;

/// Bodies that decompress to no more than this are decompressed on the worker; it takes a fraction of a millisecond.
const SMALL_BYTES: usize = 64 << 10;

/// The body without the encoding that the header `Content-Encoding` names. An empty body stays empty.
///
/// # Errors
/// 415 for an encoding that is not supported, 400 for a broken body, 413 or 503 when it is too large.
pub fn decoded(mut body: Buffer, content_encoding: Option<&str>) -> Result<Buffer, RequestError> {
    let Some(encoding) = content_encoding.filter(|_| !body.is_empty()) else {
        return Ok(body);
    };
    if body.len() <= SMALL_BYTES {
        match encoding::decode(&mut body, Some(encoding), SMALL_BYTES) {
            // Larger than it looked: the body is unchanged.
            Err(error) if error.status == 413 => {}
            result => return result.map(|()| body),
        }
    }
    let encoding = encoding.to_owned();
    compute(move || {
        encoding::decode(&mut body, Some(&encoding), MAX_BODY_BYTES)?;
        Ok(body)
    })
}
