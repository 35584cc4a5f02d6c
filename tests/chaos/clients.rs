//! The clients. Each sends one request after another until the run ends: plainly, in chunks, slowly, or hanging up. One
//! more client asks /ping ten times a second.

use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::attacks::chunk;
use crate::chance::{cut, seconds, weighted};
use crate::expected::{Request, judge};
use crate::load::Stop;
use crate::requests::Maker;
use crate::tally::Exchange;
use crate::target::Target;
use crate::wire::{AT_ONCE, NoAnswer, Pace, Piece, Wire};

/// Sum of the pauses in one body or answer; far below any time limit of the server.
pub const SLOW_SECONDS: f64 = 2.5;
const PING_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two requests of a client: clients share the machine with the servers.
const THINK_SECONDS: f64 = 0.03;
/// Requests on a connection before the client takes a new one.
const REQUESTS_A_CONNECTION: std::ops::RangeInclusive<usize> = 1..=60;

const PLAIN: &str = "plainly";
const CHUNKS: &str = "in chunks";
const SLOW_SENDER: &str = "slow sender";
const SLOW_READER: &str = "slow reader";
const EXPECT: &str = "100-continue";
const LEFT_BODY: &str = "hung up in the body";
const LEFT_ANSWER: &str = "hung up before the answer";
const MANNERS: &[(f64, &str)] = &[
    (76.0, PLAIN),
    (8.0, CHUNKS),
    (4.0, SLOW_SENDER),
    (1.5, SLOW_READER),
    (3.0, EXPECT),
    (3.0, LEFT_BODY),
    (4.0, LEFT_ANSWER),
];

pub struct Client<'a> {
    number: usize,
    chance: Rng,
    target: &'a Target,
    wire: Option<Wire>,
    /// Requests left before this client takes a new connection.
    left: usize,
}

impl<'a> Client<'a> {
    pub fn new(number: usize, chance: Rng, target: &'a Target) -> Self {
        Self {
            number,
            chance,
            target,
            wire: None,
            left: 0,
        }
    }

    pub fn run(mut self, stop: &Stop) {
        let mut maker = Maker::new(self.chance.fork(), self.number, self.target.kind);
        maker.models = self.target.server.path("model");
        while !stop.is_set() {
            let mut request = maker.request();
            let mut manner = PLAIN;
            if !request.is_plain {
                manner = MANNERS[weighted(&mut self.chance, MANNERS)].1;
                if manner == SLOW_READER {
                    request = maker.large();
                }
            }
            self.send_one(&request, manner);
            stop.wait(seconds(&mut self.chance, 0.0, THINK_SECONDS));
        }
    }

    fn send_one(&mut self, request: &Request, manner: &'static str) {
        let exchange = Exchange {
            client: self.number,
            request,
            manner,
            begun: Instant::now(),
        };
        self.target.tally().begin(self.number, exchange.begun);
        match self.exchange(request, manner) {
            Ok(Some(answer)) => {
                let is_last = answer
                    .header("connection")
                    .is_some_and(|value| value.eq_ignore_ascii_case("close"));
                if is_last || request.length.is_some() || manner == SLOW_READER {
                    self.wire = None;
                }
                let (verdict, now) = (judge(request, &answer), Instant::now());
                self.target.tally().answer(&exchange, &answer, verdict, now);
            }
            Ok(None) => self.target.tally().hang_up(&exchange),
            Err(problem) => {
                self.wire = None;
                self.target
                    .tally()
                    .no_answer(&exchange, &problem.to_string(), Instant::now());
            }
        }
    }

    /// The answer; `None` when the client hung up on purpose.
    fn exchange(
        &mut self,
        request: &Request,
        manner: &str,
    ) -> Result<Option<crate::support::Response>, NoAnswer> {
        let is_slow = manner == SLOW_READER;
        let port = self.target.server.port();
        let mut wire = match self.wire.take().filter(|_| self.left > 0 && !is_slow) {
            Some(wire) => wire,
            None => {
                self.left = self.chance.usize(REQUESTS_A_CONNECTION);
                if is_slow {
                    Wire::open_slow(port)
                } else {
                    Wire::open(port)
                }?
            }
        };
        self.left -= 1;
        if manner == LEFT_BODY || manner == LEFT_ANSWER {
            self.leave(wire, request, manner)?;
            return Ok(None);
        }
        self.send(&mut wire, request, manner)?;
        let pace = match is_slow {
            true => Pace(
                64 * 1024,
                seconds(&mut self.chance, 0.0, SLOW_SECONDS / 32.0),
            ),
            false => AT_ONCE,
        };
        let answer = wire.receive(pace, true)?;
        self.wire = Some(wire);
        Ok(Some(answer))
    }

    fn send(&mut self, wire: &mut Wire, request: &Request, manner: &str) -> Result<(), NoAnswer> {
        let body = &request.body;
        match manner {
            CHUNKS => {
                let count = self.chance.usize(1..=20);
                let pieces = cut(&mut self.chance, body, count);
                let chunks: Vec<_> = pieces
                    .into_iter()
                    .filter(|piece| !piece.is_empty())
                    .flat_map(chunk)
                    .collect();
                wire.send(&request.head_chunked())?;
                wire.send(&chunks)?;
                wire.send(b"0\r\n\r\n")
            }
            SLOW_SENDER => wire.drip(&self.drops(&request.bytes())),
            EXPECT => {
                wire.send(&request.head_expecting())?;
                let answer = wire.receive(AT_ONCE, true)?;
                match answer.status {
                    100 => wire.send(body),
                    status => Err(NoAnswer::Broken(format!("{status} instead of 100"))),
                }
            }
            _ if body.len() < 16 * 1024 => wire.send(&request.bytes()),
            _ => {
                wire.send(&request.head())?;
                wire.send(body)
            }
        }?;
        if request.length.is_some() {
            wire.end_sending();
        }
        Ok(())
    }

    fn leave(&mut self, mut wire: Wire, request: &Request, manner: &str) -> Result<(), NoAnswer> {
        wire.send(&request.head())?;
        if manner == LEFT_BODY {
            wire.send(&request.body[..self.chance.usize(..request.body.len())])?;
        } else {
            wire.send(&request.body)?;
            thread::sleep(seconds(&mut self.chance, 0.0, 0.05));
        }
        wire.hang_up(self.chance.bool());
        Ok(())
    }

    /// Pieces with pauses between them; some are cut within the head.
    fn drops(&mut self, data: &[u8]) -> Vec<Piece> {
        let count = self.chance.usize(2..=40);
        let pieces = cut(&mut self.chance, data, count);
        let longest = SLOW_SECONDS / count as f64;
        let dropped = pieces
            .into_iter()
            .map(|piece| (piece.to_vec(), seconds(&mut self.chance, 0.0, longest)));
        let mut pieces: Vec<_> = dropped.collect();
        if let Some(last) = pieces.last_mut() {
            last.1 = Duration::ZERO;
        }
        pieces
    }
}

/// Asks /ping: the answer must be 200, or 502 when `must_serve` finds no objection.
pub fn ping_on(target: &Target, stop: &Stop) {
    let mut wire = None;
    while !stop.wait(PING_PAUSE) {
        let asked = wire
            .take()
            .map_or_else(|| Wire::open(target.server.port()), Ok)
            .and_then(|mut open| {
                open.send(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
                let answer = open.receive(AT_ONCE, true)?;
                wire = Some(open);
                Ok(answer)
            });
        let (status, complaint) = match asked {
            Ok(answer) if answer.status == 200 && answer.body.is_empty() => (Some(200), None),
            Ok(answer) if answer.status == 502 => (Some(502), target.must_serve(&answer.text())),
            Ok(answer) => (
                Some(answer.status),
                Some(format!("{} {:.200}", answer.status, answer.text())),
            ),
            Err(problem) => (None, Some(problem.to_string())),
        };
        target.tally().ping(status, complaint, Instant::now());
    }
}
