//! The two error types: [`StartError`] ends the program, [`RequestError`] fails one request.
//!
//! A start error is a sentence for the operator who reads the log. A request error has an HTTP status and becomes the
//! response `{"error": "..."}`. Modules turn the errors of libraries into one of the two where they decide what to do.

use std::borrow::Cow;
use std::time::Duration;

/// Exit code for wrong settings and wrong use of the command line.
pub const EXIT_USAGE: u8 = 2;
/// Exit code for every other failure.
pub const EXIT_FAILURE: u8 = 1;

/// Why the server does not start, or why it stops. Printed unchanged, one line per problem.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Wrong settings, all of them at once, or wrong use of the command line.
    #[error("{}", .0.join("\n"))]
    Settings(Vec<String>),
    /// Any other failure: no model, a port in use, a model server that does not start.
    #[error("{0}")]
    Failed(String),
    /// A signal stopped the program during the start. This is not a failure.
    #[error("stopped by a signal")]
    Stopped,
}

impl StartError {
    /// Makes a [`StartError::Failed`].
    pub fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    /// The exit code of the process for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(_) => EXIT_USAGE,
            Self::Failed(_) => EXIT_FAILURE,
            Self::Stopped => 0,
        }
    }
}

/// Why one request fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {text}")]
pub struct RequestError {
    /// HTTP status code of the response.
    pub status: u16,
    /// The value of the key `error` in the response. SageMaker shows clients at most 2,048 characters of it.
    pub text: String,
    /// A header that belongs to the status, such as `Allow` with 405.
    pub header: Option<(&'static str, &'static str)>,
    /// Whether the connection ends with the response, because the start of the next request is unknown.
    pub ends_connection: bool,
}

impl RequestError {
    /// An error with this HTTP status. The connection stays open.
    pub fn new(status: u16, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            header: None,
            ends_connection: false,
        }
    }

    /// 400: the request is wrong, and the client can correct it.
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::new(400, text)
    }

    /// An error after which the start of the next request is unknown, so the connection ends.
    pub fn ending(status: u16, text: impl Into<String>) -> Self {
        Self {
            ends_connection: true,
            ..Self::new(status, text)
        }
    }

    /// 503 with `Retry-After`: the server has no room for the request now, but may have soon.
    pub fn busy(text: impl Into<String>) -> Self {
        Self {
            header: Some(("Retry-After", "1")),
            ..Self::new(503, text)
        }
    }

    /// 504: the request's deadline, `limit` after its start, has passed; `why` says what the request was waiting for.
    pub fn deadline(limit: Duration, why: &str) -> Self {
        Self::new(
            504,
            format!("No response within {} s: {why}", limit.as_secs_f64()),
        )
    }

    /// 499: the client hung up while its request was at work. Only the access log shows this status.
    pub fn hung_up() -> Self {
        Self::new(499, "The client hung up.")
    }

    /// The response's body. It has a space after the colon, as in the Python container, because clients match the text.
    pub fn to_json(&self) -> Vec<u8> {
        format!("{{\"error\": {}}}", serde_json::json!(self.text)).into_bytes()
    }
}

/// A client's text for a message: in quotes, with escapes, and not longer than a message should be.
pub fn shown(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A client's text that a message repeats as it is, such as a name or a path: cut to at most 255 bytes, the longest name
/// of a model.
pub fn clipped(text: &str) -> Cow<'_, str> {
    const MOST: usize = 255;
    if text.len() <= MOST {
        return text.into();
    }
    let ends = text.char_indices().map(|(end, _)| end);
    let end = ends.take_while(|&end| end <= MOST).last().unwrap_or(0);
    format!("{}...", &text[..end]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_and_clipped_text_is_short() {
        let long = "\u{301}\u{0}\u{10ffff}".repeat(10_000);
        assert!(shown(&long).len() < 1000);
        assert!(clipped(&long).len() < 300);
        assert_eq!(clipped(&"a".repeat(255)), "a".repeat(255));
        assert_eq!(clipped(&"\u{e9}".repeat(128)), "\u{e9}".repeat(127) + "...");
    }

    #[test]
    fn request_error_escapes_its_text() {
        let error = RequestError::bad_request("a \"quoted\"\nline");
        assert_eq!(error.to_json(), br#"{"error": "a \"quoted\"\nline"}"#);
    }

    #[test]
    fn lists_wrong_settings_line_by_line() {
        let error = StartError::Settings(vec!["a".into(), "b".into()]);
        assert_eq!(error.to_string(), "a\nb");
        assert_eq!(error.exit_code(), 2);
    }
}
