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
use crate::expected::{Content, marks_in};
use crate::requests::{ATTRIBUTES, MODEL, Maker};
use crate::support::Response;
use crate::target::Kind;
use crate::wire::Piece;

/// The least sizes of heads, and levels of JSON, that must be refused.
pub const TOO_LARGE_HEAD: usize = 32 * 1024 + 1;
pub const TOO_DEEP: usize = 513;
const MOST_LEVELS: usize = 100_000;
const COSTLY_BYTES: RangeInclusive<usize> = 100_000..=1_500_000;
/// All pauses together of a body that comes a few bytes at a time.
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
    outcome: Outcome,
    /// The answer to a HEAD announces a body that does not come.
    pub answer_has_body: bool,
}

/// What must come of an attack.
enum Outcome {
    /// 4xx, 501 or 503.
    Refused,
    /// 4xx or 5xx.
    Error,
    /// An error, or 200 with this.
    ErrorOr(Content),
    /// An error, or 200 with these bytes somewhere in it.
    ErrorOrHolding(Vec<u8>),
}

impl Attack {
    /// What is wrong with an answer to it.
    pub fn complaint(&self, answer: &Response) -> Option<String> {
        let others: Vec<_> = marks_in(&answer.body)
            .into_iter()
            .filter(|mark| *mark != self.mark)
            .collect();
        let (status, body) = (answer.status, &answer.body);
        let is_error = (400..600).contains(&status);
        let is_fine = match &self.outcome {
            Outcome::Refused => (400..500).contains(&status) || [501, 503].contains(&status),
            Outcome::Error => is_error,
            Outcome::ErrorOr(content) => is_error || (status == 200 && content.is_in(answer)),
            Outcome::ErrorOrHolding(bytes) => {
                is_error || (status == 200 && memchr::memmem::find(body, bytes).is_some())
            }
        };
        (!is_fine || !others.is_empty()).then(|| {
            let (text, sent) = (answer.text(), String::from_utf8_lossy(&self.pieces[0].0));
            let line = sent.lines().next().unwrap_or_default();
            format!(
                "{status} {text:.200} to {} ({line:.200}), marks of others: {others:?}",
                self.mark
            )
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
        let body = json!({"instances": [self.maker.mark]}).to_string();
        let mut inner = self.post(
            &format!("/v1/models/{MODEL}:predict"),
            body.as_bytes(),
            "application/json",
        );
        let method = METHODS[weighted(self.chance(), METHODS)].1;
        let (model, predict) = (
            format!("v1/models/{MODEL}"),
            format!("v1/models/{MODEL}:predict"),
        );
        let path = pick(self.chance(), &[model.as_str(), &predict, "", "x"]);
        let framing = if self.chance().f64() < 0.3 {
            inner = [chunk(&inner), b"0\r\n\r\n".to_vec()].concat();
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {}", inner.len())
        };
        let head = format!("{method} /tfs/{path} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n");
        let pieces = self.cut([head.as_bytes(), &inner].concat());
        let mut attack = self.attack_of("smuggled request", pieces, Outcome::Refused);
        attack.answer_has_body = method != "HEAD";
        attack
    }

    /// JSON nested so deep that it would overflow the stack of TFS's parser, closed or not.
    fn nested(&mut self) -> Attack {
        let random = self.chance().usize(TOO_DEEP..=MOST_LEVELS);
        let levels = pick(self.chance(), &[TOO_DEEP, random]);
        let (opening, closing) = pick(
            self.chance(),
            &[("[", "]"), ("{\"a\":", "}"), ("[{\"b\":", "}]")],
        );
        let is_closed = self.chance().bool();
        let end = if is_closed {
            closing.repeat(levels) + "}"
        } else {
            String::new()
        };
        let member = pick(self.chance(), &["instances", "inputs", "other"]);
        let (mark, deep) = (&self.maker.mark, opening.repeat(levels));
        let body = format!("{{\"mark\":\"{mark}\",\"{member}\":{deep}1{end}");
        let predict = format!("/tfs/v1/models/{MODEL}:predict");
        let path = pick(self.chance(), &["/invocations", &predict]);
        // A script's own parser meets it first.
        let outcome = match self.has_handlers && path == "/invocations" {
            true => Outcome::Error,
            false => Outcome::Refused,
        };
        self.posting(
            "deep JSON",
            path,
            body.as_bytes(),
            "application/json",
            outcome,
        )
    }

    /// Very many members for its bytes.
    fn empty_names(&mut self) -> Attack {
        let member = "\"\":0,";
        let count = self.chance().usize(COSTLY_BYTES) / member.len();
        let body = format!(
            "{{\"{}\":0,{}\"\":0}}",
            self.maker.mark,
            member.repeat(count)
        )
        .into_bytes();
        let outcome = Outcome::ErrorOrHolding(body.clone());
        self.posting(
            "JSON of empty names",
            "/invocations",
            &body,
            "application/json",
            outcome,
        )
    }

    /// CSV each byte of which becomes six.
    fn control_characters(&mut self) -> Attack {
        let row = "\x01\x1f".repeat(self.chance().usize(1..=500));
        let count = self.chance().usize(COSTLY_BYTES) / (row.len() + 1);
        let mut rows = vec![self.maker.mark.as_str()];
        rows.extend(std::iter::repeat_n(row.as_str(), count));
        let body = rows.join("\n");
        let content = if self.has_handlers {
            let (mark, rows) = (
                &self.maker.mark,
                rows.iter().map(|row| [row]).collect::<Vec<_>>(),
            );
            Content::Json(json!({"mark": mark, "helped": mark, "rows": rows}))
        } else {
            Content::Json(json!({"instances": rows}))
        };
        let kind = "CSV of control characters";
        self.posting(
            kind,
            "/invocations",
            body.as_bytes(),
            "text/csv",
            Outcome::ErrorOr(content),
        )
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
            return self.attack_of("broken chunks", pieces, Outcome::Error);
        }
        pieces.push((b"0\r\n\r\n".to_vec(), Duration::ZERO));
        self.attack_of("small chunks", pieces, Outcome::ErrorOr(good.content))
    }

    fn large_head(&mut self) -> Attack {
        let size = self.chance().usize(TOO_LARGE_HEAD..=3 * TOO_LARGE_HEAD);
        let value = "x".repeat(pick(self.chance(), &[100, 1000, size]));
        let line = format!("X-{}: {value}\r\n", self.maker.mark);
        let lines = line.repeat(size / line.len() + 1);
        let head = format!(
            "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n{lines}\r\n"
        );
        let pieces = self.cut(head.into_bytes());
        self.attack_of("large head", pieces, Outcome::Refused)
    }

    /// Loads a model, of which there is none, in every type that a web page can send.
    fn load_model(&mut self) -> Attack {
        let url = "/".to_owned() + &"x".repeat(self.chance().usize(1..=200_000));
        let body = json!({"model_name": self.maker.mark, "url": url}).to_string();
        let types = ["text/plain", "multipart/form-data", "application/json"];
        let content_type = pick(self.chance(), &types);
        self.posting(
            "POST /models",
            "/models",
            body.as_bytes(),
            content_type,
            Outcome::Refused,
        )
    }

    fn chance(&mut self) -> &mut Rng {
        &mut self.maker.chance
    }

    fn attack_of(&self, kind: &'static str, pieces: Vec<Piece>, outcome: Outcome) -> Attack {
        Attack {
            kind,
            mark: self.maker.mark.clone(),
            pieces,
            outcome,
            answer_has_body: true,
        }
    }

    fn posting(
        &self,
        kind: &'static str,
        path: &str,
        body: &[u8],
        content_type: &str,
        outcome: Outcome,
    ) -> Attack {
        let pieces = vec![(self.post(path, body, content_type), Duration::ZERO)];
        self.attack_of(kind, pieces, outcome)
    }

    fn post(&self, path: &str, body: &[u8], content_type: &str) -> Vec<u8> {
        let mark = format!("chaos={}", self.maker.mark);
        let headers = [("Content-Type", content_type), (ATTRIBUTES, &mark)];
        crate::support::request("POST", path, &headers, body)
    }

    /// In one piece, or in two with a moment between them.
    fn cut(&mut self, mut data: Vec<u8>) -> Vec<Piece> {
        if self.chance().bool() {
            return vec![(data, Duration::ZERO)];
        }
        let rest = data.split_off(self.chance().usize(1..data.len()));
        vec![
            (data, seconds(self.chance(), 0.0, 0.2)),
            (rest, Duration::ZERO),
        ]
    }
}

pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}
