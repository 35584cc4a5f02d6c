//! Request bodies as they arrive: reads the announced length, finds the end, decodes chunks and stores the bytes.

use std::fmt;

use crate::budget::{Budget, Buffer, NoRoom};
use crate::error::RequestError;
use crate::http::head::Head;

/// Largest body accepted. SageMaker's largest payload is 1 GB, in asynchronous inference.
pub const MAX_BODY_BYTES: usize = 1 << 30;
/// Longest chunk-size line, including its extensions, which are ignored.
const MAX_CHUNK_LINE_BYTES: usize = 256;
/// Largest size of all trailers together, which are ignored.
const MAX_TRAILER_BYTES: usize = 8 << 10;

/// The length of the body as the head announces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// A number of bytes; 0 if the head does not mention a body.
    Length(usize),
    /// Chunked: the body marks its own end.
    Chunked,
}

/// Reads the body length from a head.
///
/// # Errors
/// 400 for invalid or contradictory lengths, 501 for an unknown transfer encoding, 413 for more than `limit` bytes.
pub fn length(head: &Head, limit: usize) -> Result<BodyLength, RequestError> {
    let wrong = |text: &str| Err(RequestError::ending(400, text));
    let mut encodings = head.values("Transfer-Encoding").peekable();
    let Some(length) = head.first("Content-Length") else {
        return match (encodings.next(), encodings.next()) {
            (None, _) => Ok(BodyLength::Length(0)),
            // Proxies that ignore the header in HTTP/1.0 would see no body here (RFC 9112, 6.1).
            (Some(_), _) if head.is_http_1_0 => {
                wrong("An HTTP/1.0 request must not have a Transfer-Encoding.")
            }
            (Some(name), None) if name.eq_ignore_ascii_case("chunked") => Ok(BodyLength::Chunked),
            _ => Err(RequestError::ending(
                501,
                "The only supported Transfer-Encoding is chunked.",
            )),
        };
    };
    if encodings.peek().is_some() {
        return wrong("The request has both Content-Length and Transfer-Encoding.");
    }
    if head.values("Content-Length").any(|other| other != length) {
        return wrong("The request has several different Content-Length headers.");
    }
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return wrong("Content-Length is not a number of bytes.");
    }
    match length.parse() {
        Ok(length) if length <= limit => Ok(BodyLength::Length(length)),
        _ => Err(too_large(limit)),
    }
}

/// The largest body in bytes, unless the route has a smaller limit.
pub fn limit(budget: &Budget) -> usize {
    MAX_BODY_BYTES.min(budget.limit())
}

fn too_large(limit: usize) -> RequestError {
    RequestError::ending(413, format!("The body is larger than {limit} bytes."))
}

/// Decodes a body while it arrives.
#[derive(Debug)]
pub struct BodyDecoder {
    framing: Framing,
    /// The decoded bytes, if they are kept.
    bytes: Buffer,
    /// Number of bytes decoded so far.
    received: usize,
    is_kept: bool,
    /// Largest size of the body.
    limit: usize,
}

/// What the next bytes are.
#[derive(Debug, PartialEq, Eq)]
enum Framing {
    /// The rest of a body with a known length.
    Length { left: usize },
    /// The line with a chunk size.
    ChunkSize,
    /// The rest of a chunk.
    ChunkData { left: u64 },
    /// The CRLF after a chunk.
    ChunkEnd,
    /// Trailers, up to an empty line. `bytes` counts those that have been read.
    Trailers { bytes: usize },
    /// Nothing: the body is complete.
    End,
}

impl fmt::Display for BodyDecoder {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.framing {
            Framing::Length { left } => {
                write!(f, "{} of {} bytes", self.received, self.received + left)
            }
            _ => write!(f, "byte {}, before the end of its chunks", self.received),
        }
    }
}

impl BodyDecoder {
    /// A decoder for a body of at most `limit` bytes. It stores the body in the empty buffer `bytes` if `is_kept`, and
    /// discards it otherwise.
    pub fn new(length: BodyLength, is_kept: bool, limit: usize, bytes: Buffer) -> Self {
        Self {
            framing: match length {
                BodyLength::Length(0) => Framing::End,
                BodyLength::Length(left) => Framing::Length { left },
                BodyLength::Chunked => Framing::ChunkSize,
            },
            bytes,
            received: 0,
            is_kept,
            limit,
        }
    }

    /// How many bytes of the body have arrived.
    pub fn received(&self) -> usize {
        self.received
    }

    /// Whether the whole body has arrived.
    pub fn is_whole(&self) -> bool {
        self.framing == Framing::End
    }

    /// The stored bytes.
    pub fn into_bytes(self) -> Buffer {
        self.bytes
    }

    /// Decodes the bytes at the start of `input` that belong to the body. Returns how many bytes of `input` it used.
    ///
    /// # Errors
    /// 400 for malformed chunks, 413 for a body that is too large, 503 when memory is short.
    pub fn take(&mut self, input: &[u8]) -> Result<usize, RequestError> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            let taken = match self.framing {
                Framing::End => return Ok(at),
                Framing::Length { left } => {
                    let piece = &rest[..rest.len().min(left)];
                    self.keep(piece)?;
                    self.framing = match left - piece.len() {
                        0 => Framing::End,
                        left => Framing::Length { left },
                    };
                    piece.len()
                }
                Framing::ChunkSize => match chunk_size(rest)? {
                    None => 0,
                    Some((line, 0)) => {
                        self.framing = Framing::Trailers { bytes: 0 };
                        line
                    }
                    Some((line, left)) => {
                        self.framing = Framing::ChunkData { left };
                        line
                    }
                },
                Framing::ChunkData { left } => {
                    let piece = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.keep(&rest[..piece])?;
                    self.framing = match left - piece as u64 {
                        0 => Framing::ChunkEnd,
                        left => Framing::ChunkData { left },
                    };
                    piece
                }
                Framing::ChunkEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        self.framing = Framing::ChunkSize;
                        2
                    }
                    [] | [b'\r'] => 0,
                    _ => return Err(malformed_chunks("a chunk is longer than its size")),
                },
                Framing::Trailers { bytes } => match trailer(rest)? {
                    Some(2) => {
                        self.framing = Framing::End;
                        2
                    }
                    Some(line) if bytes + line <= MAX_TRAILER_BYTES => {
                        self.framing = Framing::Trailers {
                            bytes: bytes + line,
                        };
                        line
                    }
                    None if rest.len() <= MAX_TRAILER_BYTES => 0,
                    _ => return Err(malformed_chunks("the trailers are too long")),
                },
            };
            if taken == 0 {
                return Ok(at);
            }
            at += taken;
        }
    }

    /// Where to receive the next bytes without a copy. `None` if they have to be decoded or discarded. The bytes
    /// received may extend past the body: call [`BodyDecoder::received_directly`] afterwards.
    ///
    /// # Errors
    /// 503 when memory is short.
    pub fn direct(&mut self) -> Result<Option<&mut Vec<u8>>, RequestError> {
        match self.framing {
            Framing::Length { .. } if self.is_kept => {
                self.make_room(1)?;
                Ok(Some(self.bytes.bytes_mut()))
            }
            _ => Ok(None),
        }
    }

    /// Counts the bytes added to the vector from [`BodyDecoder::direct`]. Returns those after the end of the body.
    pub fn received_directly(&mut self) -> Vec<u8> {
        let Framing::Length { left } = self.framing else {
            return Vec::new();
        };
        let length = self.received + left;
        let end = self.bytes.len().min(length);
        let more = self.bytes.bytes_mut().split_off(end);
        self.received = self.bytes.len();
        self.framing = match length - self.received {
            0 => Framing::End,
            left => Framing::Length { left },
        };
        more
    }

    fn keep(&mut self, piece: &[u8]) -> Result<(), RequestError> {
        self.received += piece.len();
        if self.received > self.limit {
            return Err(too_large(self.limit));
        }
        if self.is_kept && !piece.is_empty() {
            self.make_room(piece.len())?;
            self.bytes.bytes_mut().extend_from_slice(piece);
        }
        Ok(())
    }

    /// Makes room for `more` bytes and for some that may follow. Memory is reserved as bytes arrive, so announcing a
    /// large body does not reserve much.
    fn make_room(&mut self, more: usize) -> Result<(), RequestError> {
        let whole = match self.framing {
            Framing::Length { left } => self.bytes.len() + left,
            _ => self.limit, // chunked bodies announce no length
        };
        self.bytes.reserve(more, whole).map_err(no_room)
    }
}

/// The error when memory runs out in the middle of a head or body. It ends the connection.
pub fn no_room(why: NoRoom) -> RequestError {
    RequestError {
        ends_connection: true,
        ..why.into()
    }
}

fn malformed_chunks(why: &str) -> RequestError {
    RequestError::ending(400, format!("The chunked body is malformed: {why}."))
}

/// Parses a chunk-size line: the length of the line and the size of the chunk. `None` while the line is incomplete.
fn chunk_size(input: &[u8]) -> Result<Option<(usize, u64)>, RequestError> {
    let Some(&first) = input.first() else {
        return Ok(None);
    };
    let wrong = || malformed_chunks("a chunk size is invalid");
    if !first.is_ascii_hexdigit() {
        return Err(wrong()); // httparse reads an empty size as 0
    }
    let line = &input[..input.len().min(MAX_CHUNK_LINE_BYTES)];
    match httparse::parse_chunk_size(line) {
        Err(_) => Err(wrong()),
        Ok(httparse::Status::Partial) if line.len() < MAX_CHUNK_LINE_BYTES => {
            check_line(line)?;
            Ok(None)
        }
        Ok(httparse::Status::Partial) => Err(wrong()),
        Ok(httparse::Status::Complete((length, size))) => {
            let line = &line[..length - 2];
            check_line(line)?;
            // httparse accepts white space after the size; other parsers may not.
            let digits = line.split(|&b| b == b';').next().unwrap_or_default();
            match digits.iter().all(u8::is_ascii_hexdigit) {
                true => Ok(Some((length, size))),
                false => Err(wrong()),
            }
        }
    }
}

/// Rejects control characters in chunk extensions, because another parser may see a line end in them. The last byte may
/// be a carriage return whose line feed has not arrived.
fn check_line(line: &[u8]) -> Result<(), RequestError> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.iter().any(|&b| b.is_ascii_control() && b != b'\t') {
        false => Ok(()),
        true => Err(malformed_chunks("a control character follows a chunk size")),
    }
}

/// The length of the first line: a trailer, or the empty line after the last trailer. `None` while the line is
/// incomplete.
fn trailer(input: &[u8]) -> Result<Option<usize>, RequestError> {
    let Some(end) = memchr::memchr(b'\n', input) else {
        return Ok(None);
    };
    let line = &input[..=end];
    if line != b"\r\n" {
        // A trailer has the form of a header, so parse it as a header section of its own.
        let section = [line, b"\r\n"].concat();
        let mut headers = [httparse::EMPTY_HEADER];
        let parsed = httparse::parse_headers(&section, &mut headers);
        if !line.ends_with(b"\r\n") || !parsed.is_ok_and(|status| status.is_complete()) {
            return Err(malformed_chunks("a trailer is malformed"));
        }
    }
    Ok(Some(line.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(headers: &str) -> Head {
        Head::parse(format!("POST / HTTP/1.1\r\nHost: x\r\n{headers}\r\n").into()).unwrap()
    }

    fn decoder(length: BodyLength, limit: usize) -> BodyDecoder {
        BodyDecoder::new(length, true, limit, Budget::new(limit).arriving(0))
    }

    #[test]
    fn reads_valid_lengths_and_refuses_invalid_ones() {
        for (headers, expected) in [
            ("", Ok(BodyLength::Length(0))),
            ("Content-Length: 1000\r\n", Ok(BodyLength::Length(1000))),
            (
                "Content-Length: 5\r\nContent-Length: 5\r\n",
                Ok(BodyLength::Length(5)),
            ),
            ("Transfer-Encoding: Chunked\r\n", Ok(BodyLength::Chunked)),
            ("Content-Length: 1001\r\n", Err(413)),
            ("Content-Length: 99999999999999999999999\r\n", Err(413)),
            ("Content-Length: -1\r\n", Err(400)),
            ("Content-Length: +1\r\n", Err(400)),
            ("Content-Length: 1, 1\r\n", Err(400)),
            ("Content-Length:\r\n", Err(400)),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", Err(400)),
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                Err(400),
            ),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(501)),
            ("Transfer-Encoding: identity\r\n", Err(501)),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Err(501),
            ),
        ] {
            let found = length(&head(headers), 1000).map_err(|e| e.status);
            assert_eq!(found, expected, "{headers:?}");
        }
        let old = Head::parse(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec());
        let error = length(&old.unwrap(), 1000).unwrap_err();
        assert_eq!(error.status, 400);
    }

    /// Feeds `input` to the decoder piece by piece, as a connection does. Returns what does not belong to the body.
    fn feed(body: &mut BodyDecoder, input: &[u8], piece: usize) -> Result<Vec<u8>, RequestError> {
        let mut buffer = Vec::new();
        for piece in input.chunks(piece) {
            buffer.extend_from_slice(piece);
            let taken = body.take(&buffer)?;
            buffer.drain(..taken);
        }
        Ok(buffer)
    }

    #[test]
    fn decodes_chunks_split_at_any_point() {
        let input = b"3\r\nabc\r\n0A;x=\"y\"\r\n0123456789\r\n00\r\nTrailer: x\r\nB: c\r\n\r\nnext";
        for piece in 1..=input.len() {
            let mut body = decoder(BodyLength::Chunked, 1 << 20);
            assert_eq!(feed(&mut body, input, piece).unwrap(), b"next");
            assert!(body.is_whole());
            assert_eq!(&*body.into_bytes(), b"abc0123456789");
        }
    }

    #[test]
    fn returns_400_for_malformed_chunks() {
        let long_line = format!("1;{}\r\n", "x".repeat(MAX_CHUNK_LINE_BYTES));
        let long_trailers = format!("0\r\n{}", "A: b\r\n".repeat(MAX_TRAILER_BYTES / 6 + 1));
        let endless_trailer = format!("0\r\n{}", "x".repeat(MAX_TRAILER_BYTES + 1));
        for input in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "0x1\r\n",
            "1\nx",
            "1\rx",
            "1;a\nb\r\nx",
            "1;\0\r\nx",
            "0\r\nA: \x01\r\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\nA: b\r\n c\r\n\r\n",
            "0\r\nA\r\n\r\n",
            "0\r\nA: b\rc\r\n\r\n",
            "3\r\nabcd\r\n",
            "3\r\nabc\n",
            "11111111111111111\r\n",
            "1 \r\nx",
            "1\t;a\r\nx",
            "0\r\n\n",
            "0\r\nA: b\n\r\n",
            &long_line,
            &long_trailers,
            &endless_trailer,
        ] {
            for piece in [1, 7, 100_000] {
                let mut body = decoder(BodyLength::Chunked, 1 << 20);
                let error = feed(&mut body, input.as_bytes(), piece).unwrap_err();
                assert_eq!(error.status, 400, "{input:?}");
                assert!(error.ends_connection);
            }
        }
    }

    #[test]
    fn returns_413_beyond_the_limit_and_503_when_memory_is_used_up() {
        let mut body = decoder(BodyLength::Chunked, 100);
        assert_eq!(body.take(b"65\r\n").unwrap(), 4);
        assert_eq!(body.take(&[0; 101]).unwrap_err().status, 413);

        let budget = Budget::new(100_000);
        let mut other = budget.arriving(0);
        other.reserve_exact(90_000).unwrap();
        let new = |is_kept| {
            BodyDecoder::new(
                BodyLength::Length(20_000),
                is_kept,
                100_000,
                budget.arriving(0),
            )
        };
        let mut body = new(true);
        assert_eq!(body.take(&[0; 15_000]).unwrap_err().status, 503);
        let mut body = new(false);
        assert_eq!(body.take(&[0; 30_000]).unwrap(), 20_000);
        assert!(body.is_whole() && body.into_bytes().is_empty());
        drop(other);
        assert_eq!(budget.arriving(0).check_room(100_000), Ok(()));
    }

    #[test]
    fn reserves_memory_as_bytes_arrive() {
        let budget = Budget::new(1 << 30);
        let mut body = BodyDecoder::new(
            BodyLength::Length(1 << 29),
            true,
            1 << 30,
            budget.arriving(0),
        );
        for _ in 0..100 {
            body.take(&[0; 1000]).unwrap();
        }
        let most = (1 << 30) - 4 * 100_000;
        assert_eq!(budget.arriving(0).check_room(most), Ok(()));
        assert_eq!(body.to_string(), "100000 of 536870912 bytes");
    }

    #[test]
    fn direct_receiving_stops_at_the_end_of_the_body() {
        let mut body = decoder(BodyLength::Length(10), 1000);
        assert_eq!(body.take(b"0123").unwrap(), 4);
        for piece in [&b"45"[..], b"6789more"] {
            body.direct().unwrap().unwrap().extend_from_slice(piece);
            let more = body.received_directly();
            assert_eq!(more, if body.is_whole() { &b"more"[..] } else { b"" });
        }
        assert!(body.direct().unwrap().is_none());
        assert_eq!(&*body.into_bytes(), b"0123456789");
    }

    proptest! {
        #[test]
        fn decoding_chunks_restores_the_body(chunks: Vec<Vec<u8>>, piece in 1usize..50) {
            let mut input = Vec::new();
            let chunks: Vec<_> = chunks.into_iter().filter(|chunk| !chunk.is_empty()).collect();
            for chunk in &chunks {
                input.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                input.extend_from_slice(chunk);
                input.extend_from_slice(b"\r\n");
            }
            input.extend_from_slice(b"0\r\n\r\n");
            let mut body = decoder(BodyLength::Chunked, 1 << 20);
            prop_assert!(feed(&mut body, &input, piece).unwrap().is_empty());
            prop_assert!(body.is_whole());
            prop_assert_eq!(body.into_bytes().to_vec(), chunks.concat());
        }

        #[test]
        fn arbitrary_bytes_never_panic(input: Vec<u8>, piece in 1usize..50) {
            let mut body = decoder(BodyLength::Chunked, 100);
            let _ = feed(&mut body, &input, piece);
        }
    }
}
