//! Whether a connection to the model server can be used again, by the heads of its answers.
//!
//! ureq itself closes a connection after an answer that has no length, ends early, says so, or is followed by more bytes.
//! It reuses a connection after two lengths, an unknown transfer encoding, or an unexpected interim answer (1xx).
//! TensorFlow Serving sends none of these, so a connection that carried one gets no further request.

use std::mem::MaybeUninit;

use ureq::unversioned::transport::Buffers;

use crate::tfs::buffers::ConnectionBuffers;

/// Headers of an answer; ureq accepts no more.
const MAX_HEADERS: usize = 128;

/// A connection's buffers. The first bytes that ureq consumes after a request are the head of the answer.
#[derive(Debug)]
pub struct WatchedBuffers {
    inner: ConnectionBuffers,
    awaits_head: bool,
    is_sound: bool,
    /// What is still to come of an answer's body, where its head said how long that is.
    left: Option<usize>,
}

impl WatchedBuffers {
    pub fn new() -> Self {
        Self {
            inner: ConnectionBuffers::default(),
            awaits_head: false,
            is_sound: true,
            left: None,
        }
    }

    /// So much of a request is sent.
    pub fn request_sent(&mut self, amount: usize) {
        self.awaits_head = true;
        self.inner.output_sent(amount);
    }

    /// Whether every answer so far had one clear length, and all of its bytes were consumed.
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
            let head = judge(&self.inner.input()[..amount]);
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
            self.inner.answer_ended();
        }
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        self.inner.tmp_and_output()
    }

    fn can_use_input(&self) -> bool {
        self.inner.can_use_input()
    }
}

/// What an answer's head says about its end.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    /// One length, which is given here, or chunks.
    Clear(Option<usize>),
    /// Anything else.
    Unclear,
    /// Another head follows.
    Interim,
}

fn judge(head: &[u8]) -> Head {
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
        // They never have a body, whatever their headers say.
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
    fn one_length_is_clear() {
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
            let head = judge(format!("HTTP/1.1 400 Bad\r\n{lines}\r\n").as_bytes());
            assert_eq!(matches!(head, Head::Clear(_)), clear, "{lines:?}");
            let old = judge(format!("HTTP/1.0 200 OK\r\n{lines}\r\n").as_bytes());
            assert_eq!(old, Head::Unclear);
        }
        for (status, expected) in [
            (100, Head::Interim),
            (103, Head::Interim),
            (204, Head::Unclear),
        ] {
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(judge(head.as_bytes()), expected, "{status}");
        }
        assert_eq!(judge(b"HTTP/1.1 200 OK\r\n\0\r\n\r\n"), Head::Unclear);
    }

    #[test]
    fn a_sound_answer_after_an_interim_one_does_not_make_up_for_it() {
        let mut buffers = WatchedBuffers::new();
        let mut answer = |heads: &[&str]| {
            buffers.request_sent(100);
            for head in heads {
                buffers.input_append_buf()[..head.len()].copy_from_slice(head.as_bytes());
                buffers.input_appended(head.len());
                buffers.input_consume(0);
                buffers.input_consume(head.len());
            }
            // The body is of no interest.
            buffers.input_append_buf()[..2].copy_from_slice(b"{}");
            buffers.input_appended(2);
            assert!(!buffers.is_sound(), "there is something left");
            buffers.input_consume(2);
            buffers.is_sound()
        };
        let good = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        assert!(answer(&[good]) && answer(&[good]));
        assert!(!answer(&["HTTP/1.1 103 Early Hints\r\n\r\n", good]));
        assert!(!answer(&[good]));
    }
}
