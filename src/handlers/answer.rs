//! What a request through handlers ends with: a checked [`Answer`].
//!
//! Content type and headers of a script go into the head of the response, where a line end would begin another header
//! and a second length another response. The worker has limited their size.

use crate::budget::Buffer;
use crate::error::{RequestError, shown};
use crate::handlers::channels::Reply;
use crate::tfs::message::TfsResponse;

/// The answer to the client.
#[derive(Debug)]
pub enum Answer {
    /// The script's.
    OfScript {
        /// The HTTP status.
        status: u16,
        /// Content type of the body.
        content_type: String,
        /// Headers that the script adds.
        headers: Vec<(String, String)>,
        /// The body.
        body: Buffer,
    },
    /// TensorFlow Serving's error.
    OfModel(TfsResponse),
}

/// Headers that the server writes, and those that decide where a message ends or what a connection becomes. No script
/// may set them. `Content-Encoding` is not among them: a script may compress its body.
const OWNED: [&str; 11] = [
    "Connection",
    "Content-Length",
    "Content-Type",
    "Date",
    "Keep-Alive",
    "Proxy-Connection",
    "Server",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
];

impl Answer {
    /// The answer that `handler` or `output_handler` gives, or any function by an exception.
    ///
    /// # Errors
    /// The exception: 500, or the status that it chooses from 400 to 599. 500 for a content type or headers that cannot
    /// be sent.
    pub fn of(reply: Reply) -> Result<Self, RequestError> {
        match reply {
            Reply::ForClient {
                content_type,
                headers,
                body,
            } => {
                check(&content_type, &headers)?;
                Ok(Self::OfScript {
                    status: 200,
                    content_type,
                    headers,
                    body,
                })
            }
            Reply::Refused {
                status,
                mut headers,
                body,
            } => {
                headers.retain(may_be_sent);
                Ok(Self::OfScript {
                    status: error_status(status).unwrap_or(500),
                    content_type: "application/json".into(),
                    headers,
                    body,
                })
            }
            Reply::Raised(text, status) => {
                let status = status.and_then(error_status);
                Err(RequestError::new(status.unwrap_or(500), text))
            }
            Reply::ForModelServer { .. } => Err(unexpected()),
        }
    }
}

/// The error for a reply that does not belong to the function that was called.
pub fn unexpected() -> RequestError {
    RequestError::new(500, "The Python worker sent an unexpected response.")
}

fn error_status(status: u16) -> Option<u16> {
    (400..600).contains(&status).then_some(status)
}

fn check(content_type: &str, headers: &[(String, String)]) -> Result<(), RequestError> {
    let error = |text| Err(RequestError::new(500, text));
    if !is_printable(content_type) {
        return error(format!(
            "The handler returned {}, which is not a valid content type.",
            shown(content_type)
        ));
    }
    match headers.iter().find_map(problem) {
        Some(problem) => error(format!("The handler returned {problem}.")),
        None => Ok(()),
    }
}

/// Whether a header of an exception can be sent. The log says why not: the client needs the exception more than a
/// message about this header.
fn may_be_sent(header: &(String, String)) -> bool {
    let problem = problem(header);
    if let Some(problem) = &problem {
        log::warn!("an exception of the handler has {problem}; it is left out");
    }
    problem.is_none()
}

/// Why a header of a script cannot be sent, if it cannot.
fn problem((name, value): &(String, String)) -> Option<String> {
    if !is_token(name) {
        let name = shown(name);
        return Some(format!(
            "a header with the name {name}, which is not a valid name"
        ));
    }
    if OWNED.iter().any(|owned| owned.eq_ignore_ascii_case(name)) {
        return Some(format!("the header {name}, which only the server sets"));
    }
    (!is_printable(value)).then(|| {
        let value = shown(value);
        format!("the header {name} with the value {value}, which is not printable ASCII")
    })
}

fn is_printable(value: &str) -> bool {
    value.bytes().all(|b| (b' '..=b'~').contains(&b))
}

/// Whether this is a header's name (RFC 9110, 5.6.2).
fn is_token(name: &str) -> bool {
    let is_token_byte = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(is_token_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(content_type: &str, headers: &[(&str, &str)]) -> Result<Answer, RequestError> {
        let headers = headers.iter();
        Answer::of(Reply::ForClient {
            content_type: content_type.into(),
            headers: headers.map(|&(n, v)| (n.into(), v.into())).collect(),
            body: Buffer::default(),
        })
    }

    fn refusal(content_type: &str, headers: &[(&str, &str)]) -> String {
        let error = answer(content_type, headers).unwrap_err();
        assert_eq!(error.status, 500);
        error.text
    }

    #[test]
    fn passes_headers_of_the_script() {
        let headers = [
            ("X-Amzn-SageMaker-Custom-Attributes", "a=1, b=\"2\""),
            ("X-Empty", ""),
            ("content-encoding", "gzip"),
            ("!#$%&'*+-.^_`|~09", "~ ~"),
        ];
        let answer = answer("text/plain", &headers).unwrap();
        let Answer::OfScript {
            status: 200,
            headers: sent,
            ..
        } = answer
        else {
            panic!("{answer:?}");
        };
        assert_eq!(sent.len(), headers.len());
    }

    #[test]
    fn refuses_what_breaks_the_head() {
        for value in ["a\r\nX: 1", "a\nb", "\r", "\0", "\t", "\u{7f}", "\u{e9}"] {
            let text = refusal("text/plain", &[("X-A", value)]);
            assert!(text.contains("not printable ASCII"), "{text}");
            assert!(refusal(value, &[]).contains("not a valid content type"));
        }
        for name in ["", " ", "a b", "a:", "a\r\nb", "\u{e9}", "(a)", "a\0"] {
            let text = refusal("text/plain", &[(name, "1")]);
            assert!(text.contains("not a valid name"), "{text}");
        }
    }

    #[test]
    fn refuses_headers_of_the_server_in_any_case() {
        for name in OWNED {
            for name in [name.to_owned(), name.to_lowercase(), name.to_uppercase()] {
                let text = refusal("text/plain", &[(&name, "1")]);
                assert!(text.contains("only the server sets"), "{text}");
            }
        }
    }

    #[test]
    fn an_exception_chooses_error_statuses_only() {
        for (chosen, status) in [
            (None, 500),
            (Some(400), 400),
            (Some(599), 599),
            (Some(399), 500),
            (Some(600), 500),
            (Some(0), 500),
        ] {
            let error = Answer::of(Reply::Raised("why".into(), chosen)).unwrap_err();
            assert_eq!((error.status, &*error.text), (status, "why"));
            let Some(chosen) = chosen else { continue };
            let reply = Reply::Refused {
                status: chosen,
                headers: Vec::new(),
                body: Buffer::from(b"{}".to_vec()),
            };
            let answer = Answer::of(reply).unwrap();
            assert!(
                matches!(answer, Answer::OfScript { status: s, .. } if s == status),
                "{answer:?}"
            );
        }
    }

    #[test]
    fn headers_of_an_exception_never_hide_it() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let reply = Reply::Refused {
            status: 429,
            headers: vec![
                header("Content-Length", "0"),
                header("Retry-After", "30"),
                header("X", "1\r\nY: 2"),
                header("", ""),
            ],
            body: Buffer::default(),
        };
        let answer = Answer::of(reply).unwrap();
        let Answer::OfScript { headers, .. } = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(headers, [header("Retry-After", "30")]);
    }
}
