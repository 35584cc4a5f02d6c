//! What clients ask of the two servers with one model, and what the answer must be. `multi_model.rs` has the third.
//!
//! The model server echoes what it gets, so an answer shows what became of its request. Each request has a mark, which
//! its body, its headers and its answer hold: an answer with another request's mark is recognized.

use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use fastrand::Rng;
use sagemaker_tfs::convert::request::ACCEPTED;
use serde::Serialize;
use serde_json::{Value, json};

use crate::chance::{bytes, pick, weighted};
use crate::expected::{Content, Request};
use crate::multi_model;
use crate::target::Kind;

pub const MODEL: &str = "chaos";
pub const ATTRIBUTES: &str = "X-Amzn-SageMaker-Custom-Attributes";
/// Time that the model takes, so that requests are under way when processes are killed. The server sends requests that
/// were lost twice one by one: the times of all clients together must be far below the deadline.
const MODEL_TAKES_MS: std::ops::RangeInclusive<u32> = 5..=300;
pub const JSON: &str = "application/json";

pub type Make = fn(&mut Maker) -> Request;

const PLAIN: &[(f64, Make)] = &[
    (30.0, |maker| maker.json(0)),
    (8.0, Maker::value),
    (10.0, Maker::lines),
    (4.0, Maker::joined),
    (18.0, |maker| maker.csv(0)),
    (10.0, |maker| maker.image(0)),
    (4.0, Maker::passed),
    (0.7, Maker::large),
    (12.0, |maker| pick(&mut maker.chance, BAD)(maker)),
];

const HANDLED: &[(f64, Make)] = &[
    (46.0, |maker| maker.handled_json(0)),
    (18.0, Maker::handled_csv),
    (12.0, |maker| maker.handled_image(0)),
    (8.0, Maker::raising),
    (4.0, Maker::passed),
    (0.7, Maker::large),
    (12.0, |maker| pick(&mut maker.chance, &BAD[..5])(maker)),
];

/// Wrong on purpose; the first five do not reach a handler.
const BAD: &[Make] = &[
    Maker::unknown_path,
    Maker::wrong_method,
    Maker::wrong_attribute,
    Maker::two_lengths,
    Maker::short_body,
    Maker::unsupported_type,
    Maker::broken_text,
    Maker::open_quote,
    Maker::not_joinable,
    Maker::unknown_model,
];

/// Makes the requests of one client.
pub struct Maker {
    pub chance: Rng,
    pub mark: String,
    /// The folder with the models of multi-model mode.
    pub models: PathBuf,
    client: usize,
    kind: Kind,
    made: usize,
}

impl Maker {
    pub fn new(chance: Rng, client: usize, kind: Kind) -> Self {
        Self {
            chance,
            mark: String::new(),
            models: PathBuf::new(),
            client,
            kind,
            made: 0,
        }
    }

    pub fn request(&mut self) -> Request {
        self.new_mark();
        let kinds = match self.kind {
            Kind::Handlers => HANDLED,
            Kind::Plain => PLAIN,
            Kind::MultiModel => multi_model::REQUESTS,
        };
        kinds[weighted(&mut self.chance, kinds)].1(self)
    }

    pub fn new_mark(&mut self) {
        self.made += 1;
        let random = self.chance.u32(..);
        self.mark = format!("m{:04}-{:07}-{random:08x}", self.client, self.made);
    }

    /// A body that takes many reads and writes.
    pub fn large(&mut self) -> Request {
        self.new_mark();
        let size = self.chance.usize(200_000..=2_000_000);
        match (self.kind == Kind::Handlers, self.chance.u8(..3)) {
            (true, 0) => self.handled_image(size),
            (true, _) => self.handled_json(size),
            (false, 0) => self.json(size),
            (false, 1) => self.csv(size),
            (false, _) => self.image(size),
        }
    }

    // Without handlers.

    /// Passes as it is, but for line ends when a type is asked for.
    fn json(&mut self, size: usize) -> Request {
        let rows = json!([self.mark, self.number(), self.text(size)]);
        let body = self.with_command(json!({"instances": rows}), size);
        let mut text = match self.chance.bool() {
            true => body.to_string(),
            false => format!("{body:#}"),
        };
        if self.chance.bool() {
            text = ascii(&text);
        }
        let accept = pick(&mut self.chance, &[None, Some(JSON)]);
        let expected = match accept {
            None => text.clone(),
            Some(_) => text.replace('\n', ""),
        };
        let content = Content::Bytes(expected.into_bytes());
        let mut request = self.good("JSON", text, JSON, content);
        request.answer_header = Some(("content-type", accept.unwrap_or(JSON)));
        match accept {
            Some(accept) => request.header("Accept", accept),
            None => request,
        }
    }

    pub fn value(&mut self) -> Request {
        let (mark, number) = (json!(self.mark), self.number());
        let (value, is_row) = match self.chance.u8(..4) {
            0 => (json!([mark, number]), true),
            1 => (json!({"x": mark, "y": number}), true),
            2 => (mark.clone(), true),
            _ => (json!([[mark], [number]]), false),
        };
        let rows = match is_row {
            true => json!([value]),
            false => value.clone(),
        };
        self.good("JSON value", value.to_string(), JSON, instances(&rows))
    }

    fn lines(&mut self) -> Request {
        let mut rows = vec![json!(self.mark)];
        for _ in 0..self.chance.usize(1..=20) {
            rows.push(match self.chance.u8(..3) {
                0 => self.number(),
                1 => json!(self.text(0)),
                _ => json!({"x": self.number(), "y": self.text(0)}),
            });
        }
        let body: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let types = ["application/jsonlines", "application/jsons", JSON];
        let content_type = pick(&mut self.chance, &types);
        self.good("JSON lines", body, content_type, instances(&rows))
    }

    /// Several objects with `instances` each.
    fn joined(&mut self) -> Request {
        let mut rows = vec![json!(self.mark)];
        let mut body = json!({"instances": rows}).to_string();
        for _ in 0..self.chance.usize(1..=5) {
            let more = [self.number(), json!(self.text(0))];
            body += &format!("\n{}", json!({"instances": more}));
            rows.extend(more);
        }
        let content_type = "application/jsonlines";
        self.good("JSON lines", body, content_type, instances(&rows))
    }

    /// Fields in several spellings; all rows of one width.
    fn csv(&mut self, size: usize) -> Request {
        let width = self.chance.usize(1..=5);
        let row = |maker: &mut Self| (0..width).map(|_| maker.field()).collect::<Vec<_>>();
        let mut first = row(self);
        first[0] = (format!("\"{}\"", self.mark), json!(self.mark));
        let count = self.chance.usize(1..=20).max(size / (12 * width));
        // Many rows are a few over and over: the number of bytes matters.
        let some: Vec<_> = (0..count.min(20)).map(|_| row(self)).collect();
        let end = pick(&mut self.chance, &["\n", "\r\n"]);
        let (mut body, mut rows) = (String::new(), Vec::new());
        for row in std::iter::once(&first).chain(some.iter().cycle().take(count)) {
            let (spelt, mut meant): (Vec<_>, Vec<_>) = row.iter().cloned().unzip();
            body += &(spelt.join(",") + end);
            rows.push(match width {
                1 => meant.remove(0),
                _ => json!(meant),
            });
        }
        self.good("CSV", body, "text/csv", instances(&rows))
    }

    /// A field as it is spelt, and what it means.
    fn field(&mut self) -> (String, Value) {
        let (number, text) = (self.number(), self.text(0));
        let whole = number.as_f64().expect("a number").abs() as u64;
        match self.chance.u8(..6) {
            0 => (number.to_string(), number),
            1 => (format!("+{whole}"), json!(whole)),
            2 => (
                format!(".{whole}"),
                json!(format!("0.{whole}").parse::<f64>().ok()),
            ),
            3 => (format!("\"{number}\""), json!(number.to_string())),
            4 => (text.clone(), json!(text)),
            _ => {
                let spelt = format!("\"{text}, \"\"{text}\"\"\n{text}\"");
                (spelt, json!(format!("{text}, \"{text}\"\n{text}")))
            }
        }
    }

    fn image(&mut self, size: usize) -> Request {
        let body = self.image_bytes(size);
        let types = ["application/x-image", "image/png", "image/jpeg"];
        let content_type = pick(&mut self.chance, &types);
        let rows = json!([{"b64": BASE64_STANDARD.encode(&body)}]);
        self.good("image", body, content_type, instances(&rows))
    }

    fn image_bytes(&mut self, size: usize) -> Vec<u8> {
        let random = self.chance.usize(1..=3000);
        let size = if size > 0 { size } else { random };
        [self.mark.as_bytes(), &bytes(&mut self.chance, size)].concat()
    }

    fn passed(&mut self) -> Request {
        let body = format!("{:#}", json!({"instances": [self.mark, self.number()]}));
        let content = Content::Bytes(body.clone().into_bytes());
        let path = format!("/tfs/v1/models/{MODEL}:predict");
        self.good("TFS's API", body, JSON, content).at("POST", path)
    }

    // Through the handlers.

    pub fn handled_json(&mut self, size: usize) -> Request {
        let rows = json!([self.mark, self.number(), self.text(size)]);
        let body = self.with_command(json!({"rows": rows}), size);
        self.handled("JSON", body.to_string(), JSON, rows)
    }

    fn handled_csv(&mut self) -> Request {
        let mut rows = vec![vec![self.mark.clone()]];
        for _ in 0..self.chance.usize(1..=20) {
            rows.push(vec![self.number().to_string(), self.text(0)]);
        }
        let body: String = rows.iter().map(|row| row.join(",") + "\n").collect();
        self.handled("CSV", body, "text/csv", json!(rows))
    }

    fn handled_image(&mut self, size: usize) -> Request {
        let body = self.image_bytes(size);
        let mut request = self.handled("image", body, "application/x-image", json!([]));
        request.content = Content::Bytes(request.body.clone());
        request.answer_header = Some(("content-type", "application/octet-stream"));
        request
    }

    /// An exception in the handler, whose text is the answer.
    fn raising(&mut self) -> Request {
        let text = format!("{} is not wanted", self.mark);
        let body = json!({"rows": [], "raise": text}).to_string();
        let request = self.handled("exception in a handler", body, JSON, json!([]));
        request.answered(500, Content::Json(json!({"error": text})))
    }

    // Wrong on purpose.

    fn unknown_path(&mut self) -> Request {
        let path = format!("/{}", self.mark);
        self.bad(404, "Not Found").at("POST", path)
    }

    fn wrong_method(&mut self) -> Request {
        let text = "Method Not Allowed: /invocations accepts POST";
        let mut request = self.bad(405, text).at("PUT", "/invocations");
        request.answer_header = Some(("allow", "POST"));
        request
    }

    fn wrong_attribute(&mut self) -> Request {
        let (mark, accepted) = (&self.mark, "predict, classify or regress.");
        let text = format!("Custom attribute tfs-method is \"{mark}\"; accepted: {accepted}");
        let attribute = format!("tfs-method={mark}");
        self.bad(400, text).header(ATTRIBUTES, attribute)
    }

    fn two_lengths(&mut self) -> Request {
        let any = Content::Begins("error", String::new());
        let request = self.bad(400, "").answered(400, any);
        request.header("Transfer-Encoding", "chunked")
    }

    /// Announces more than it sends; the client then ends its sending side.
    fn short_body(&mut self) -> Request {
        let spaces = " ".repeat(self.chance.usize(2000..=9000));
        let body = format!("{}{spaces}", self.mark);
        let length = body.len() + self.chance.usize(1..=5000);
        let text = format!("The body ended after {} of {length} bytes.", body.len());
        let mut request = self.bad_body(400, text, JSON, body);
        request.length = Some(length);
        request
    }

    fn unsupported_type(&mut self) -> Request {
        let content_type = format!("application/x-{}", self.mark);
        let text = format!("Unsupported Media Type: {content_type}; accepted: {ACCEPTED}.");
        self.bad_body(415, text, &content_type, "[]")
    }

    fn broken_text(&mut self) -> Request {
        let (row, mut body) = self.good_rows();
        body.extend_from_slice(b"\xff\xfe\n");
        let text = format!("CSV row {row} is not valid UTF-8.");
        self.bad_body(400, text, "text/csv", body)
    }

    fn open_quote(&mut self) -> Request {
        let (row, mut body) = self.good_rows();
        body.extend_from_slice(b"\"2\n");
        let text = format!("CSV row {row}: a quoted field is never closed.");
        self.bad_body(400, text, "text/csv", body)
    }

    /// Rows of CSV, the last of which is still open, and its number.
    fn good_rows(&mut self) -> (usize, Vec<u8>) {
        let row = self.chance.usize(1..=30);
        let begin = format!("{},", self.mark);
        let good = format!("{begin}1\n").repeat(row - 1);
        (row, (good + &begin).into_bytes())
    }

    fn not_joinable(&mut self) -> Request {
        let first = json!({"instances": [self.mark]});
        let second = json!({"instances": [1], "signature_name": "other"});
        let text = Content::Begins("error", "The body holds several values".into());
        let body = format!("{first}\n{second}");
        self.bad_body(400, "", JSON, body).answered(400, text)
    }

    fn unknown_model(&mut self) -> Request {
        let text = format!("Servable not found for request: Latest({})", self.mark);
        let attribute = format!("tfs-model-name={}", self.mark);
        self.bad(404, text).header(ATTRIBUTES, attribute)
    }

    // What they are made of.

    pub fn good(
        &self,
        kind: &'static str,
        body: impl Into<Vec<u8>>,
        content_type: &str,
        content: Content,
    ) -> Request {
        Request::new(&self.mark, kind, body.into(), content_type, content)
    }

    fn handled(
        &self,
        kind: &'static str,
        body: impl Into<Vec<u8>>,
        content_type: &str,
        rows: Value,
    ) -> Request {
        let gathered = json!({"mark": self.mark, "helped": self.mark, "rows": rows});
        let request = self.good(kind, body, content_type, Content::Json(gathered));
        request.header(ATTRIBUTES, format!("chaos={}", self.mark))
    }

    fn bad(&self, status: u16, text: impl Into<String>) -> Request {
        self.bad_body(status, text, JSON, json!([self.mark]).to_string())
    }

    fn bad_body(
        &self,
        status: u16,
        text: impl Into<String>,
        content_type: &str,
        body: impl Into<Vec<u8>>,
    ) -> Request {
        let content = Content::Is("error", text.into());
        let mut request = self.good("bad input", body, content_type, content);
        (request.status, request.is_plain) = (status, true);
        request
    }

    /// Now and then adds a command to the model server, which looks for one in small bodies.
    fn with_command(&mut self, mut body: Value, size: usize) -> Value {
        if size == 0 && self.chance.f64() >= 0.7 {
            body["fake"] = if self.chance.f64() < 0.02 {
                let close = pick(&mut self.chance, &["before_answer", "mid_answer"]);
                json!({"close": close, "fail_first": 1, "key": self.mark})
            } else {
                json!({"delay_ms": self.chance.u32(MODEL_TAKES_MS)})
            };
        }
        body
    }

    fn number(&mut self) -> Value {
        match self.chance.bool() {
            true => json!(self.chance.i64(-1_000_000_000..=1_000_000_000)),
            false => json!(self.chance.f64() * 2000.0 - 1000.0),
        }
    }

    fn text(&mut self, size: usize) -> String {
        let letters: Vec<char> = "abcdefghijklmnopqrstuvwxyzäöü€".chars().collect();
        let size = if size > 0 {
            size
        } else {
            self.chance.usize(..=30)
        };
        // A field that reads nan or inf would be a number.
        let text = (0..size).map(|_| pick(&mut self.chance, &letters));
        std::iter::once('t').chain(text).collect()
    }
}

/// The answer to converted rows.
fn instances(rows: &impl Serialize) -> Content {
    Content::Json(json!({"instances": rows}))
}

/// The same JSON, escaped.
fn ascii(json: &str) -> String {
    let escaped = |c: char| match c.is_ascii() {
        true => c.to_string(),
        false => format!("\\u{:04x}", c as u32),
    };
    json.chars().map(escaped).collect()
}
