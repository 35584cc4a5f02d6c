//! The messages between the server and a Python worker, and their form on the socket: frames.
//!
//! A frame consists of a prefix of 12 bytes (length of the head, 4 bytes; length of the body, 8 bytes; little-endian),
//! a head in JSON, and a raw body, so that a large body is copied but never re-encoded.
//!
//! Each call in progress has its own socket, a *channel*, on which calls and answers alternate: the server sends a
//! second call only after the answer to the first. When the server stops waiting, perhaps in the middle of a frame, it
//! cancels the call in the record, completes the frame, and skips the late answer before it uses the channel again.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Read, Write};

use serde::{Deserialize, Serialize};

/// A message of the server: run a function of the script.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Call<'a> {
    /// Runs `handler`, or `input_handler` of a pair of functions. The frame's body is the body of the client's request.
    Request {
        /// Number of the call: from 1, increasing on each channel.
        number: u64,
        /// The script's `context`.
        #[serde(borrow)]
        context: Context<'a>,
    },
    /// Runs `output_handler` for the latest request on this channel. The frame's body is the body of TensorFlow
    /// Serving's response.
    Response {
        /// Number of the call.
        number: u64,
        /// The script's `response`, apart from the body.
        #[serde(borrow)]
        response: Response<'a>,
    },
}

impl Call<'_> {
    /// The number of the call.
    pub fn number(&self) -> u64 {
        match self {
            Self::Request { number, .. } | Self::Response { number, .. } => *number,
        }
    }
}

/// The fields of the script's `context`, apart from its gRPC channel.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Context<'a> {
    /// The model that the request names.
    #[serde(borrow)]
    pub model_name: Option<Cow<'a, str>>,
    /// The version that the request names.
    #[serde(borrow)]
    pub model_version: Option<Cow<'a, str>>,
    /// TensorFlow Serving's method: `predict`, `classify` or `regress`.
    #[serde(borrow)]
    pub method: Option<Cow<'a, str>>,
    /// Address of the model in TensorFlow Serving's REST API, with the method.
    #[serde(borrow)]
    pub rest_uri: Cow<'a, str>,
    /// gRPC port of the same instance of TensorFlow Serving.
    pub grpc_port: u16,
    /// The header `X-Amzn-SageMaker-Custom-Attributes`.
    #[serde(borrow)]
    pub custom_attributes: Option<Cow<'a, str>>,
    /// The header `Content-Type`, or its default.
    #[serde(borrow)]
    pub request_content_type: Cow<'a, str>,
    /// The header `Accept`, or its default.
    #[serde(borrow)]
    pub accept_header: Cow<'a, str>,
    /// The header `Content-Length`, bytes.
    pub content_length: u64,
    /// The deadline of a request, seconds.
    pub timeout: u64,
    /// What the server's own conversions need to know, for scripts that use them.
    #[serde(borrow)]
    pub conversion: Option<Cow<'a, str>>,
    /// Other headers that scripts see: names in lower case, each once, and values.
    #[serde(borrow)]
    pub headers: Headers<'a>,
}

/// Names and values of headers.
pub type Headers<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// The fields of the script's `response`, apart from the body.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Response<'a> {
    /// HTTP status code.
    pub status: u16,
    /// The reason phrase of the status.
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
    /// Names and values, in TensorFlow Serving's order.
    #[serde(borrow)]
    pub headers: Headers<'a>,
}

/// A message of a worker.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer<'a> {
    /// The first message, on the first channel: the script is loaded.
    Loaded {
        /// The number of channels, from the first, on which the worker accepts calls.
        channels: usize,
        /// The functions that the script has.
        shape: Shape,
        /// Whether the worker uses gevent: the worker class is `gevent`, and gevent is installed.
        has_gevent: bool,
        /// Whether the script uses the server's own conversions.
        converts: bool,
    },
    /// The first message in place of `Loaded`: the script cannot be loaded. The body says why.
    Failed,
    /// `input_handler` returned; the body is for TensorFlow Serving.
    ForModelServer {
        /// Number of the call.
        number: u64,
        /// Content type of the body.
        #[serde(borrow)]
        content_type: Cow<'a, str>,
    },
    /// `output_handler` or `handler` returned; the body is for the client.
    ForClient {
        /// Number of the call.
        number: u64,
        /// Content type of the body.
        #[serde(borrow)]
        content_type: Cow<'a, str>,
        /// Headers that the function adds to the response.
        #[serde(borrow)]
        headers: Headers<'a>,
    },
    /// The function raised an exception; the body is its text.
    Raised {
        /// Number of the call.
        number: u64,
        /// HTTP status that the exception chooses.
        status: Option<u16>,
    },
    /// The function raised an exception that chooses the HTTP status and more than a text; the body is JSON for the
    /// client.
    Refused {
        /// Number of the call.
        number: u64,
        /// HTTP status that the exception chooses.
        status: u16,
        /// Headers that the exception adds to the response.
        #[serde(borrow)]
        headers: Headers<'a>,
    },
}

impl Answer<'_> {
    /// The number of the answered call; 0 for a worker's first message.
    pub fn number(&self) -> u64 {
        match self {
            Self::Loaded { .. } | Self::Failed => 0,
            Self::ForModelServer { number, .. }
            | Self::ForClient { number, .. }
            | Self::Raised { number, .. }
            | Self::Refused { number, .. } => *number,
        }
    }
}

/// The functions that a script has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// `handler`, which calls TensorFlow Serving itself.
    Single,
    /// `input_handler` and `output_handler`; the server calls TensorFlow Serving between the two.
    Pair,
}

const PREFIX_BYTES: usize = 12;
/// Maximum length of a head, bytes. Heads contain the headers of a request or response, which are much smaller, and for
/// scripts that convert the model's signature, which has some 100 bytes for each input.
const MAX_HEAD_BYTES: usize = 16 << 20;
/// Maximum length of a body, bytes. A larger length means a broken frame.
pub const MAX_BODY_BYTES: usize = 1 << 32;
/// Bodies up to this size are copied behind the head, so that one write sends both.
const ONE_WRITE: usize = 16 * 1024;
/// Size of the first read, so that a small frame needs one read.
const READ_BYTES: usize = 8 * 1024;
static FILLER: [u8; 64 * 1024] = [0; 64 * 1024];

/// Writes a whole frame.
///
/// # Errors
/// Those of [`Outgoing::new`] and [`Outgoing::write`].
pub fn write(to: impl Write, head: &impl Serialize, body: &[u8]) -> io::Result<()> {
    Outgoing::new(head, body)?.write(to)
}

/// A frame that is being written. When a write fails halfway, the next write continues there.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// The prefix, the head, and a small body.
    start: Vec<u8>,
    large_body: Body<'a>,
    written: usize,
}

#[derive(Debug)]
enum Body<'a> {
    Given(&'a [u8]),
    /// A body of this length, whose unwritten bytes do not matter.
    Filler(usize),
}

impl<'a> Outgoing<'a> {
    /// A frame with this head and body, of which nothing is written yet.
    ///
    /// # Errors
    /// `InvalidInput` for a head that is too long.
    pub fn new(head: &impl Serialize, body: &'a [u8]) -> io::Result<Self> {
        let (with_head, large) = match body.len() {
            0..=ONE_WRITE => (body, &[][..]),
            _ => (&[][..], body),
        };
        let mut start = Vec::with_capacity(1024 + with_head.len());
        start.resize(PREFIX_BYTES, 0);
        serde_json::to_writer(&mut start, head)?;
        let head_length = start.len() - PREFIX_BYTES;
        if head_length > MAX_HEAD_BYTES {
            let text = "the headers or the content type are too long";
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        }
        start[..4].copy_from_slice(&(head_length as u32).to_le_bytes());
        start[4..PREFIX_BYTES].copy_from_slice(&(body.len() as u64).to_le_bytes());
        start.extend_from_slice(with_head);
        Ok(Self {
            start,
            large_body: Body::Given(large),
            written: 0,
        })
    }

    /// Writes the rest of the frame.
    ///
    /// # Errors
    /// Those of the writer. The frame can be continued later.
    pub fn write(&mut self, mut to: impl Write) -> io::Result<()> {
        loop {
            let piece = self.next_piece();
            if piece.is_empty() {
                return Ok(());
            }
            match to.write(piece) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => self.written += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn next_piece(&self) -> &[u8] {
        let Some(body_written) = self.written.checked_sub(self.start.len()) else {
            return &self.start[self.written..];
        };
        match self.large_body {
            Body::Given(bytes) => &bytes[body_written..],
            Body::Filler(length) => &FILLER[..FILLER.len().min(length - body_written)],
        }
    }

    /// The same frame for a reader that ignores the body: zeros replace the unwritten bytes, so the body can be freed.
    pub fn without_body(self) -> Outgoing<'static> {
        let length = match self.large_body {
            Body::Given(bytes) => bytes.len(),
            Body::Filler(length) => length,
        };
        Outgoing {
            start: self.start,
            large_body: Body::Filler(length),
            written: self.written,
        }
    }
}

/// A frame that is being read: first its head, then on request its body. When a read fails halfway, the next read
/// continues there.
#[derive(Debug, Default)]
pub struct Incoming {
    bytes: Vec<u8>,
    filled: usize,
    /// 0 until the head is complete.
    head_end: usize,
    /// Length of the whole body, bytes.
    pub body_length: usize,
}

impl Incoming {
    /// Reads up to the end of the head, and perhaps part of the body. `None`: the other side closed the socket.
    ///
    /// # Errors
    /// Those of [`Incoming::read_head`].
    pub fn read(from: impl Read) -> io::Result<Option<Self>> {
        let mut incoming = Self::default();
        let is_there = incoming.read_head(from)?;
        Ok(is_there.then_some(incoming))
    }

    /// Reads up to the end of the head, and perhaps part of the body, unless the head is complete. `false`: the other
    /// side closed the socket.
    ///
    /// # Errors
    /// Those of the reader; `InvalidData` for bytes that are not a frame.
    pub fn read_head(&mut self, mut from: impl Read) -> io::Result<bool> {
        if self.head_end > 0 {
            return Ok(true);
        }
        if self.filled == 0 {
            self.bytes.resize(READ_BYTES, 0);
            self.filled = from.read(&mut self.bytes)?;
            if self.filled == 0 {
                return Ok(false);
            }
        }
        fill(&mut from, &mut self.bytes[..PREFIX_BYTES], &mut self.filled)?;
        let (head_length, rest) = self.bytes.split_first_chunk().expect("a prefix is there");
        let head_length = u32::from_le_bytes(*head_length) as usize;
        let body_length = rest.first_chunk().expect("a prefix is there");
        let body_length = u64::from_le_bytes(*body_length);
        if head_length > MAX_HEAD_BYTES || body_length > MAX_BODY_BYTES as u64 {
            return Err(broken("a frame announces impossible lengths"));
        }
        let head_end = PREFIX_BYTES + head_length;
        if self.bytes.len() < head_end {
            self.bytes.resize(head_end, 0);
        }
        fill(&mut from, &mut self.bytes[..head_end], &mut self.filled)?;
        let body_length = body_length as usize;
        if self.filled - head_end > body_length {
            return Err(broken("extra bytes follow a frame"));
        }
        self.bytes.truncate(self.filled);
        (self.head_end, self.body_length) = (head_end, body_length);
        Ok(true)
    }

    /// Parses the head.
    ///
    /// # Errors
    /// `InvalidData` when the head is not a `T`.
    pub fn head<'a, T: Deserialize<'a>>(&'a self) -> io::Result<T> {
        serde_json::from_slice(&self.bytes[PREFIX_BYTES..self.head_end])
            .map_err(|e| broken(format!("a frame's head cannot be read: {e}")))
    }

    /// The part of the body that was read together with the head: usually all of a small body.
    pub fn body_start(&self) -> &[u8] {
        &self.bytes[self.head_end..]
    }

    /// Reads the body and discards it.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn skip_body(&self, from: impl Read) -> io::Result<()> {
        self.skip_rest(from, &mut 0)
    }

    /// Reads the body after its first `read` bytes and discards it. Adds to `read`, so that a later call can continue.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn skip_rest(&self, mut from: impl Read, read: &mut usize) -> io::Result<()> {
        *read = (*read).max(self.body_start().len());
        let mut bytes = [0; READ_BYTES];
        while *read < self.body_length {
            let length = bytes.len().min(self.body_length - *read);
            *read += read_some(&mut from, &mut bytes[..length])?;
        }
        Ok(())
    }

    /// Reads the body into `body`, which must have the length of the whole body.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn read_body(&self, from: impl Read, body: &mut [u8]) -> io::Result<()> {
        self.read_rest(from, body, &mut 0)
    }

    /// Reads the body after its first `read` bytes into `body`. Adds to `read`, so that a later call can continue.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn read_rest(&self, from: impl Read, body: &mut [u8], read: &mut usize) -> io::Result<()> {
        let start = self.body_start();
        if *read < start.len() {
            body[..start.len()].copy_from_slice(start);
            *read = start.len();
        }
        fill(from, body, read)
    }
}

/// Reads until `bytes` is full.
fn fill(mut from: impl Read, bytes: &mut [u8], filled: &mut usize) -> io::Result<()> {
    while *filled < bytes.len() {
        *filled += read_some(&mut from, &mut bytes[*filled..])?;
    }
    Ok(())
}

fn read_some(mut from: impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(bytes) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

fn broken(text: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(head: &impl Serialize, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, head, body).unwrap();
        bytes
    }

    /// A reader that returns at most this many bytes at a time.
    struct Dripping<'a>(&'a [u8], usize);

    impl Read for Dripping<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let limit = self.1.min(buffer.len());
            self.0.read(&mut buffer[..limit])
        }
    }

    /// A pipe that moves at most `step` bytes at a time and fails every second time.
    struct Stuttering {
        bytes: Vec<u8>,
        step: usize,
        fails: bool,
    }

    impl Stuttering {
        fn turn(&mut self) -> io::Result<()> {
            self.fails = !self.fails;
            match self.fails {
                true => Err(ErrorKind::TimedOut.into()),
                false => Ok(()),
            }
        }
    }

    impl Read for Stuttering {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.turn()?;
            let length = self.step.min(buffer.len()).min(self.bytes.len());
            buffer[..length].copy_from_slice(&self.bytes[..length]);
            self.bytes.drain(..length);
            Ok(length)
        }
    }

    impl Write for Stuttering {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.turn()?;
            let length = self.step.min(bytes.len());
            self.bytes.extend_from_slice(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn until_done<T>(mut attempt: impl FnMut() -> io::Result<T>) -> T {
        loop {
            match attempt() {
                Ok(done) => return done,
                Err(e) => assert_eq!(e.kind(), ErrorKind::TimedOut),
            }
        }
    }

    proptest! {
        #[test]
        fn reads_the_frame_that_was_written(text in ".{0,200}", body: Vec<u8>, drip in 1usize..40) {
            let head = Answer::ForClient { number: 7, content_type: text.into(), headers: Vec::new() };
            let bytes = frame(&head, &body);
            let mut from = Dripping(&bytes, drip);
            let incoming = Incoming::read(&mut from).unwrap().unwrap();
            prop_assert_eq!(incoming.head::<Answer>().unwrap(), head);
            let mut read = vec![0; incoming.body_length];
            incoming.read_body(&mut from, &mut read).unwrap();
            prop_assert_eq!(read, body);
        }

        #[test]
        fn continues_where_a_read_or_write_failed(
            text in ".{0,200}", length in 0usize..40_000, step in 1usize..30_000, skips: bool,
        ) {
            let head = Answer::ForClient { number: 7, content_type: text.into(), headers: Vec::new() };
            let body = Vec::from_iter((0..length).map(|n| n as u8));
            let mut pipe = Stuttering { bytes: Vec::new(), step, fails: false };
            let mut outgoing = Outgoing::new(&head, &body).unwrap();
            until_done(|| outgoing.write(&mut pipe));
            prop_assert_eq!(&pipe.bytes, &frame(&head, &body));
            let (mut incoming, mut read) = (Incoming::default(), 0);
            prop_assert!(until_done(|| incoming.read_head(&mut pipe)));
            prop_assert_eq!(incoming.head::<Answer>().unwrap(), head);
            let mut whole = vec![0; incoming.body_length];
            // A reader may decide halfway to skip the rest.
            let read_part = incoming.read_rest(&mut pipe, &mut whole, &mut read);
            if skips || read_part.is_ok() {
                until_done(|| incoming.skip_rest(&mut pipe, &mut read));
            } else {
                until_done(|| incoming.read_rest(&mut pipe, &mut whole, &mut read));
                prop_assert_eq!(whole, body);
            }
            prop_assert_eq!(read, length);
            prop_assert!(pipe.bytes.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_cause_a_panic(bytes: Vec<u8>) {
            if let Ok(Some(incoming)) = Incoming::read(&bytes[..]) {
                let _ = incoming.head::<Answer>();
                let _ = incoming.head::<Call>();
            }
        }
    }

    #[test]
    fn frame_without_its_body_keeps_its_length() {
        let body = vec![b'b'; 300_000];
        let whole = frame(&Answer::Failed, &body);
        for written in [0, 5, 100, 100_000, whole.len()] {
            let mut outgoing = Outgoing::new(&Answer::Failed, &body).unwrap();
            let mut start = vec![0; written];
            // A slice takes bytes until it is full, and then fails.
            let is_whole = outgoing.write(&mut start[..]).is_ok();
            assert_eq!(is_whole, written == whole.len());
            let mut rest = Vec::new();
            outgoing.without_body().write(&mut rest).unwrap();
            let all = [start, rest].concat();
            let end = written.max(whole.len() - body.len());
            assert!(all[..end] == whole[..end]);
            assert!(all[end..] == vec![0; whole.len() - end]);
        }
    }

    #[test]
    fn reads_large_heads_and_bodies_in_pieces() {
        let head = Answer::ForClient {
            number: 1,
            content_type: "x".repeat(100_000).into(),
            headers: Vec::new(),
        };
        let body = vec![b'b'; 1_000_000];
        let bytes = frame(&head, &body);
        let mut from = &bytes[..];
        let incoming = Incoming::read(&mut from).unwrap().unwrap();
        assert_eq!(incoming.head::<Answer>().unwrap(), head);
        let mut read = vec![0; incoming.body_length];
        incoming.read_body(&mut from, &mut read).unwrap();
        assert!(read == body);
    }

    #[test]
    fn end_between_frames_is_none_and_within_a_frame_an_error() {
        assert!(Incoming::read(&b""[..]).unwrap().is_none());
        let bytes = frame(&Answer::Failed, b"why");
        for end in 1..bytes.len() - 3 {
            let error = Incoming::read(&bytes[..end]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{end}");
        }
    }

    #[test]
    fn refuses_to_write_a_head_that_is_too_long() {
        let content_type = "x".repeat(MAX_HEAD_BYTES).into();
        let head = Answer::ForClient {
            number: 1,
            content_type,
            headers: Vec::new(),
        };
        let mut bytes = Vec::new();
        let error = write(&mut bytes, &head, b"").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(bytes.is_empty());
    }

    #[test]
    fn refuses_impossible_lengths_before_allocating() {
        for prefix in [[0xff; PREFIX_BYTES], {
            let mut prefix = [0; PREFIX_BYTES];
            prefix[11] = 1;
            prefix
        }] {
            let error = Incoming::read(&prefix[..]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
        }
    }

    #[test]
    fn reads_the_context_of_a_call() {
        let call = Call::Request {
            number: 3,
            context: Context {
                model_name: None,
                model_version: Some("12".into()),
                method: None,
                rest_uri: "http://localhost:8501/v1/models/m:predict".into(),
                grpc_port: 9000,
                custom_attributes: Some("a=\"\u{e9}\"\\".into()),
                request_content_type: "text/csv".into(),
                accept_header: "*/*".into(),
                content_length: 5,
                timeout: 60,
                conversion: None,
                headers: vec![("traceparent".into(), "00-1\t\u{e9}".into())],
            },
        };
        let bytes = frame(&call, b"1,2,3");
        let incoming = Incoming::read(&bytes[..]).unwrap().unwrap();
        assert_eq!(incoming.head::<Call>().unwrap(), call);
        assert_eq!(incoming.body_start(), b"1,2,3");
    }
}
