//! HTTP connections: the requests that are found do not depend on how the bytes are split, and none is found after a
//! refused request.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice};
use std::time::{Duration, Instant};

use sagemaker_tfs::budget::{Budget, Buffer};
use sagemaker_tfs::http::body::{self, BodyDecoder};
use sagemaker_tfs::http::connection::{Admission, Arrived, Connection, Direction, Step, Stream};
use sagemaker_tfs::http::head::Head;
use sagemaker_tfs::http::response::{Response, ResponseWriter};

/// More bytes than any input has; greater lengths are refused.
const MAX_BODY: usize = 1 << 20;

pub fn check(data: &[u8]) {
    let whole = run(data, usize::MAX);
    for pieces in [1, 7, 13] {
        assert_eq!(run(data, pieces), whole, "pieces of {pieces}");
    }
}

/// A request or a refusal on a connection.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Request {
        method: String,
        target: String,
        body: Vec<u8>,
    },
    Refused(u16),
}

fn run(data: &[u8], pieces: usize) -> Vec<Found> {
    let client = Client {
        data: RefCell::new(data),
        pieces,
        waits: Cell::new(false),
        saw_the_end: Cell::new(false),
    };
    let mut connection = Connection::new(Instant::now(), &Budget::new(MAX_BODY));
    let mut found = Vec::new();
    // Each step reads bytes, or finds something in them that gets a response.
    for _ in 0..8 * data.len() + 8 {
        let keep = match connection.advance(&client, &admit) {
            Step::Read | Step::Write | Step::Again => continue,
            Step::Close => return found,
            Step::Busy => panic!("no request is being worked on"),
            Step::Request(request, ()) => {
                assert!(!client.saw_the_end.get(), "a request after the end");
                check_request(&request);
                found.push(Found::Request {
                    method: request.head.method().into(),
                    target: request.head.target().into(),
                    body: request.body.to_vec(),
                });
                request.head.keeps_connection()
            }
            Step::Refused(_, error) => {
                assert!((400..=505).contains(&error.status), "{error}");
                found.push(Found::Refused(error.status));
                false
            }
        };
        connection.answer(ResponseWriter::new(Response::empty(), None, keep), keep);
    }
    panic!("the connection never ends");
}

fn check_request(request: &Arrived) {
    let head = &request.head;
    let is_there = |name| head.first(name).is_some();
    assert!(!(is_there("Content-Length") && is_there("Transfer-Encoding")));
    let announced = head.first("Content-Length").unwrap_or("0");
    assert!(is_there("Transfer-Encoding") || announced.parse() == Ok(request.body.len()));
    let is_text = |text: &str| !text.contains(|c: char| c.is_ascii_control() && c != '\t');
    assert!(is_text(head.method()) && is_text(head.target()));
    for name in [
        "Content-Type",
        "Accept",
        "X-Amzn-SageMaker-Custom-Attributes",
    ] {
        assert!(head.values(name).all(is_text));
    }
}

fn admit(head: &Head, arrived: &Buffer) -> Admission<()> {
    match body::length(head, MAX_BODY) {
        Ok(length) => Admission::Admitted {
            body: BodyDecoder::new(length, true, MAX_BODY, arrived.arriving_sibling()),
            limit: Duration::MAX,
            plan: (),
        },
        Err(error) => Admission::Refused { error, rest: None },
    }
}

/// Sends the data in pieces, makes the server wait before each of them, and ends. Accepts all that the server sends.
struct Client<'a> {
    data: RefCell<&'a [u8]>,
    pieces: usize,
    waits: Cell<bool>,
    saw_the_end: Cell<bool>,
}

impl Stream for Client<'_> {
    fn receive(&self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        self.waits
            .set(!self.waits.get() && self.pieces < usize::MAX);
        if self.waits.get() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut data = self.data.borrow_mut();
        let (piece, rest) = data.split_at(self.pieces.min(data.len()));
        bytes.extend_from_slice(piece);
        *data = rest;
        Ok(piece.len())
    }

    fn send(&self, parts: &[IoSlice]) -> io::Result<usize> {
        Ok(parts.iter().map(|part| part.len()).sum())
    }

    fn is_ready(&self, _: Direction) -> bool {
        true
    }

    fn finish(&self) {
        self.saw_the_end.set(true);
    }
}
