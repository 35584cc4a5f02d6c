//! The head of a request: finds its end, parses it and looks up headers.
//!
//! `httparse` does the parsing. This file refuses what `httparse` is lenient about, and what this server and a proxy in
//! front of it could read differently.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use crate::budget::Reservation;
use crate::error::RequestError;

/// Largest head in bytes, as in nginx.
pub const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Most headers in a head. SageMaker sends about ten, and clients add a few.
const MAX_HEADERS: usize = 128;

/// Whether `bytes` are nothing but carriage returns and line feeds.
pub fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| b"\r\n".contains(byte))
}

/// Finds the end of a head in bytes that arrive piece by piece, without scanning any byte twice.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Bytes scanned so far.
    scanned: usize,
    /// Start of the current line.
    line: usize,
}

impl Scanner {
    /// Returns where the head at the start of `bytes` ends: after its empty line. `None` while that line has not
    /// arrived.
    ///
    /// # Errors
    /// 400 for a line that ends without a carriage return, 431 for a head that is too long.
    pub fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, RequestError> {
        let limit = bytes.len().min(MAX_HEAD_BYTES);
        while let Some(offset) = memchr::memchr(b'\n', &bytes[self.scanned..limit]) {
            let newline = self.scanned + offset;
            if newline == self.line || bytes[newline - 1] != b'\r' {
                return Err(bad(
                    "A line of the request head ends without a carriage return.",
                ));
            }
            let is_empty = newline - 1 == self.line;
            self.scanned = newline + 1;
            self.line = newline + 1;
            if is_empty {
                return Ok(Some(newline + 1));
            }
        }
        self.scanned = limit;
        if bytes.len() >= MAX_HEAD_BYTES {
            return Err(too_long());
        }
        Ok(None)
    }
}

/// A range of a head's text. 16-bit offsets keep it small: a head may have many, for as long as its request lasts.
#[derive(Debug, Clone, Copy)]
struct Range {
    start: u16,
    end: u16,
}

const _: () = assert!(MAX_HEAD_BYTES <= u16::MAX as usize);

impl Range {
    fn of<'a>(&self, text: &'a str) -> &'a str {
        &text[self.start.into()..self.end.into()]
    }
}

/// A request's head.
#[derive(Debug)]
pub struct Head {
    /// The whole head. Method, target and headers are ranges of this text.
    text: String,
    method: Range,
    target: Range,
    /// Names, and values without surrounding white space.
    headers: Vec<(Range, Range)>,
    /// Whether the request is HTTP/1.0 rather than HTTP/1.1.
    pub is_http_1_0: bool,
    /// The memory reserved for a large head.
    pub memory: Option<Reservation>,
}

impl Head {
    /// Parses a complete head.
    ///
    /// # Errors
    /// 400 for anything but a valid HTTP/1 head, 431 for a head with too many bytes or headers, 505 for another HTTP
    /// version.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, RequestError> {
        // The log and handlers get targets and values as text.
        let text =
            String::from_utf8(bytes).map_err(|_| bad("The request head is not valid UTF-8."))?;
        if text.len() > MAX_HEAD_BYTES {
            return Err(too_long());
        }
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(text.as_bytes(), &mut headers) {
            Ok(httparse::Status::Complete(length)) if length == text.len() => {}
            Ok(_) => return Err(bad("The request head is malformed.")),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(RequestError::ending(
                    431,
                    format!("The request has more than {MAX_HEADERS} headers."),
                ));
            }
            Err(httparse::Error::Version) => {
                return Err(RequestError::ending(
                    505,
                    "Only HTTP/1.0 and HTTP/1.1 are supported.",
                ));
            }
            Err(e) => return Err(bad(format!("The request head is malformed: {e}."))),
        }
        let (Some(method), Some(target), Some(version)) =
            (request.method, request.path, request.version)
        else {
            return Err(bad("The request head is malformed."));
        };
        let target = path_and_query(target)?;
        let range = |part: &[u8]| {
            let start = part.as_ptr().addr() - text.as_ptr().addr();
            // These fit: MAX_HEAD_BYTES limits the text.
            Range {
                start: start as u16,
                end: (start + part.len()) as u16,
            }
        };
        let headers = request.headers.iter();
        let headers = headers
            .map(|header| {
                (
                    range(header.name.as_bytes()),
                    range(header.value.trim_ascii()),
                )
            })
            .collect();
        let head = Self {
            method: range(method.as_bytes()),
            target: range(target.as_bytes()),
            headers,
            is_http_1_0: version == 0,
            text,
            memory: None,
        };
        head.check_host()?;
        // Programs differ in which one they read.
        if head.values("Content-Type").nth(1).is_some() {
            return Err(bad("The request has more than one Content-Type header."));
        }
        Ok(head)
    }

    /// Checks that the head has exactly one `Host` header, which may be empty (RFC 9112, 3.2). HTTP/1.0 may omit it.
    fn check_host(&self) -> Result<(), RequestError> {
        let mut hosts = self.values("Host");
        match (hosts.next(), hosts.next()) {
            (None, _) if self.is_http_1_0 => Ok(()),
            (None, _) => Err(bad("The Host header is missing.")),
            (Some(_), Some(_)) => Err(bad("The request has more than one Host header.")),
            (Some(host), None) if host.bytes().all(is_host_byte) => Ok(()),
            (Some(_), None) => Err(bad("The Host header is not a valid host and port.")),
        }
    }

    /// Memory that the head uses, in bytes.
    pub fn size(&self) -> usize {
        self.text.len() + self.headers.len() * size_of::<(Range, Range)>()
    }

    /// The method, as the client sent it.
    pub fn method(&self) -> &str {
        self.method.of(&self.text)
    }

    /// Path and query of the target, as the client sent them. For a URL without a path, the query alone; `*` stays `*`.
    pub fn target(&self) -> &str {
        self.target.of(&self.text)
    }

    /// The values of all headers with this name, without surrounding white space.
    pub fn values(&self, name: &'static str) -> impl Iterator<Item = &str> {
        let headers = self.headers.iter();
        headers
            .filter(move |(key, _)| key.of(&self.text).eq_ignore_ascii_case(name))
            .map(|(_, value)| value.of(&self.text))
    }

    /// Names and values of all headers, as the client sent them, without white space around the values.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let headers = self.headers.iter();
        headers.map(|(name, value)| (name.of(&self.text), value.of(&self.text)))
    }

    /// The value of the first header with this name.
    pub fn first(&self, name: &'static str) -> Option<&str> {
        self.values(name).next()
    }

    /// The value of a list header. Several headers with this name are joined to one list.
    pub fn list(&self, name: &'static str) -> Option<Cow<'_, str>> {
        let mut values = self.values(name);
        let first = Cow::Borrowed(values.next()?);
        Some(values.fold(first, |list, value| Cow::Owned(format!("{list},{value}"))))
    }

    /// The members of the `Expect` header. HTTP/1.0 has none.
    pub fn expectations(&self) -> impl Iterator<Item = &str> {
        let values = self.values("Expect").filter(|_| !self.is_http_1_0);
        let all = values.flat_map(|value| value.split(',')).map(str::trim);
        all.filter(|expectation| !expectation.is_empty())
    }

    /// Whether the client wants to keep the connection after this request.
    pub fn keeps_connection(&self) -> bool {
        let asks = |word: &str| {
            self.values("Connection")
                .flat_map(|value| value.split(','))
                .any(|option| option.trim().eq_ignore_ascii_case(word))
        };
        !asks("close") && (!self.is_http_1_0 || asks("keep-alive"))
    }
}

/// The path and query of a request target, which may be a path, an HTTP URL or `*` (RFC 9112, 3.2).
fn path_and_query(target: &str) -> Result<&str, RequestError> {
    let wrong = Err(bad("The request target is neither a path nor an HTTP URL."));
    if !target.is_ascii() {
        return Err(bad(
            "The request target has characters that are not ASCII. Percent-encode them.",
        ));
    }
    if target.contains('#') {
        return wrong; // clients must not send fragments
    }
    if target.starts_with('/') || target == "*" {
        return Ok(target);
    }
    let Some((scheme, rest)) = target.split_once("://") else {
        return wrong;
    };
    if !["http", "https"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known))
    {
        return wrong;
    }
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(authority_end);
    match !authority.is_empty() && authority.bytes().all(is_host_byte) {
        true => Ok(target),
        false => wrong,
    }
}

/// Whether a byte may occur in a host and port: names, addresses and `%`-encoded bytes (RFC 3986, 3.2).
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(&byte)
}

fn too_long() -> RequestError {
    RequestError::ending(
        431,
        format!("The request head is larger than {MAX_HEAD_BYTES} bytes."),
    )
}

fn bad(text: impl Into<String>) -> RequestError {
    RequestError::ending(400, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(head: &str) -> u16 {
        match Head::parse(head.into()) {
            Ok(_) => 200,
            Err(error) => error.status,
        }
    }

    #[test]
    fn finds_the_end_of_a_head_split_at_any_point() {
        let bytes = b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\nGET";
        for piece in 1..bytes.len() {
            let mut scanner = Scanner::default();
            let found = (1..=bytes.len())
                .step_by(piece)
                .find_map(|end| scanner.find_end(&bytes[..end]).unwrap());
            let found = found.or_else(|| scanner.find_end(bytes).unwrap());
            assert_eq!(found, Some(bytes.len() - 3), "pieces of {piece}");
        }
    }

    #[test]
    fn refuses_lines_without_carriage_return_and_heads_without_end() {
        for bytes in [&b"GET / HTTP/1.1\n"[..], b"\n", b"A\r\nb\n\n", b"A\r\n\n"] {
            let error = Scanner::default().find_end(bytes).unwrap_err();
            assert_eq!(error.status, 400, "{bytes:?}");
        }
        let endless = vec![b'x'; MAX_HEAD_BYTES];
        let mut scanner = Scanner::default();
        assert!(scanner.find_end(&endless[1..]).unwrap().is_none());
        assert_eq!(scanner.find_end(&endless).unwrap_err().status, 431);
    }

    #[test]
    fn finds_method_target_and_headers() {
        let head = Head::parse(
            b"POST /a?b HTTP/1.1\r\nHost: x\r\nAccept:  x \r\naccept: y\r\nEmpty:\r\n\r\n".to_vec(),
        )
        .unwrap();
        assert_eq!((head.method(), head.target()), ("POST", "/a?b"));
        assert_eq!(head.first("ACCEPT"), Some("x"));
        assert_eq!(head.list("Accept").as_deref(), Some("x,y"));
        assert_eq!(head.first("Empty"), Some(""));
        assert_eq!(head.first("Absent"), None);
        assert!(!head.is_http_1_0);
    }

    #[test]
    fn returns_400_431_or_505_for_invalid_heads() {
        for (head, expected) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 200),
            ("GET / HTTP/1.0\r\nA: b\r\n\r\n", 200),
            ("GET / HTTP/1.1\r\nHost: x\r\nA: \u{e9}\r\n\r\n", 200),
            ("GET / HTTP/2.0\r\n\r\n", 505),
            ("GET /\r\n\r\n", 400),
            ("GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("GET /\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            (
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: a/b\r\ncontent-type: a/b\r\n\r\n",
                400,
            ),
            ("GET ping HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("GET http://host/ping HTTP/1.1\r\nHost: x\r\n\r\n", 200),
            ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 200),
            ("OPTIONS *x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("CONNECT host:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("G\u{e9}T / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: x\r\nA\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: x\r\n A: b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", 400),
        ] {
            assert_eq!(status(head), expected, "{head:?}");
        }
        let many = |count| {
            format!(
                "GET / HTTP/1.1\r\nHost: x\r\n{}\r\n",
                "A: b\r\n".repeat(count)
            )
        };
        assert_eq!(status(&many(MAX_HEADERS - 1)), 200);
        assert_eq!(status(&many(MAX_HEADERS)), 431);
        let latin_1 = b"GET / HTTP/1.1\r\nHost: x\r\nA: \xe9\r\n\r\n".to_vec();
        assert_eq!(Head::parse(latin_1).unwrap_err().status, 400);
    }

    #[test]
    fn requires_exactly_one_host_except_in_http_1_0() {
        for (head, expected) in [
            ("HTTP/1.1\r\n", 400),
            ("HTTP/1.1\r\nHost:\r\n", 200),
            ("HTTP/1.1\r\nHost: a.example:8080\r\n", 200),
            ("HTTP/1.1\r\nhost: [::1]:8080\r\n", 200),
            ("HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400),
            ("HTTP/1.1\r\nHost: a, b\r\n", 400),
            ("HTTP/1.1\r\nHost: a/b\r\n", 400),
            ("HTTP/1.1\r\nHost: a@b\r\n", 400),
            ("HTTP/1.0\r\n", 200),
            ("HTTP/1.0\r\nHost: a\r\nHost: b\r\n", 400),
        ] {
            assert_eq!(status(&format!("GET / {head}\r\n")), expected, "{head:?}");
        }
    }

    #[test]
    fn the_target_of_a_url_is_its_path_and_query() {
        for (target, expected) in [
            ("/ping", Some("/ping")),
            ("//ping", Some("//ping")),
            ("http://a/ping?x", Some("/ping?x")),
            ("HTTP://a:80/ping", Some("/ping")),
            ("httpS://[::1]/ping", Some("/ping")),
            ("http://a?x=/ping", Some("?x=/ping")),
            ("http://a", Some("")),
            ("http:///ping", None),
            ("http://user@a/ping", None),
            ("ftp://a/ping", None),
            ("a/http://b/ping", None),
            ("/ping#x", None),
            ("http://a/ping#x", None),
            ("http://a#/ping", None),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
            let head = Head::parse(head.into());
            assert_eq!(head.as_ref().ok().map(Head::target), expected, "{target}");
        }
    }

    #[test]
    fn lists_expectations_of_http_1_1_only() {
        for (head, expected) in [
            ("1.1\r\n", vec![]),
            ("1.1\r\nExpect: 100-continue\r\n", vec!["100-continue"]),
            (
                "1.1\r\nExpect: a , b\r\nexpect: c\r\nExpect:\r\n",
                vec!["a", "b", "c"],
            ),
            ("1.0\r\nExpect: 100-continue\r\n", vec![]),
        ] {
            let text = format!("GET / HTTP/{}", head.replacen("\r\n", "\r\nHost: x\r\n", 1));
            let head = Head::parse(format!("{text}\r\n").into()).unwrap();
            assert_eq!(Vec::from_iter(head.expectations()), expected, "{text:?}");
        }
    }

    #[test]
    fn http_1_1_keeps_connections_by_default_and_http_1_0_on_request() {
        for (head, keeps) in [
            ("HTTP/1.1\r\nHost: x\r\n", true),
            (
                "HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n",
                true,
            ),
            ("HTTP/1.1\r\nHost: x\r\nConnection: x, Close\r\n", false),
            (
                "HTTP/1.1\r\nHost: x\r\nConnection: x\r\nConnection: close\r\n",
                false,
            ),
            ("HTTP/1.0\r\n", false),
            ("HTTP/1.0\r\nConnection: Keep-Alive\r\n", true),
        ] {
            let head = Head::parse(format!("GET / {head}\r\n").into()).unwrap();
            assert_eq!(head.keeps_connection(), keeps, "{head:?}");
        }
    }
}
