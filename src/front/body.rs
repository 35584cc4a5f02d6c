//! Reading request bodies: within the deadline, no more than announced, no more than we take.

use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use tiny_http::{Header, Request, Response, StatusCode};

use crate::error::RequestError;
use crate::front::headers;

/// Largest body taken: SageMaker's largest payload, 1 GB of asynchronous inference.
const MAX_BODY_BYTES: usize = 1 << 30;
/// Memory taken at once for an announced body; more is taken as it arrives.
const MAX_RESERVED_BYTES: usize = 64 << 20;
/// First piece of a body of unknown length.
const FIRST_PIECE_BYTES: usize = 64 << 10;
/// tiny_http reads bodies up to this size before it hands the request over.
const READ_AHEAD_BYTES: usize = 1024;

/// What the head says about the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// So many bytes; 0 when nothing is said.
    Length(usize),
    /// Chunks up to an end mark, which tiny_http takes off.
    Chunked,
    /// Chunks as they come: tiny_http leaves them on with `Connection: Upgrade`, which Java's client sends along
    /// with its first request. We upgrade to nothing, so it is a request like any other.
    RawChunked,
}

/// Reads the lengths in the head.
///
/// # Errors
/// 400 when they are wrong or contradict each other, 413 for more than we take.
pub fn announced(request: &Request) -> Result<Announced, RequestError> {
    let wrong = |text: &str| Err(broken(text));
    let chunked = headers::first(request, "Transfer-Encoding").is_some();
    let Some(length) = headers::first(request, "Content-Length") else {
        return Ok(match chunked {
            true if headers::connection_asks(request, "upgrade") => Announced::RawChunked,
            true => Announced::Chunked,
            false => Announced::Length(0),
        });
    };
    if chunked {
        return wrong("Both Content-Length and Transfer-Encoding are given.");
    }
    if headers::values(request, "Content-Length").any(|other| other != length) {
        return wrong("Content-Length is given twice, with different numbers.");
    }
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return wrong("Content-Length is not a number of bytes.");
    }
    match length.parse() {
        Ok(length) if length <= MAX_BODY_BYTES => Ok(Announced::Length(length)),
        _ => Err(too_large()),
    }
}

/// 400 for a body whose end is not known. tiny_http will take what follows for the next request; the client, or the
/// proxy it comes through, is told not to send one.
fn broken(text: impl Into<String>) -> RequestError {
    broken_off(RequestError::bad_request(text))
}

/// An answer before the end of a body.
pub fn broken_off(error: RequestError) -> RequestError {
    RequestError {
        ends_connection: true,
        ..error
    }
}

fn too_slow(text: &str) -> RequestError {
    RequestError {
        status: 408,
        ..broken(text)
    }
}

fn too_large() -> RequestError {
    RequestError {
        status: 413,
        ..broken(format!("The body is larger than {MAX_BODY_BYTES} bytes."))
    }
}

/// What happens to the body of a request that is answered without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Nothing: it is there already, or tiny_http leaves it.
    None,
    /// tiny_http reads it to its end, at the client's pace.
    Drained,
    /// The same, into a buffer too large to exist, which would abort the process.
    Untouchable,
}

/// What happens, by the length that tiny_http believes in, which is that of the first header.
pub fn rest(request: &Request) -> Rest {
    let expects = headers::first(request, "Expect").is_some();
    match request.body_length() {
        None | Some(0) => Rest::None,
        Some(length) if length > MAX_BODY_BYTES => Rest::Untouchable,
        Some(length) if length <= READ_AHEAD_BYTES && !expects => Rest::None,
        Some(_) => Rest::Drained,
    }
}

/// Whether nothing of the body is still to come from the client.
pub fn is_at_hand(request: &Request, announced: Announced) -> bool {
    matches!(announced, Announced::Length(_)) && rest(request) == Rest::None
}

/// The body's bytes. Also answers `Expect: 100-continue`.
fn reader(request: &mut Request, announced: Announced) -> Box<dyn Read + '_> {
    match announced {
        // Never more than announced: with `Connection: Upgrade` tiny_http would read on for ever.
        Announced::Length(length) => Box::new(request.as_reader().take(length as u64)),
        Announced::Chunked => Box::new(request.as_reader()),
        Announced::RawChunked => Box::new(chunked_transfer::Decoder::new(request.as_reader())),
    }
}

/// Reads the whole body.
///
/// # Errors
/// 400 when it ends early or its chunks are wrong, 408 when it comes too slowly, 413 when it is too large.
pub fn read(
    request: &mut Request,
    announced: Announced,
    deadline: Instant,
) -> Result<Vec<u8>, RequestError> {
    let (limit, mut body) = match announced {
        Announced::Length(length) => (length, vec![0; length.min(MAX_RESERVED_BYTES)]),
        // One byte more than we take tells a body that is too large.
        _ => (MAX_BODY_BYTES + 1, vec![0; FIRST_PIECE_BYTES]),
    };
    let mut reader = reader(request, announced);
    let mut filled = 0;
    while filled < limit {
        if filled == body.len() {
            body.resize((filled * 2).min(limit), 0);
        }
        match read_some(&mut reader, &mut body[filled..], deadline)? {
            0 => break,
            n => filled += n,
        }
    }
    match announced {
        Announced::Length(length) if filled < length => {
            return Err(RequestError::bad_request(format!(
                "The body ended after {filled} of {length} bytes."
            )));
        }
        Announced::Chunked | Announced::RawChunked if filled > MAX_BODY_BYTES => {
            return Err(too_large());
        }
        _ => {}
    }
    body.truncate(filled);
    Ok(body)
}

/// Reads the whole body and keeps nothing: an answer before the body's end could break the connection.
///
/// # Errors
/// As [`read`].
pub fn discard(
    request: &mut Request,
    announced: Announced,
    deadline: Instant,
) -> Result<(), RequestError> {
    let mut reader = reader(request, announced);
    let mut scratch = vec![0; FIRST_PIECE_BYTES];
    let mut left = MAX_BODY_BYTES;
    while left > 0 {
        let piece = scratch.len().min(left);
        match read_some(&mut reader, &mut scratch[..piece], deadline)? {
            0 => break,
            n => left -= n,
        }
    }
    Ok(())
}

fn read_some(
    reader: &mut impl Read,
    buffer: &mut [u8],
    deadline: Instant,
) -> Result<usize, RequestError> {
    loop {
        if Instant::now() >= deadline {
            return Err(too_slow("The body came too slowly."));
        }
        match reader.read(buffer) {
            Ok(n) => return Ok(n),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(too_slow("The body stopped coming."));
            }
            Err(e) => {
                return Err(broken(format!("The body cannot be read: {e}")));
            }
        }
    }
}

/// Refuses a request whose body must not be touched at all, with status and text of `error`.
///
/// tiny_http drains the rest of a body when the request is dropped, into a buffer of the announced length: a
/// length like 10^15 would abort the process. So such a request is never dropped. It costs its connection's
/// thread and socket for good. `upgrade` is the only way to an answer without a drop; it writes no
/// `Content-Length`, which therefore travels in another header's value.
pub fn refuse_untouched(request: Request, error: &RequestError) {
    let body = error.to_json();
    let smuggled = format!(
        "body\r\nContent-Type: application/json\r\nContent-Length: {}",
        body.len()
    );
    let header = Header::from_bytes("X-Refused", smuggled).expect("the header is ASCII");
    let response = Response::empty(StatusCode(error.status)).with_header(header);
    let mut stream = request.upgrade("none", response);
    // The client may be gone, which is fine.
    let _ = stream.write_all(&body).and_then(|()| stream.flush());
    std::mem::forget(stream);
}
