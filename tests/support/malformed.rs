//! Generates requests that are certainly malformed, always the same ones from the same seed: well-formed requests with
//! a mistake, truncated and oversized requests, other protocols and garbage.
//!
//! A request is malformed if it breaks the grammar of HTTP/1.1 or leaves open where it ends. Where the standard lets
//! recipients be lenient (a bare LF as a line end, folded lines), the server must not be: requests are smuggled where
//! two recipients read a request differently.

mod kinds;

use kinds::{KINDS, Shows};

/// A text in the body of every generated request.
pub const MARK: &str = "malformed";

/// A malformed request.
#[derive(Debug, Clone)]
pub struct Malformed {
    /// The kind of mistake.
    pub kind: &'static str,
    /// Sent before the request: nothing, or a request that gets 200.
    pub before: Vec<u8>,
    pub bytes: Vec<u8>,
    /// Sent after the request: nothing, or a well-formed request that must not get a response.
    pub after: Vec<u8>,
    /// Whether the client closes its sending side. If not, the server must close the connection by itself.
    pub half_close: bool,
    /// Where the bytes are cut into pieces.
    pub cuts: Vec<usize>,
}

impl Malformed {
    /// All bytes that are sent.
    pub fn whole(&self) -> Vec<u8> {
        [&self.before[..], &self.bytes, &self.after].concat()
    }
}

/// All kinds of mistakes.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(kind, _)| *kind)
}

/// An endless source of malformed requests.
pub struct Generator {
    state: u64,
    made: usize,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed,
            made: 0,
        }
    }

    /// The next malformed request, of all kinds in turn.
    pub fn make(&mut self) -> Malformed {
        let (kind, make) = KINDS[self.made % KINDS.len()];
        self.made += 1;
        let (bytes, shows) = make(self);
        let ping = Request::new("GET", "/ping").bytes();
        let before = if self.one_in(4) { ping } else { Vec::new() };
        let after = match shows {
            Shows::InHead if self.one_in(2) => self.request_with_length().bytes(),
            _ => Vec::new(),
        };
        let whole = before.len() + bytes.len() + after.len();
        let cuts = if self.one_in(4) { self.below(5) } else { 0 };
        let mut cuts: Vec<_> = (0..cuts).map(|_| self.below(whole)).collect();
        cuts.sort_unstable();
        Malformed {
            kind,
            before,
            bytes,
            after,
            half_close: shows == Shows::AtEnd || self.one_in(2),
            cuts,
        }
    }

    /// SplitMix by Steele, Lea and Flood: small, and random enough for choosing.
    fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit as u64) as usize
    }

    fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }

    fn choose<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// One of these texts, which `|` separates.
    fn pick(&mut self, texts: &'static str) -> &'static str {
        let count = texts.split('|').count();
        let index = self.below(count);
        texts.split('|').nth(index).expect("the index is in range")
    }

    /// A well-formed request.
    fn request(&mut self) -> Request {
        let all = well_formed();
        let index = self.below(all.len());
        all.into_iter().nth(index).expect("the index is in range")
    }

    fn request_with_length(&mut self) -> Request {
        let target = self.choose(&["/invocations", PREDICT]);
        Request::new("POST", target).with_length()
    }

    /// Puts `byte` somewhere into `text`.
    fn insert(&mut self, text: &mut Vec<u8>, byte: u8) {
        let at = self.below(text.len() + 1);
        text.insert(at, byte);
    }

    /// A byte that is allowed neither in a method nor in a header name. Never a line end, which may stand before a
    /// request, and never a colon, which ends a name.
    fn no_token(&mut self) -> u8 {
        loop {
            let byte = self.number() as u8;
            let is_token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if !is_token && !b"\r\n:".contains(&byte) {
                return byte;
            }
        }
    }

    /// A control character that is not allowed in a header value.
    fn control(&mut self) -> u8 {
        loop {
            let byte = self.choose(&[&0x7f, &(self.state as u8 & 0x1f)]).to_owned();
            if !b"\t\r\n".contains(&byte) {
                return byte;
            }
            self.number();
        }
    }
}

const PREDICT: &str = "/tfs/v1/models/half_plus_three:predict";

/// The parts of a request.
#[derive(Debug, Clone)]
pub struct Request {
    method: Vec<u8>,
    target: Vec<u8>,
    version: Vec<u8>,
    /// Lines without their line ends.
    headers: Vec<Vec<u8>>,
    body: Vec<u8>,
}

/// The well-formed requests that malformed ones are made from.
pub fn well_formed() -> Vec<Request> {
    vec![
        Request::new("GET", "/ping"),
        Request::new("GET", "/execution-parameters"),
        Request::new("POST", "/invocations").with_length(),
        Request::new("POST", "/invocations").with_chunks(),
        Request::new("POST", PREDICT).with_length(),
    ]
}

impl Request {
    fn new(method: &str, target: &str) -> Self {
        let headers = ["Host: localhost", "User-Agent: a/1.0", "Accept: */*"];
        Self {
            method: method.into(),
            target: target.into(),
            version: b"HTTP/1.1".to_vec(),
            headers: headers.iter().map(|&line| line.into()).collect(),
            body: Vec::new(),
        }
    }

    fn with_length(mut self) -> Self {
        self.body = format!("{{\"instances\": [\"{MARK}\"]}}").into();
        let line = format!("Content-Length: {}", self.body.len());
        self.with_header(line)
    }

    fn with_chunks(mut self) -> Self {
        let text = format!("{{\"instances\": [\"{MARK}\"]}}");
        let (first, second) = text.split_at(10);
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
        self.body = format!("{}{}0\r\n\r\n", chunk(first), chunk(second)).into();
        self.with_header("Transfer-Encoding: chunked")
    }

    fn with_header(mut self, line: impl Into<Vec<u8>>) -> Self {
        self.headers.push(line.into());
        self
    }

    fn without_header(mut self, name: &str) -> Self {
        self.headers
            .retain(|line| !line.starts_with(name.as_bytes()));
        self
    }

    fn head(&self) -> Vec<u8> {
        let line = [&self.method[..], &self.target, &self.version].join(&b' ');
        let mut head = [line, self.headers.join(&b"\r\n"[..])].join(&b"\r\n"[..]);
        head.extend_from_slice(b"\r\n\r\n");
        head
    }

    pub fn bytes(&self) -> Vec<u8> {
        [self.head(), self.body.clone()].concat()
    }
}
