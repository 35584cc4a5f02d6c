//! A request with its right answer, and the judgment of an answer.

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use memchr::memmem;
use serde_json::Value;

use crate::support::Response;

/// How a mark looks: `0` is any digit, `x` any hexadecimal one.
const MARK: &[u8] = b"m0000-0000000-xxxxxxxx";
/// A call that had begun when its worker was killed is not repeated: it may have had effects.
const ENDED_WITH_WORKER: &str = "The Python worker was restarted while it ran ";

#[derive(Debug, Clone)]
pub struct Request {
    /// Identifies the request.
    pub mark: String,
    pub kind: &'static str,
    pub method: &'static str,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Announced instead of the body's own length.
    pub length: Option<usize>,
    /// Whether clients must send this plainly.
    pub is_plain: bool,
    /// What the answer must be.
    pub status: u16,
    pub content: Content,
    pub answer_header: Option<(&'static str, &'static str)>,
    /// Other statuses that are documented for this request.
    pub documented: &'static [u16],
}

/// What an answer must hold.
#[derive(Debug, Clone)]
pub enum Content {
    Anything,
    Bytes(Vec<u8>),
    /// These bytes somewhere.
    Holds(Vec<u8>),
    Json(Value),
    /// A member of this name with this text.
    Is(&'static str, String),
    /// A member of this name with a text that begins so.
    Begins(&'static str, String),
}

impl Request {
    pub fn new(
        mark: &str,
        kind: &'static str,
        body: Vec<u8>,
        content_type: &str,
        content: Content,
    ) -> Self {
        Self {
            mark: mark.to_owned(),
            kind,
            method: "POST",
            path: "/invocations".to_owned(),
            headers: vec![("Content-Type", content_type.to_owned())],
            body,
            length: None,
            is_plain: false,
            status: 200,
            content,
            answer_header: Some(("content-type", "application/json")),
            documented: &[],
        }
    }

    pub fn at(mut self, method: &'static str, path: impl Into<String>) -> Self {
        (self.method, self.path) = (method, path.into());
        self
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// What the answer must be instead of 200 and its content.
    pub fn answered(mut self, status: u16, content: Content) -> Self {
        (self.status, self.content) = (status, content);
        self
    }

    /// The head with `last` as its last lines.
    fn head_with(&self, last: &str) -> Vec<u8> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: localhost\r\n",
            self.method, self.path
        );
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        (head + last + "\r\n").into_bytes()
    }

    pub fn head(&self) -> Vec<u8> {
        self.head_with(&format!(
            "Content-Length: {}\r\n",
            self.length.unwrap_or(self.body.len())
        ))
    }

    pub fn bytes(&self) -> Vec<u8> {
        [self.head(), self.body.clone()].concat()
    }

    pub fn head_expecting(&self) -> Vec<u8> {
        self.head_with(&format!(
            "Content-Length: {}\r\nExpect: 100-continue\r\n",
            self.body.len()
        ))
    }

    pub fn head_chunked(&self) -> Vec<u8> {
        self.head_with("Transfer-Encoding: chunked\r\n")
    }
}

impl Content {
    pub fn is_in(&self, answer: &Response) -> bool {
        match self {
            Self::Anything => true,
            Self::Bytes(bytes) => answer.body == *bytes,
            Self::Holds(bytes) => memmem::find(&answer.body, bytes).is_some(),
            Self::Json(value) => parsed(answer).is_some_and(|found| is_same(&found, value)),
            Self::Is(name, text) => member(answer, name).is_some_and(|found| found == *text),
            Self::Begins(name, begin) => {
                member(answer, name).is_some_and(|found| found.starts_with(begin))
            }
        }
    }
}

/// The judgment of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Right,
    /// An error that is documented for this request.
    Documented,
    /// The error of a call whose worker ended while it ran.
    EndedWithWorker,
    WrongStatus,
    /// With the marks of other requests in it.
    WrongContent(BTreeSet<String>),
}

pub fn judge(request: &Request, answer: &Response) -> Verdict {
    let header = request.answer_header;
    let has_header = header.is_none_or(|(name, value)| answer.header(name) == Some(value));
    if answer.status == request.status && has_header && request.content.is_in(answer) {
        return Verdict::Right;
    }
    let mut others = marks_in(&answer.body);
    others.remove(&request.mark);
    let error = member(answer, "error");
    if request.documented.contains(&answer.status) {
        let is_json = answer.header("content-type") == Some("application/json");
        return match error {
            Some(_) if is_json && others.is_empty() => Verdict::Documented,
            _ => Verdict::WrongContent(others),
        };
    }
    let call = error
        .as_deref()
        .and_then(|text| text.strip_prefix(ENDED_WITH_WORKER));
    let is_call =
        |call: &str| call.starts_with("input_handler: ") || call.starts_with("output_handler: ");
    match answer.status {
        500 if call.is_some_and(is_call) => Verdict::EndedWithWorker,
        status if status != request.status => Verdict::WrongStatus,
        _ => Verdict::WrongContent(others),
    }
}

/// The marks of requests in an answer, also those in images.
pub fn marks_in(body: &[u8]) -> BTreeSet<String> {
    let is_mark = |bytes: &&[u8]| {
        bytes.iter().zip(MARK).all(|(byte, pattern)| match pattern {
            b'0' => byte.is_ascii_digit(),
            b'x' => byte.is_ascii_hexdigit(),
            _ => byte == pattern,
        })
    };
    let all = |bytes: &[u8]| -> Vec<String> {
        let found = bytes.windows(MARK.len()).filter(is_mark);
        found
            .map(|mark| String::from_utf8_lossy(mark).into_owned())
            .collect()
    };
    let mut marks: BTreeSet<_> = all(body).into_iter().collect();
    if let Ok(json) = serde_json::from_slice::<Value>(body) {
        let rows = json["instances"].as_array().into_iter().flatten();
        let images = rows.filter_map(|row| BASE64_STANDARD.decode(row["b64"].as_str()?).ok());
        marks.extend(images.flat_map(|image| all(&image)));
    }
    marks
}

/// `None` also for JSON nested too deep for the parser.
fn parsed(answer: &Response) -> Option<Value> {
    serde_json::from_slice(&answer.body).ok()
}

fn member(answer: &Response, name: &str) -> Option<String> {
    Some(parsed(answer)?.get(name)?.as_str()?.to_owned())
}

/// Numbers are compared by value: 1 and 1.0 are the same.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let is_there =
                |(name, value)| other.get(name).is_some_and(|other| is_same(value, other));
            one.len() == other.len() && one.iter().all(is_there)
        }
        _ => one == other,
    }
}
