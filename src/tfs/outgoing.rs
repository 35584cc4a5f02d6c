//! Checks requests to TFS, so that no client can smuggle one request into another.
//!
//! TFS's HTTP library does not read the bodies of GET, HEAD, DELETE and OPTIONS (later versions: of HEAD). It takes
//! such a body for the next request on the connection, whose response would then go to another client. So we send only
//! GET and POST, and only POST with a body, always with its length. A request target has only characters that RFC 3986
//! allows.

use ureq::http::HeaderValue;
use ureq::http::uri::PathAndQuery;

use crate::error::{RequestError, shown};
use crate::tfs::buffers::SMALL_BYTES;
use crate::tfs::message::{Method, TfsRequest};

/// The most bytes of a path with its query, percent-encoded. With the content type and the rest of the head, it has to fit
/// into a connection's small buffer.
pub const MAX_TARGET_BYTES: usize = 7 << 10;
/// The most bytes of a content type.
pub const MAX_CONTENT_TYPE_BYTES: usize = 512;
/// What the HTTP library adds: the method, the version, the host, the length, and what it accepts.
const OTHER_BYTES: usize = 512;
const _: () = assert!(MAX_TARGET_BYTES + MAX_CONTENT_TYPE_BYTES + OTHER_BYTES <= SMALL_BYTES);

/// A request that has been checked and can be sent.
#[derive(Debug)]
pub struct Outgoing<'a> {
    pub(super) target: PathAndQuery,
    pub(super) content: Content<'a>,
}

/// What the request has besides its target.
#[derive(Debug)]
pub(super) enum Content<'a> {
    /// GET: nothing.
    None,
    /// POST: a body.
    Body {
        content_type: Option<HeaderValue>,
        body: &'a [u8],
    },
}

impl<'a> Outgoing<'a> {
    /// Checks a request.
    ///
    /// # Errors
    /// 400 for a target or content type that cannot be sent, 414 for a target that is too long.
    pub fn new(request: &TfsRequest<'a>) -> Result<Self, RequestError> {
        let target = target(request.path)?;
        let content = match request.method {
            Method::Get => Content::None,
            Method::Post => Content::Body {
                content_type: request.content_type.map(content_type).transpose()?,
                body: request.body,
            },
        };
        Ok(Self { target, content })
    }
}

/// Whether a path segment is `.` or `..`, percent-encoded or not.
fn is_dot_segment(segment: &str) -> bool {
    let mut rest = segment;
    for _ in 0..2 {
        let dot = [".", "%2e", "%2E"]
            .iter()
            .find_map(|dot| rest.strip_prefix(dot));
        match dot {
            Some("") => return true,
            Some(left) => rest = left,
            None => return false,
        }
    }
    false
}

/// Checks a request target and percent-encodes the characters that RFC 3986 does not allow in it.
fn target(text: &str) -> Result<PathAndQuery, RequestError> {
    let wrong = |why: &str| {
        let text = format!("The path or query {why}.");
        Err(RequestError::bad_request(text))
    };
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    };
    let Some(inner) = path.strip_prefix('/') else {
        return wrong("does not begin with a slash");
    };
    let mut segments = inner.split('/').peekable();
    while let Some(segment) = segments.next() {
        // At the start, an empty segment would make the next one a host; elsewhere, some software merges the slashes.
        if segment.is_empty() && segments.peek().is_some() {
            return wrong("has an empty segment (//)");
        }
        if is_dot_segment(segment) {
            return wrong("has a segment . or ..");
        }
    }
    let mut encoded = String::with_capacity(text.len());
    if let Err(why) = encode(path, &mut encoded) {
        return wrong(why);
    }
    if let Some(query) = query {
        encoded.push('?');
        if let Err(why) = encode(query, &mut encoded) {
            return wrong(why);
        }
    }
    if encoded.len() > MAX_TARGET_BYTES {
        return Err(RequestError::new(
            414,
            format!(
                "The path and query have {} bytes, percent-encoded; TensorFlow Serving gets at most {MAX_TARGET_BYTES}.",
                encoded.len()
            ),
        ));
    }
    match PathAndQuery::try_from(encoded) {
        Ok(target) => Ok(target),
        Err(e) => wrong(&format!("cannot be sent: {e}")),
    }
}

fn encode(text: &str, to: &mut String) -> Result<(), &'static str> {
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => to.push(byte.into()),
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+'
            | b',' | b';' | b'=' | b':' | b'@' | b'/' | b'?' => to.push(byte.into()),
            b'%' => {
                let digits = text.as_bytes().get(at + 1..at + 3);
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return Err("has a % without two hexadecimal digits");
                }
                to.push('%');
            }
            b'#' => return Err("has a fragment (#)"),
            0..=0x1f | 0x7f => return Err("has a control character"),
            _ => to.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(())
}

fn content_type(text: &str) -> Result<HeaderValue, RequestError> {
    if text.len() > MAX_CONTENT_TYPE_BYTES {
        return Err(RequestError::bad_request(format!(
            "The content type has {} bytes; TensorFlow Serving gets at most {MAX_CONTENT_TYPE_BYTES}.",
            text.len()
        )));
    }
    let value = text
        .bytes()
        .all(|byte| matches!(byte, b' '..=b'~'))
        .then(|| HeaderValue::from_str(text).ok())
        .flatten();
    value.ok_or_else(|| {
        RequestError::bad_request(format!(
            "The content type {} has characters other than printable ASCII.",
            shown(text)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tfs::checked_body::CheckedBody;
    use proptest::prelude::*;

    fn sent(text: &str) -> Result<String, u16> {
        let target = target(text).map_err(|error| error.status)?;
        Ok(target.as_str().to_owned())
    }

    #[test]
    fn keeps_a_target_of_allowed_characters() {
        for text in [
            "/",
            "/v1/models/m",
            "/v1/models/m/versions/1:predict",
            "/v1/",
            "/a..b/...",
            "/x?",
            "/x?a=b&c=%20/d?e//../",
            "/-._~!$&'()*+,;=:@%41%2f%0d%0A",
        ] {
            assert_eq!(sent(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn encodes_characters_that_are_not_allowed_in_a_target() {
        for (text, expected) in [
            ("/a b", "/a%20b"),
            ("/{\"<>|^`\\}[]", "/%7B%22%3C%3E%7C%5E%60%5C%7D%5B%5D"),
            ("/\u{e9}?\u{e9}", "/%C3%A9?%C3%A9"),
            ("/x?[\"a\"]", "/x?%5B%22a%22%5D"),
        ] {
            assert_eq!(sent(text).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn refuses_an_ambiguous_target() {
        for text in [
            "",
            "x",
            "?x",
            "*",
            "http://a/b",
            "//host/x",
            "//",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/./a",
            "/a/..",
            "/a/../b",
            "/%2e",
            "/.%2E/a",
            "/%2e%2E/",
            "/%",
            "/%2",
            "/%zz",
            "/%2?x",
            "/x?%",
            "/x?a%4",
            "/a#b",
            "/x?a#b",
            "/a\r\nb",
            "/a\0",
            "/\x7f",
            "/x?\n",
            "/\t",
            "/%\u{e9}1",
        ] {
            assert_eq!(sent(text), Err(400), "{text:?}");
        }
    }

    #[test]
    fn refuses_what_does_not_fit_into_the_head_of_a_request() {
        let path = |length: usize| format!("/{}", "a".repeat(length - 1));
        assert!(sent(&path(MAX_TARGET_BYTES)).is_ok());
        let encoded = format!("/{}", "\u{e9}".repeat(MAX_TARGET_BYTES / 3));
        for text in [
            path(MAX_TARGET_BYTES + 1),
            format!("/?{}", path(MAX_TARGET_BYTES)),
            encoded,
        ] {
            assert_eq!(sent(&text), Err(414));
        }
        let text = "a".repeat(MAX_CONTENT_TYPE_BYTES);
        assert!(content_type(&text).is_ok());
        let error = content_type(&format!("{text}a")).unwrap_err();
        assert_eq!(error.status, 400);
    }

    #[test]
    fn accepts_only_printable_ascii_as_content_type() {
        for (text, good) in [
            ("application/json; charset=\"utf-8\"", true),
            ("", true),
            ("a/b\r\nContent-Length: 5", false),
            ("a/b\t", false),
            ("a/\u{e9}", false),
            ("a\0", false),
        ] {
            assert_eq!(content_type(text).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn get_is_sent_without_a_body() {
        let request = TfsRequest {
            method: Method::Get,
            path: "/x",
            content_type: Some("a/b"),
            body: &CheckedBody::check(b"POST / HTTP/1.1\r\n\r\n".to_vec().into()).unwrap(),
        };
        assert!(matches!(
            Outgoing::new(&request).unwrap().content,
            Content::None
        ));
    }

    proptest! {
        /// An accepted target has no spaces, line breaks or fragment, and checking it again changes nothing.
        #[test]
        fn an_accepted_target_is_a_single_absolute_path(text in "/([ -~\u{0}-\u{1f}\u{e9}]|%2e|%[0-9a-f]{2}|\\.|/){0,40}") {
            if let Ok(target) = sent(&text) {
                prop_assert!(target.bytes().all(|b| b.is_ascii_graphic() && b != b'#'));
                let path = target.split('?').next().unwrap();
                prop_assert!(path.starts_with('/') && !path.contains("//"));
                prop_assert_eq!(sent(&target), Ok(target.clone()));
            }
        }
    }
}
