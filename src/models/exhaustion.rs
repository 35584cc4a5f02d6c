//! Out of memory: recognizes the answers of TensorFlow Serving that mean it. SageMaker wants 507 then, and unloads other
//! models.

use memchr::memmem;

use crate::error::RequestError;
use crate::memory;
use crate::tfs::message::TfsAnswer;

/// TensorFlow Serving's status for a lack of memory, and for a request that waited too long to get into a batch. A full
/// queue of batches is 503.
const EXHAUSTED: u16 = 429;
/// What is in the text of an error when it is about the queue.
const WAITED_TOO_LONG: &[u8] = b"waiting in batching queue";

/// Turns an answer, or an error, that is due to a lack of memory into 507.
///
/// # Errors
/// The given error, or 507.
pub fn as_507(answer: Result<TfsAnswer, RequestError>) -> Result<TfsAnswer, RequestError> {
    let exhausted = |text: &str| Err(RequestError::new(507, format!("Memory exhausted: {text}")));
    match answer {
        Ok(answer)
            if answer.status == EXHAUSTED
                && memmem::find(&answer.body, WAITED_TOO_LONG).is_none() =>
        {
            exhausted("TensorFlow Serving has no memory for the request.")
        }
        // The model server was killed again and again.
        Err(error) if error.status == 502 && memory::is_short() => exhausted(&error.text),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_is_507_and_a_full_or_slow_queue_is_not() {
        let answer = |status: u16, text: &str| {
            as_507(Ok(TfsAnswer {
                status,
                headers: Default::default(),
                body: format!("{{\"error\": \"{text}\"}}").into_bytes().into(),
            }))
        };
        for text in [
            "OOM when allocating tensor with shape[1,9]",
            "Out of memory while trying to allocate 9 bytes.",
        ] {
            assert_eq!(answer(429, text).unwrap_err().status, 507);
        }
        let slow = "Run() timeout exceeded while waiting in batching queue";
        assert!(answer(429, slow).is_ok());
        let full = "The batch scheduling queue to which this task was submitted is full";
        assert!(answer(503, full).is_ok());
        let lost = as_507(Err(RequestError::bad_request("x")));
        assert_eq!(lost.unwrap_err().status, 400);
    }
}
