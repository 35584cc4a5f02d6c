//! Recognizes results that mean a lack of memory. SageMaker expects status 507 for them, and then unloads other models.

use memchr::memmem;

use crate::error::RequestError;
use crate::memory;
use crate::tfs::message::TfsResponse;

/// TFS's status for a lack of memory, and for a request that waited too long for a batch. A full batch queue is 503.
const EXHAUSTED: u16 = 429;
/// The part of an error's text that tells a long wait for a batch from a lack of memory.
const WAITED_TOO_LONG: &[u8] = b"waiting in batching queue";

/// Turns a response or an error that is due to a lack of memory into an error with status 507; returns others
/// unchanged.
///
/// # Errors
/// 507, or the given error.
pub fn as_507(response: Result<TfsResponse, RequestError>) -> Result<TfsResponse, RequestError> {
    let exhausted = |text: &str| Err(RequestError::new(507, format!("Memory exhausted: {text}")));
    match response {
        Ok(response)
            if response.status == EXHAUSTED
                && memmem::find(&response.body, WAITED_TOO_LONG).is_none() =>
        {
            exhausted("TensorFlow Serving has no memory for the request.")
        }
        // Memory is short and TFS ended repeatedly, so the kernel has probably killed it.
        Err(error) if error.status == 502 && memory::is_short() => exhausted(&error.text),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_507_for_a_lack_of_memory_but_not_for_a_full_or_slow_queue() {
        let response = |status: u16, text: &str| {
            as_507(Ok(TfsResponse {
                status,
                headers: Default::default(),
                body: format!("{{\"error\": \"{text}\"}}").into_bytes().into(),
            }))
        };
        for text in [
            "OOM when allocating tensor with shape[1,9]",
            "Out of memory while trying to allocate 9 bytes.",
        ] {
            assert_eq!(response(429, text).unwrap_err().status, 507);
        }
        let slow = "Run() timeout exceeded while waiting in batching queue";
        assert!(response(429, slow).is_ok());
        let full = "The batch scheduling queue to which this task was submitted is full";
        assert!(response(503, full).is_ok());
        let lost = as_507(Err(RequestError::bad_request("x")));
        assert_eq!(lost.unwrap_err().status, 400);
    }
}
