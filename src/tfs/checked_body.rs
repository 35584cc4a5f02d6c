//! Bodies that do not crash TFS.

use std::ops::Deref;

use crate::budget::Buffer;
use crate::convert::depth::{self, MAX_DEPTH};
use crate::error::RequestError;
use crate::wait::compute_large;

/// The body of a request to TFS, which parses every body as JSON, whatever its content type. This one is not nested so
/// deeply that the parser would overflow its stack.
#[derive(Debug, Default)]
pub struct CheckedBody(Buffer);

impl CheckedBody {
    /// Checks a body.
    ///
    /// # Errors
    /// 400 when the body is nested too deeply.
    pub fn check(body: Buffer) -> Result<Self, RequestError> {
        let (body, is_too_deep) = compute_large(body.len(), move || {
            let is_too_deep = depth::is_deeper_than(&body, MAX_DEPTH);
            (body, is_too_deep)
        });
        if is_too_deep {
            return Err(RequestError::bad_request(format!(
                "The JSON is nested deeper than {MAX_DEPTH} levels, which could crash TensorFlow Serving."
            )));
        }
        Ok(Self(body))
    }
}

impl Deref for CheckedBody {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_deeply_nested_json() {
        for (depth, status) in [(MAX_DEPTH, None), (MAX_DEPTH + 1, Some(400))] {
            let body = "[".repeat(depth).into_bytes();
            let result = CheckedBody::check(body.into()).map(drop);
            assert_eq!(result.err().map(|error| error.status), status);
        }
    }
}
