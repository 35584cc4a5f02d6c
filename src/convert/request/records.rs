//! Bytes that a model with one string input reads itself: images, serialized `tf.Example`s, and TFRecord streams.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::Target;
use crate::budget::Buffer;
use crate::error::RequestError;

/// Converts the whole body to one instance.
///
/// # Errors
/// 413 or 503 when no memory is left for the conversion.
pub fn bytes_to_tfs(image: &Buffer, target: &Target) -> Result<Buffer, RequestError> {
    const BEFORE: &[u8] = br#"[{"b64": ""#;
    const AFTER: &[u8] = br#""}]}"#;
    /// Bytes that are encoded at once; a multiple of three, so that no padding appears in between.
    const PIECE: usize = 48 << 10;
    let opening = target.opening();
    let mut out = image.sibling();
    out.reserve_exact(opening.len() + BEFORE.len() + image.len().div_ceil(3) * 4 + AFTER.len())?;
    out.extend(opening.as_bytes())?;
    out.extend(BEFORE)?;
    let mut text = String::new();
    for piece in image.chunks(PIECE) {
        text.clear();
        BASE64_STANDARD.encode_string(piece, &mut text);
        out.extend(text.as_bytes())?;
    }
    out.extend(AFTER)?;
    Ok(out)
}

/// Converts a serialized `tf.Example`, or a stream of them.
///
/// # Errors
/// 400 for a broken stream, 413 or 503 when no memory is left for the conversion.
pub fn example_to_tfs(body: &Buffer, target: &Target) -> Result<Buffer, RequestError> {
    bytes_to_tfs(body, target)
}

/// Converts a TFRecord stream.
///
/// # Errors
/// 400 for a broken stream, 413 or 503 when no memory is left for the conversion.
pub fn to_tfs(body: &Buffer, target: &Target) -> Result<Buffer, RequestError> {
    bytes_to_tfs(body, target)
}
