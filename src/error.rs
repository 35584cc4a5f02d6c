//! The two error types: one for refusing to start, one for a single request.
//!
//! A start error is a sentence for the person who reads the log; a request error knows its HTTP status and
//! becomes `{"error": "..."}`. Nothing else in the program crosses a module border as an error.

use std::time::Duration;

/// Exit code for wrong settings and wrong use of the command line.
pub const EXIT_USAGE: u8 = 2;
/// Exit code for everything else that prevents or ends the start.
pub const EXIT_FAILURE: u8 = 1;

/// Why the server does not start. Printed as it is, one line per problem.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Wrong settings, all of them at once, or wrong use of the command line.
    #[error("{}", .0.join("\n"))]
    Settings(Vec<String>),
    /// Anything else: no model, a port in use, a model server that does not come up.
    #[error("{0}")]
    Failed(String),
    /// A signal came before there was anything to serve, which is no failure.
    #[error("stopped by a signal")]
    Stopped,
}

impl StartError {
    /// Shorthand for [`StartError::Failed`].
    pub fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    /// The process exit code that goes with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(_) => EXIT_USAGE,
            Self::Failed(_) => EXIT_FAILURE,
            Self::Stopped => 0,
        }
    }
}

/// Why one request is not answered as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {text}")]
pub struct RequestError {
    /// HTTP status code of the answer.
    pub status: u16,
    /// What the client reads under the key `error`. SageMaker shows clients at most 2,048 characters.
    pub text: String,
    /// A header that belongs to the status, such as `Allow` with 405.
    pub header: Option<(&'static str, &'static str)>,
    /// Whether the client is to end the connection, because where its next request begins is not known.
    pub ends_connection: bool,
}

impl RequestError {
    /// An error with this HTTP status.
    pub fn new(status: u16, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            header: None,
            ends_connection: false,
        }
    }

    /// 400: the request is wrong in a way the client can mend.
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::new(400, text)
    }

    /// An error after which it is not known where the next request begins: the connection ends with it.
    pub fn ending(status: u16, text: impl Into<String>) -> Self {
        Self {
            ends_connection: true,
            ..Self::new(status, text)
        }
    }

    /// 503: there is no room for the request now, but there may be soon.
    pub fn busy(text: impl Into<String>) -> Self {
        Self {
            header: Some(("Retry-After", "1")),
            ..Self::new(503, text)
        }
    }

    /// 504: the request's deadline passed; `why` says what it was waiting for.
    pub fn deadline(limit: Duration, why: &str) -> Self {
        Self::new(
            504,
            format!("No answer within {} s: {why}", limit.as_secs_f64()),
        )
    }

    /// 499: the client has hung up while its request was at work. This is only logged: nobody reads it.
    pub fn hung_up() -> Self {
        Self::new(499, "The client has hung up.")
    }

    /// The answer's body, written as users of the older container match it: with a space after the colon.
    pub fn to_json(&self) -> Vec<u8> {
        format!("{{\"error\": {}}}", serde_json::json!(self.text)).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_errors_escape_their_text() {
        let error = RequestError::bad_request("a \"quoted\"\nline");
        assert_eq!(error.to_json(), br#"{"error": "a \"quoted\"\nline"}"#);
    }

    #[test]
    fn wrong_settings_are_listed_line_by_line() {
        let error = StartError::Settings(vec!["a".into(), "b".into()]);
        assert_eq!(error.to_string(), "a\nb");
        assert_eq!(error.exit_code(), 2);
    }
}
