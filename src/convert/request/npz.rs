//! numpy archives.
use super::Target;
use crate::budget::Buffer;
use crate::error::RequestError;

/// The first bytes of a file.
pub const MAGIC: &[u8] = b"PK\x03\x04";

/// Converts an array.
///
/// # Errors
/// 400
pub fn to_tfs(body: &Buffer, target: &Target) -> Result<Buffer, RequestError> {
    let _ = (body, target);
    Err(RequestError::new(415, "not yet"))
}
