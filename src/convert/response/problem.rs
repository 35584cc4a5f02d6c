//! Why a response cannot be converted.

use crate::budget::NoRoom;
use crate::error::RequestError;

/// Why a conversion fails. Every step of reading may return it, so it is small enough for two registers.
#[derive(Debug)]
pub enum Problem {
    /// The response is not JSON as TensorFlow Serving writes it, from about this byte on.
    Broken(usize),
    /// The lists of an output differ in length or depth at this byte, so they are no array.
    Ragged(usize),
    /// No memory is left for the converted response.
    NoRoom(NoRoom),
    /// The format cannot express the response: a 406.
    Unfit(Box<RequestError>),
}

impl From<NoRoom> for Problem {
    fn from(no_room: NoRoom) -> Self {
        Self::NoRoom(no_room)
    }
}

impl Problem {
    /// The problem that the format cannot express the response; the text says what to ask for instead.
    pub fn unfit(text: impl Into<String>) -> Self {
        Self::Unfit(Box::new(RequestError::new(406, text)))
    }

    /// The error for the client that asked for `content_type`.
    pub fn into_error(self, content_type: &str) -> RequestError {
        match self {
            Self::NoRoom(no_room) => no_room.for_response(),
            Self::Unfit(error) => *error,
            Self::Ragged(at) => RequestError::new(
                502,
                format!(
                    "The model server's response cannot be converted to {content_type}: at byte {at} the lists of an \
                     output differ in length or depth. Send Accept: application/json."
                ),
            ),
            Self::Broken(at) => RequestError::new(
                502,
                format!(
                    "The model server's response cannot be converted to {content_type}: at byte {at} it is not the JSON \
                     of a prediction. Send Accept: application/json to see it."
                ),
            ),
        }
    }
}
