//! From TensorFlow Serving's response to the format that the client accepts.

pub mod accept;

use crate::budget::Buffer;
use crate::convert::signature::Signature;
use crate::error::RequestError;

pub use accept::Accepted;

/// Lays out the body of TensorFlow Serving's response. Returns the body and its content type.
///
/// # Errors
/// stub
pub fn lay_out(
    status: u16,
    mut body: Buffer,
    accepted: Accepted,
    signature: Option<&Signature>,
) -> Result<(Buffer, &'static str), RequestError> {
    let _ = signature;
    let one_line = matches!(accepted, Accepted::Json { one_line: true });
    let content_type = accept::lay_out(
        status,
        body.bytes_mut(),
        one_line.then_some("application/json"),
    );
    Ok((body, content_type))
}
