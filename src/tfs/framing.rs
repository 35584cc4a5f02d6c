//! Decides by the heads of responses whether a connection to TFS can be used again.
//!
//! ureq itself closes a connection after a response that has no length, ends early, asks for that, or is followed by
//! more bytes. But it reuses a connection after a response with two lengths, an unknown transfer encoding, or an
//! unexpected interim response (1xx) before it. TFS sends none of these, so a connection that carried one gets no
//! further request.

use std::mem::MaybeUninit;

use ureq::unversioned::transport::Buffers;

use crate::tfs::buffers::ConnectionBuffers;

/// The most headers of a response; ureq accepts no more.
const MAX_HEADERS: usize = 128;

/// The buffers of a connection, which inspect the head of each response: the first bytes that ureq consumes after a
/// request.
#[derive(Debug)]
pub struct WatchedBuffers {
    inner: ConnectionBuffers,
    awaits_head: bool,
    is_sound: bool,
    /// The bytes of the body that are still to come, if the head gave a length.
    left: Option<usize>,
}

impl WatchedBuffers {
    /// Empty buffers of a new connection.
    pub fn new() -> Self {
        Self {
            inner: ConnectionBuffers::default(),
            awaits_head: false,
            is_sound: true,
            left: None,
        }
    }

    /// Notes that `amount` bytes of a request are sent, so that a response head comes next.
    pub fn request_sent(&mut self, amount: usize) {
        self.awaits_head = true;
        self.inner.output_sent(amount);
    }

    /// Whether every response so far had a well-defined end, and ureq has consumed all bytes.
    pub fn is_sound(&self) -> bool {
        self.is_sound && self.inner.input().is_empty()
    }
}

impl Buffers for WatchedBuffers {
    fn output(&mut self) -> &mut [u8] {
        self.inner.output()
    }

    fn input(&self) -> &[u8] {
        self.inner.input()
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.inner.input_append_buf()
    }

    fn input_appended(&mut self, amount: usize) {
        self.inner.input_appended(amount);
    }

    fn input_consume(&mut self, amount: usize) {
        if self.awaits_head && amount > 0 {
            let head = inspect(&self.inner.input()[..amount]);
            self.is_sound &= matches!(head, Head::Clear(_));
            self.awaits_head = head == Head::Interim;
            self.left = match head {
                Head::Clear(length) => length,
                Head::Unclear | Head::Interim => None,
            };
        } else {
            self.left = self.left.map(|left| left.saturating_sub(amount));
        }
        self.inner.input_consume(amount);
        if self.left == Some(0) {
            self.left = None;
            self.inner.response_ended();
        }
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        self.inner.tmp_and_output()
    }

    fn can_use_input(&self) -> bool {
        self.inner.can_use_input()
    }
}

/// What the head of a response says about where the response ends.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    /// At this length, or with the last chunk (`None`).
    Clear(Option<usize>),
    /// The end is not well defined.
    Unclear,
    /// This is an interim response (1xx): another head follows.
    Interim,
}

fn inspect(head: &[u8]) -> Head {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        head,
        &mut headers,
    );
    if parsed.is_err() {
        return Head::Unclear;
    }
    match response.code {
        Some(100..200) => return Head::Interim,
        // Responses with these statuses have no body, whatever their headers say (RFC 9112, section 6.3). TFS sends
        // none.
        None | Some(204 | 304) => return Head::Unclear,
        Some(_) => {}
    }
    let (mut lengths, mut are_clear, mut length) = (0, true, None);
    for header in &*response.headers {
        if header.name.eq_ignore_ascii_case("Content-Length") {
            lengths += 1;
            are_clear &= header.value.iter().all(u8::is_ascii_digit);
            let text = str::from_utf8(header.value).unwrap_or_default();
            length = text.parse().ok();
        } else if header.name.eq_ignore_ascii_case("Transfer-Encoding") {
            lengths += 1;
            are_clear &= header.value.eq_ignore_ascii_case(b"chunked");
        }
    }
    match lengths == 1 && are_clear && response.version == Some(1) {
        true => Head::Clear(length),
        false => Head::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_length_or_chunks_are_clear() {
        for (lines, clear) in [
            ("Content-Length: 5\r\n", true),
            ("content-length: 0\r\nA: b\r\n", true),
            ("Transfer-Encoding: Chunked\r\n", true),
            ("", false),
            ("A: b\r\n", false),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", false),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", false),
            ("Content-Length: 5, 5\r\n", false),
            ("Content-Length: +5\r\n", false),
            ("Transfer-Encoding: gzip, chunked\r\n", false),
            (
                "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
                false,
            ),
        ] {
            let head = inspect(format!("HTTP/1.1 400 Bad\r\n{lines}\r\n").as_bytes());
            assert_eq!(matches!(head, Head::Clear(_)), clear, "{lines:?}");
            let old = inspect(format!("HTTP/1.0 200 OK\r\n{lines}\r\n").as_bytes());
            assert_eq!(old, Head::Unclear);
        }
        for (status, expected) in [
            (100, Head::Interim),
            (103, Head::Interim),
            (204, Head::Unclear),
        ] {
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(inspect(head.as_bytes()), expected, "{status}");
        }
        assert_eq!(inspect(b"HTTP/1.1 200 OK\r\n\0\r\n\r\n"), Head::Unclear);
    }

    #[test]
    fn a_connection_stays_unsound_after_an_interim_response() {
        let mut buffers = WatchedBuffers::new();
        let mut is_sound_after = |heads: &[&str]| {
            buffers.request_sent(100);
            for head in heads {
                buffers.input_append_buf()[..head.len()].copy_from_slice(head.as_bytes());
                buffers.input_appended(head.len());
                buffers.input_consume(0);
                buffers.input_consume(head.len());
            }
            // The body.
            buffers.input_append_buf()[..2].copy_from_slice(b"{}");
            buffers.input_appended(2);
            assert!(!buffers.is_sound(), "the body is not consumed");
            buffers.input_consume(2);
            buffers.is_sound()
        };
        let good = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        assert!(is_sound_after(&[good]) && is_sound_after(&[good]));
        assert!(!is_sound_after(&["HTTP/1.1 103 Early Hints\r\n\r\n", good]));
        assert!(!is_sound_after(&[good]));
    }
}
