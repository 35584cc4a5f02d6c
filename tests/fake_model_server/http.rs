//! Just enough HTTP/1.1: requests with a length or in chunks, connections that are kept alive, one system call per
//! response. Large bodies pass through a fixed buffer; nothing is allocated per request.

use std::io::{self, BufRead, BufReader, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;

const READ_BUFFER_BYTES: usize = 256 * 1024;
const MAX_HEAD_BYTES: u64 = 64 * 1024;

/// Reads the requests of one connection, one after another.
pub struct Reader<'s> {
    input: BufReader<&'s TcpStream>,
    head: Vec<u8>,
    body: Vec<u8>,
    body_length: usize,
    /// How many bytes of a body are kept; the rest is only counted.
    keep: usize,
    /// Bodies of other methods are not read.
    post_bodies_only: bool,
}

pub struct Request<'r> {
    pub method: &'r str,
    pub target: &'r str,
    /// The header lines, unchanged.
    header_lines: &'r str,
    /// The beginning of the body, as far as it is kept.
    pub body: &'r [u8],
    pub body_length: usize,
    pub keep_alive: bool,
}

impl Request<'_> {
    /// The whole body, if it was kept.
    pub fn whole_body(&self) -> Option<&[u8]> {
        (self.body.len() == self.body_length).then_some(self.body)
    }

    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        headers(self.header_lines)
    }
}

impl<'s> Reader<'s> {
    pub fn new(stream: &'s TcpStream, keep: usize, post_bodies_only: bool) -> Self {
        let input = BufReader::with_capacity(READ_BUFFER_BYTES, stream);
        Self {
            input,
            head: Vec::new(),
            body: Vec::new(),
            body_length: 0,
            keep,
            post_bodies_only,
        }
    }

    /// The next request, or `None` if the client closed the connection between two requests.
    pub fn next(&mut self) -> io::Result<Option<Request<'_>>> {
        if !self.read_head()? {
            return Ok(None);
        }
        let (method, _, _, header_lines) = split_head(&self.head)?;
        let has_body = method == "POST" || !self.post_bodies_only;
        let (mut length, mut chunked, mut close, mut wants_continue) = (0, false, false, false);
        for (name, value) in headers(header_lines) {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().map_err(|_| broken("content-length"))?;
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.eq_ignore_ascii_case("chunked");
            } else if name.eq_ignore_ascii_case("connection") {
                close = value.eq_ignore_ascii_case("close");
            } else if name.eq_ignore_ascii_case("expect") {
                wants_continue = value.eq_ignore_ascii_case("100-continue");
            }
        }
        if wants_continue {
            let mut stream: &TcpStream = self.input.get_ref();
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        self.body.clear();
        self.body_length = 0;
        if !has_body {
            // The bytes that follow count as the next request.
        } else if chunked {
            self.read_chunks()?
        } else {
            self.read_body(length)?
        }

        let (method, target, version, header_lines) = split_head(&self.head)?;
        let keep_alive = version == "HTTP/1.1" && !close;
        let (body, body_length) = (self.body.as_slice(), self.body_length);
        Ok(Some(Request {
            method,
            target,
            header_lines,
            body,
            body_length,
            keep_alive,
        }))
    }

    /// Reads up to and including the empty line; `false` if the connection ended before the first byte.
    fn read_head(&mut self) -> io::Result<bool> {
        self.head.clear();
        let mut input = (&mut self.input).take(MAX_HEAD_BYTES);
        while !self.head.ends_with(b"\r\n\r\n") {
            if input.read_until(b'\n', &mut self.head)? == 0 {
                return if self.head.is_empty() {
                    Ok(false)
                } else {
                    Err(broken("head"))
                };
            }
        }
        Ok(true)
    }

    fn read_body(&mut self, mut left: usize) -> io::Result<()> {
        self.body_length += left;
        while left > 0 {
            let piece = self.input.fill_buf()?;
            if piece.is_empty() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let taken = piece.len().min(left);
            let kept = self.keep.saturating_sub(self.body.len()).min(taken);
            self.body.extend_from_slice(&piece[..kept]);
            self.input.consume(taken);
            left -= taken;
        }
        Ok(())
    }

    fn read_chunks(&mut self) -> io::Result<()> {
        let mut line = String::new();
        loop {
            self.read_line(&mut line)?;
            let size = line.split(';').next().unwrap_or("").trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| broken("chunk size"))?;
            if size == 0 {
                break;
            }
            self.read_body(size)?;
            self.read_line(&mut line)?;
        }
        while !line.trim().is_empty() {
            self.read_line(&mut line)?; // trailers, up to the empty line
        }
        Ok(())
    }

    fn read_line(&mut self, line: &mut String) -> io::Result<()> {
        line.clear();
        match (&mut self.input).take(MAX_HEAD_BYTES).read_line(line)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// Writes a response that announces all of `body` and contains its first `carried` bytes.
pub fn write_response(
    mut stream: &TcpStream,
    status: u16,
    body: &[u8],
    carried: usize,
) -> io::Result<()> {
    let reason = if status == 200 { "OK" } else { "Fake" };
    let length = body.len();
    let mut head = [0; 128];
    let mut rest = head.as_mut_slice();
    write!(
        rest,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )?;
    let unused = rest.len();
    let head = &head[..head.len() - unused];
    let mut pieces = &mut [IoSlice::new(head), IoSlice::new(&body[..carried])][..];
    while !pieces.is_empty() {
        let written = stream.write_vectored(pieces)?;
        if written == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut pieces, written);
    }
    Ok(())
}

fn headers(lines: &str) -> impl Iterator<Item = (&str, &str)> {
    lines
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
}

/// Method, target, version and header lines.
fn split_head(head: &[u8]) -> io::Result<(&str, &str, &str, &str)> {
    let text = str::from_utf8(head).map_err(|_| broken("head"))?;
    let (first, header_lines) = text.split_once("\r\n").ok_or_else(|| broken("head"))?;
    let mut words = first.split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some(method), Some(target), Some(version)) => Ok((method, target, version, header_lines)),
        _ => Err(broken("request line")),
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("broken {what}"))
}
