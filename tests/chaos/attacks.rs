//! What hostile clients send, and what must come of it.
//!
//! What must be refused (smuggled requests, JSON nested too deep, heads too large) gets 4xx, 501, or 503 under load.
//! What is allowed but costly (the worst bodies for memory) gets its own right answer or any error. In both cases the
//! server may also close the connection, but it must not stay silent. Attacks have marks as requests have.

use std::ops::RangeInclusive;
use std::time::Duration;

use fastrand::Rng;
use serde_json::json;

use crate::chance::{pick, seconds, weighted};
use crate::expected::{Content, Request, marks_in};
use crate::requests::{ATTRIBUTES, JSON, MODEL, Maker};
use crate::support::Response;
use crate::target::Kind;
use crate::wire::Piece;

/// The least sizes of heads, and levels of JSON, that must be refused.
pub const TOO_LARGE_HEAD: usize = 32 * 1024 + 1;
pub const TOO_DEEP: usize = 513;
const MOST_LEVELS: usize = 100_000;
const COSTLY_BYTES: RangeInclusive<usize> = 100_000..=1_500_000;
/// Sum of the pauses in a body that is sent a few bytes at a time.
const DRIP_SECONDS: f64 = 2.0;

type Make = fn(&mut AttackMaker) -> Attack;

const ATTACKS: &[(f64, Make)] = &[
    (40.0, AttackMaker::smuggled),
    (20.0, AttackMaker::nested),
    (4.0, AttackMaker::empty_names),
    (4.0, AttackMaker::control_characters),
    (8.0, AttackMaker::small_chunks),
    (8.0, AttackMaker::large_head),
    (4.0, AttackMaker::load_model),
];

pub struct Attack {
    pub kind: &'static str,
    pub mark: String,
    pub pieces: Vec<Piece>,
    allowed: Allowed,
    /// What an answer with status 200 must hold.
    content: Content,
    /// The answer to a HEAD announces a body that does not come.
    pub answer_has_body: bool,
}

/// What may come of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed {
    /// 4xx, 501 or 503.
    Refusal,
    /// 4xx or 5xx.
    Error,
    /// An error, or 200 with the right content.
    Answer,
}

impl Attack {
    /// What is wrong with an answer to it.
    pub fn complaint(&self, answer: &Response) -> Option<String> {
        let mut others = marks_in(&answer.body);
        others.remove(&self.mark);
        let is_fine = match answer.status {
            400..500 | 501 | 503 => true,
            500..600 => self.allowed != Allowed::Refusal,
            200 => self.allowed == Allowed::Answer && self.content.is_in(answer),
            _ => false,
        };
        (!is_fine || !others.is_empty()).then(|| {
            let (status, text, mark) = (answer.status, answer.text(), &self.mark);
            let sent = String::from_utf8_lossy(&self.pieces[0].0);
            let line = sent.lines().next().unwrap_or_default();
            format!("{status} {text:.200} to {mark} ({line:.200}), marks of others: {others:?}")
        })
    }
}

/// Makes the attacks of one hostile client.
pub struct AttackMaker {
    maker: Maker,
    has_handlers: bool,
}

impl AttackMaker {
    pub fn new(chance: Rng, client: usize, kind: Kind) -> Self {
        Self {
            maker: Maker::new(chance, client, kind),
            has_handlers: kind == Kind::Handlers,
        }
    }

    pub fn attack(&mut self) -> Attack {
        self.maker.new_mark();
        ATTACKS[weighted(self.chance(), ATTACKS)].1(self)
    }

    /// A whole prediction as the body of a request that must not have one, for TFS to take for the next request.
    fn smuggled(&mut self) -> Attack {
        const METHODS: &[(f64, &str)] = &[
            (6.0, "GET"),
            (4.0, "HEAD"),
            (2.0, "DELETE"),
            (2.0, "OPTIONS"),
            (1.0, "PUT"),
            (1.0, "PATCH"),
            (1.0, "CONNECT"),
            (1.0, "TRACE"),
            (1.0, "get"),
            (1.0, "GETS"),
        ];
        let predict = format!("/v1/models/{MODEL}:predict");
        let body = json!({"instances": [self.maker.mark]}).to_string();
        let inner = self.maker.good("", body, JSON, Content::Anything);
        let mut inner = inner.at("POST", &predict).bytes();
        let method = METHODS[weighted(self.chance(), METHODS)].1;
        let status = predict.trim_end_matches(":predict");
        let path = pick(self.chance(), &[status, &predict, "/", "/x"]);
        let framing = if self.chance().f64() < 0.3 {
            inner = [chunk(&inner), b"0\r\n\r\n".to_vec()].concat();
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {}", inner.len())
        };
        let head = format!("{method} /tfs{path} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n");
        let pieces = self.cut([head.as_bytes(), &inner].concat());
        let mut attack = self.attack_of("smuggled request", pieces, Allowed::Refusal);
        attack.answer_has_body = method != "HEAD";
        attack
    }

    /// JSON nested so deep that it would overflow the stack of TFS's parser, closed or not.
    fn nested(&mut self) -> Attack {
        let random = self.chance().usize(TOO_DEEP..=MOST_LEVELS);
        let levels = pick(self.chance(), &[TOO_DEEP, random]);
        let brackets = [("[", "]"), ("{\"a\":", "}"), ("[{\"b\":", "}]")];
        let (opening, closing) = pick(self.chance(), &brackets);
        let end = match self.chance().bool() {
            true => closing.repeat(levels) + "}",
            false => String::new(),
        };
        let member = pick(self.chance(), &["instances", "inputs", "other"]);
        let (mark, deep) = (&self.maker.mark, opening.repeat(levels));
        let body = format!("{{\"mark\":\"{mark}\",\"{member}\":{deep}1{end}");
        let request = self.maker.good("deep JSON", body, JSON, Content::Anything);
        if self.chance().bool() {
            let path = format!("/tfs/v1/models/{MODEL}:predict");
            return self.posting(request.at("POST", path), Allowed::Refusal);
        }
        // A script's own parser meets it first.
        let allowed = match self.has_handlers {
            true => Allowed::Error,
            false => Allowed::Refusal,
        };
        self.posting(request, allowed)
    }

    /// Very many members for its bytes.
    fn empty_names(&mut self) -> Attack {
        let member = "\"\":0,";
        let count = self.chance().usize(COSTLY_BYTES) / member.len();
        let (mark, members) = (&self.maker.mark, member.repeat(count));
        let body = format!("{{\"{mark}\":0,{members}\"\":0}}");
        let content = Content::Holds(body.clone().into_bytes());
        let request = self.maker.good("JSON of empty names", body, JSON, content);
        self.posting(request, Allowed::Answer)
    }

    /// CSV each byte of which becomes six.
    fn control_characters(&mut self) -> Attack {
        let row = "\x01\x1f".repeat(self.chance().usize(1..=500));
        let count = self.chance().usize(COSTLY_BYTES) / (row.len() + 1);
        let mark = self.maker.mark.as_str();
        let mut rows = vec![mark];
        rows.extend(std::iter::repeat_n(row.as_str(), count));
        let body = rows.join("\n");
        let content = if self.has_handlers {
            let rows: Vec<_> = rows.iter().map(|row| [row]).collect();
            json!({"mark": mark, "helped": mark, "rows": rows})
        } else {
            json!({"instances": rows})
        };
        let (kind, content) = ("CSV of control characters", Content::Json(content));
        let request = self.maker.good(kind, body, "text/csv", content);
        self.posting(request, Allowed::Answer)
    }

    /// A good request in chunks of a few bytes, slowly; some end in a chunk without a length.
    fn small_chunks(&mut self) -> Attack {
        let good = match self.has_handlers {
            true => self.maker.handled_json(0),
            false => self.maker.value(),
        };
        let parts: Vec<_> = good.body.chunks(3).map(chunk).collect();
        let pause = seconds(self.chance(), 0.0, DRIP_SECONDS / parts.len() as f64);
        let mut pieces = vec![(good.head_chunked(), Duration::ZERO)];
        pieces.extend(parts.into_iter().map(|part| (part, pause)));
        if self.chance().f64() < 0.3 {
            pieces.truncate(self.chance().usize(1..=pieces.len()));
            pieces.push((b"g\r\n".to_vec(), Duration::ZERO));
            return self.attack_of("broken chunks", pieces, Allowed::Error);
        }
        pieces.push((b"0\r\n\r\n".to_vec(), Duration::ZERO));
        let mut attack = self.attack_of("small chunks", pieces, Allowed::Answer);
        attack.content = good.content;
        attack
    }

    fn large_head(&mut self) -> Attack {
        let size = self.chance().usize(TOO_LARGE_HEAD..=3 * TOO_LARGE_HEAD);
        let value = "x".repeat(pick(self.chance(), &[100, 1000, size]));
        let line = format!("X-{}: {value}\r\n", self.maker.mark);
        let lines = line.repeat(size / line.len() + 1);
        let first = "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n";
        let pieces = self.cut(format!("{first}{lines}\r\n").into_bytes());
        self.attack_of("large head", pieces, Allowed::Refusal)
    }

    /// Loads a model, of which there is none, in every type that a web page can send.
    fn load_model(&mut self) -> Attack {
        let url = "/".to_owned() + &"x".repeat(self.chance().usize(1..=200_000));
        let body = json!({"model_name": self.maker.mark, "url": url}).to_string();
        let types = ["text/plain", "multipart/form-data", JSON];
        let content_type = pick(self.chance(), &types);
        let content = Content::Anything;
        let request = self.maker.good("POST /models", body, content_type, content);
        self.posting(request.at("POST", "/models"), Allowed::Refusal)
    }

    fn chance(&mut self) -> &mut Rng {
        &mut self.maker.chance
    }

    fn attack_of(&self, kind: &'static str, pieces: Vec<Piece>, allowed: Allowed) -> Attack {
        Attack {
            kind,
            mark: self.maker.mark.clone(),
            pieces,
            allowed,
            content: Content::Anything,
            answer_has_body: true,
        }
    }

    fn posting(&self, request: Request, allowed: Allowed) -> Attack {
        let request = request.header(ATTRIBUTES, format!("chaos={}", self.maker.mark));
        let pieces = vec![(request.bytes(), Duration::ZERO)];
        let mut attack = self.attack_of(request.kind, pieces, allowed);
        attack.content = request.content;
        attack
    }

    /// In one piece, or in two with a moment between them.
    fn cut(&mut self, mut data: Vec<u8>) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if self.chance().bool() {
            let rest = data.split_off(self.chance().usize(1..data.len()));
            pieces.push((data, seconds(self.chance(), 0.0, 0.2)));
            data = rest;
        }
        pieces.push((data, Duration::ZERO));
        pieces
    }
}

pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

#[cfg(test)]
mod tests;
