//! HTTP/1.1 as the chaos run needs it: in pieces, slowly or broken off, and strict about what comes back.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use crate::support::Response;

/// Above the server's deadline of 60 s: a request without an answer until then is lost.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(90);
/// Small, so that the server feels a slow reader.
const SLOW_BUFFER_BYTES: usize = 16 * 1024;

/// Why no whole answer came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAnswer {
    /// The server closed or reset the connection.
    Closed(String),
    /// Nothing came in time.
    Silence(String),
    /// Something came that is no answer, or more than one.
    Broken(String),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (Self::Closed(text) | Self::Silence(text) | Self::Broken(text)) = self;
        f.write_str(text)
    }
}

/// How to read an answer: at most this number of bytes at a time, with this pause after each read.
#[derive(Debug, Clone, Copy)]
pub struct Pace(pub usize, pub Duration);

/// As fast as the answer comes.
pub const AT_ONCE: Pace = Pace(64 * 1024, Duration::ZERO);

/// Bytes to send, and a pause after them.
pub type Piece = (Vec<u8>, Duration);

/// A connection. Answers are read one by one, and nothing else may come.
pub struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
    answers: usize,
}

impl Wire {
    pub fn open(port: u16) -> Result<Self, NoAnswer> {
        Self::connect(port, None, ANSWER_LIMIT)
    }

    pub fn open_slow(port: u16) -> Result<Self, NoAnswer> {
        Self::connect(port, Some(SLOW_BUFFER_BYTES), ANSWER_LIMIT)
    }

    /// `limit` holds for each read and write.
    pub fn connect(port: u16, buffer: Option<usize>, limit: Duration) -> Result<Self, NoAnswer> {
        let connected = || -> io::Result<TcpStream> {
            let flags = SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
            if let Some(bytes) = buffer {
                sockopt::set_socket_recv_buffer_size(&socket, bytes)?;
            }
            connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(limit))?;
            stream.set_write_timeout(Some(limit))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = connected().map_err(|e| NoAnswer::Broken(format!("no connection: {e}")))?;
        Ok(Self {
            stream,
            unread: Vec::new(),
            answers: 0,
        })
    }

    /// The server may answer and close before it has read everything; then the answer says why.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), NoAnswer> {
        match self.stream.write_all(bytes) {
            Err(e) if is_timeout(&e) => Err(NoAnswer::Silence(format!("nothing is read: {e}"))),
            _ => Ok(()),
        }
    }

    pub fn drip(&mut self, pieces: &[Piece]) -> Result<(), NoAnswer> {
        for (bytes, pause) in pieces {
            self.send(bytes)?;
            thread::sleep(*pause);
        }
        Ok(())
    }

    pub fn end_sending(&self) {
        // The server may have closed the connection already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next answer. An answer to HEAD has no body, whatever length it announces.
    pub fn receive(&mut self, pace: Pace, has_body: bool) -> Result<Response, NoAnswer> {
        let (mut answer, length) = loop {
            if let Some(head) = parse_head(&self.unread)? {
                break head;
            }
            self.read_more(pace.0, "the head")?;
        };
        self.unread.drain(..length);
        if answer.status == 100 {
            return Ok(answer);
        }
        let announced = answer.header("content-length").and_then(|n| n.parse().ok());
        let Some(length) = announced.filter(|_| has_body).or((!has_body).then_some(0)) else {
            return Err(NoAnswer::Broken(format!("no length: {answer:?}")));
        };
        while self.unread.len() < length {
            let place = format!("byte {} of {length}", self.unread.len());
            self.read_more(pace.0, &place)?;
            thread::sleep(pace.1);
        }
        if self.unread.len() > length {
            let more = String::from_utf8_lossy(&self.unread[length..]);
            return Err(NoAnswer::Broken(format!(
                "more than the answer: {more:.200}"
            )));
        }
        answer.body = std::mem::take(&mut self.unread);
        self.answers += 1;
        Ok(answer)
    }

    fn read_more(&mut self, size: usize, place: &str) -> Result<(), NoAnswer> {
        let mut buffer = vec![0; size];
        let place = format!("before {place}, after {} answers", self.answers);
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(NoAnswer::Closed(format!("closed {place}"))),
            Ok(count) => {
                self.unread.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(e) if is_timeout(&e) => Err(NoAnswer::Silence(format!("timed out {place}"))),
            Err(e) => Err(NoAnswer::Closed(format!("{e} {place}"))),
        }
    }

    /// Rudely: with a reset, as when a client's process or machine is gone.
    pub fn hang_up(self, rudely: bool) {
        if rudely {
            let linger = sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
            linger.expect("the socket is open");
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A head, once it is whole, and its length.
fn parse_head(bytes: &[u8]) -> Result<Option<(Response, usize)>, NoAnswer> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let broken = |why: &str| {
        let text = String::from_utf8_lossy(bytes);
        NoAnswer::Broken(format!("no HTTP answer ({why}): {text:.200}"))
    };
    let length = match head.parse(bytes).map_err(|e| broken(&e.to_string()))? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(length) => length,
    };
    if head.version != Some(1) {
        return Err(broken("another version"));
    }
    let header = |header: &httparse::Header| {
        let value = String::from_utf8_lossy(header.value).into_owned();
        (header.name.to_ascii_lowercase(), value)
    };
    let response = Response {
        status: head.code.unwrap_or_default(),
        headers: head.headers.iter().map(header).collect(),
        body: Vec::new(),
    };
    Ok(Some((response, length)))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    /// A server that sends this on its first connection, then ends sending or stays silent until the client hangs up.
    pub fn saying(bytes: &[u8], ends: bool) -> (u16, JoinHandle<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let bytes = bytes.to_vec();
        let server = thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("a client");
            peer.write_all(&bytes).expect("the client reads");
            if ends {
                peer.shutdown(Shutdown::Write).expect("it is open");
            }
            // Until the client hangs up.
            let _ = io::copy(&mut peer, &mut io::sink());
        });
        (port, server)
    }

    fn received(bytes: &str, has_body: bool) -> Result<Response, NoAnswer> {
        let (port, server) = saying(bytes.as_bytes(), true);
        let mut wire = Wire::open(port).expect("it listens");
        // What is there is read at once, the end with it.
        let mut seen = 0;
        while seen < bytes.len() {
            let mut all = vec![0; bytes.len()];
            seen = wire.stream.peek(&mut all).expect("it is sent");
        }
        let answer = wire.receive(AT_ONCE, has_body);
        drop(wire);
        server.join().expect("the server ends");
        answer
    }

    #[test]
    fn a_whole_answer() {
        let answer = received(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\n\r\nab",
            true,
        );
        let answer = answer.expect("an answer");
        assert_eq!(
            (answer.status, answer.header("x"), &answer.body[..]),
            (200, Some("y"), &b"ab"[..])
        );
    }

    #[test]
    fn less_or_more_than_an_answer_is_none() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        for closed in [
            "",
            &head[..head.len() - 2],
            head,
            &format!("{head}a"),
            "HTTP/1.1 200 OK\r\n",
        ] {
            assert!(
                matches!(received(closed, true), Err(NoAnswer::Closed(_))),
                "{closed}"
            );
        }
        for broken in [
            &format!("{head}abc"),
            "nonsense\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nab",
        ] {
            assert!(
                matches!(received(broken, true), Err(NoAnswer::Broken(_))),
                "{broken}"
            );
        }
    }

    #[test]
    fn an_answer_to_head_announces_a_body_that_does_not_come() {
        let head = "HTTP/1.1 400 Bad Request\r\nContent-Length: 20\r\n\r\n";
        assert_eq!(received(head, false).expect("an answer").body, b"");
        assert!(received(&format!("{head}x"), false).is_err());
    }
}
