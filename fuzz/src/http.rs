//! HTTP as the front reads it: whatever pieces the bytes of a connection come in, the same requests are found in them,
//! and none behind what was refused.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice};
use std::time::{Duration, Instant};

use sagemaker_tfs::budget::{Budget, Buffer};
use sagemaker_tfs::http::body::{self, BodyDecoder};
use sagemaker_tfs::http::connection::{Admission, Arrived, Connection, Direction, Step, Stream};
use sagemaker_tfs::http::head::Head;
use sagemaker_tfs::http::response::{Response, ResponseWriter};

/// More than any input holds; lengths beyond it are refused.
const MAX_BODY: usize = 1 << 20;

pub fn check(data: &[u8]) {
    let whole = run(data, usize::MAX);
    for pieces in [1, 7, 13] {
        assert_eq!(run(data, pieces), whole, "pieces of {pieces}");
    }
}

/// What is found on a connection.
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
        is_told_the_end: Cell::new(false),
    };
    let mut connection = Connection::new(Instant::now(), &Budget::new(MAX_BODY));
    let mut found = Vec::new();
    // Each step takes bytes, or answers what was found in them.
    for _ in 0..8 * data.len() + 8 {
        let keep = match connection.advance(&client, &admit) {
            Step::Read | Step::Write | Step::Again => continue,
            Step::Close => return found,
            Step::Busy => panic!("nobody has the request"),
            Step::Request(request, ()) => {
                assert!(!client.is_told_the_end.get(), "behind the end");
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
    panic!("it never ends");
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

/// Sends pieces of so many bytes, makes the server wait before each second one, and ends. Takes all it gets.
struct Client<'a> {
    data: RefCell<&'a [u8]>,
    pieces: usize,
    waits: Cell<bool>,
    is_told_the_end: Cell<bool>,
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
        self.is_told_the_end.set(true);
    }
}
