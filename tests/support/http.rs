//! An HTTP client on a bare socket: it sends exactly the given bytes, well-formed or not, and returns exactly what came
//! back.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};

use crate::support::LIMIT;

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The text under the key `error` of a JSON body.
    #[track_caller]
    pub fn error(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/json"),
            "{self:?}"
        );
        let json: serde_json::Value =
            serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.text()));
        let error = json["error"].as_str();
        error
            .unwrap_or_else(|| panic!("no error: {json}"))
            .to_owned()
    }
}

/// A request with a `Host`, these headers, and a `Content-Length` when there is a body.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !body.is_empty() || method == "POST" {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// A connection to a server on loopback.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When no process listens on the port.
    pub fn try_open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Connects.
    ///
    /// # Panics
    /// When no process listens on the port.
    #[track_caller]
    pub fn open(port: u16) -> Self {
        Self::try_open(port).unwrap_or_else(|e| panic!("cannot connect to port {port}: {e}"))
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the server closed the connection.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// When the server closed the connection.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes)
            .unwrap_or_else(|e| panic!("cannot send: {e}"));
    }

    /// Closes the sending side; responses can still be read.
    pub fn half_close(&mut self) {
        // The server may have closed the connection already.
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
    }

    /// The next response, or `None` if the connection was closed instead.
    ///
    /// # Errors
    /// When the response is malformed or does not arrive.
    pub fn try_response(&mut self) -> io::Result<Option<Response>> {
        match self.try_head() {
            Ok(Some(mut response)) => {
                let length = response.header("content-length").unwrap_or("0");
                let length = length.parse().map_err(io::Error::other)?;
                if response.status >= 200 {
                    response.body = vec![0; length];
                    self.stream.read_exact(&mut response.body)?;
                }
                Ok(Some(response))
            }
            // The server closed before it had read everything. For a client, this is the same as a closed connection.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Ok(None),
            other => other,
        }
    }

    /// The next response.
    ///
    /// # Panics
    /// When no response arrives.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        match self.try_response() {
            Ok(Some(response)) => response,
            Ok(None) => panic!("the connection was closed without a response"),
            Err(e) => panic!("no response: {e}"),
        }
    }

    /// The next response without a body, as for a HEAD request.
    #[track_caller]
    pub fn head(&mut self) -> Response {
        self.try_head()
            .expect("a response")
            .expect("not a closed connection")
    }

    /// Whether the server has closed the connection, with nothing more to read.
    ///
    /// # Panics
    /// When the server neither sends nor closes.
    #[track_caller]
    pub fn is_at_end(&mut self) -> bool {
        match self.stream.fill_buf() {
            Ok(bytes) => bytes.is_empty(),
            Err(e) if e.kind() == ErrorKind::ConnectionReset => true,
            Err(e) => panic!("the server neither sends nor closes: {e}"),
        }
    }

    /// Whether something can be read now, without waiting.
    pub fn is_readable(&mut self) -> bool {
        if !self.stream.buffer().is_empty() {
            return true;
        }
        let stream = self.stream.get_ref();
        stream.set_nonblocking(true).expect("sockets can do that");
        let readable = stream.peek(&mut [0]).is_ok();
        stream.set_nonblocking(false).expect("sockets can do that");
        readable
    }

    fn try_head(&mut self) -> io::Result<Option<Response>> {
        let Some(first) = self.line()? else {
            return Ok(None);
        };
        let malformed = || io::Error::other(format!("malformed response: {first:?}"));
        let status = first.strip_prefix("HTTP/1.").ok_or_else(malformed)?;
        let status = status.split(' ').nth(1).and_then(|s| s.parse().ok());
        let mut headers = Vec::new();
        loop {
            let line = self.line()?.ok_or_else(malformed)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(malformed)?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Some(Response {
            status: status.ok_or_else(malformed)?,
            headers,
            body: Vec::new(),
        }))
    }

    /// A line without its line end, or `None` if the connection is closed.
    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        let line = String::from_utf8(line).map_err(io::Error::other)?;
        Ok(Some(line.trim_end().to_owned()))
    }
}
