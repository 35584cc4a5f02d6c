//! Frames: the result does not depend on how the bytes are split, and contains only bytes that were sent.

use std::io::{self, ErrorKind, Read};

use sagemaker_tfs::worker_protocol::frame::{Answer, Call, Incoming, MAX_BODY_BYTES, write};
use serde::{Deserialize, Serialize};

const PREFIX_BYTES: usize = 12;
/// The limit of the `frame` module.
const MAX_HEAD_BYTES: u64 = 16 << 20;
/// Bodies up to this size are read and larger ones skipped, to limit the memory of the check.
const MAX_READ: usize = 16 << 20;

pub fn check(data: &[u8]) {
    for pieces in [usize::MAX, 1, 7, 13] {
        check_in_pieces(data, pieces);
    }
}

fn check_in_pieces(data: &[u8], pieces: usize) {
    let mut from = InPieces {
        data,
        pieces,
        interrupt: false,
    };
    // The first read returns an interruption to its caller, whose loop expects that.
    let incoming = match Incoming::read(&mut from) {
        Err(e) if e.kind() == ErrorKind::Interrupted => Incoming::read(&mut from),
        other => other,
    };
    let number = |range: std::ops::Range<usize>| {
        let bytes = data.get(range)?.iter().rev();
        Some(bytes.fold(0, |number, &byte| (number << 8) | u64::from(byte)))
    };
    let (Some(head), Some(body)) = (number(0..4), number(4..12)) else {
        match incoming {
            Ok(None) => assert!(data.is_empty()),
            Ok(Some(_)) => panic!("a frame without a complete prefix"),
            Err(e) => assert_eq!(e.kind(), ErrorKind::UnexpectedEof),
        }
        return;
    };
    if head > MAX_HEAD_BYTES || body > MAX_BODY_BYTES as u64 {
        assert_eq!(
            incoming.expect_err("too long").kind(),
            ErrorKind::InvalidData
        );
        return;
    }
    let (head, body) = (head as usize, body as usize);
    let Some(behind) = data.get(PREFIX_BYTES + head..) else {
        assert_eq!(
            incoming.expect_err("cut off").kind(),
            ErrorKind::UnexpectedEof
        );
        return;
    };
    let incoming = match incoming {
        Ok(incoming) => incoming.expect("a frame"),
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::InvalidData);
            assert!(
                behind.len() > body,
                "refused although nothing follows the body: {e}"
            );
            return;
        }
    };
    assert_eq!(incoming.body_length, body);
    assert!(behind.starts_with(incoming.body_start()) && incoming.body_start().len() <= body);

    check_head::<Answer>(&incoming);
    check_head::<Call>(&incoming);
    if let Ok(answer) = incoming.head::<Answer>() {
        answer.number();
    }
    if let Ok(call) = incoming.head::<Call>() {
        call.number();
    }

    let result = if body <= MAX_READ {
        let mut read = vec![0; body];
        let result = incoming.read_body(&mut from, &mut read);
        if result.is_ok() {
            assert_eq!(read, behind[..body]);
        }
        result
    } else {
        incoming.skip_body(&mut from)
    };
    match result {
        Ok(()) => assert!(behind.len() >= body),
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::UnexpectedEof);
            assert!(behind.len() < body);
        }
    }
}

/// A head that can be read can also be written, and reads back unchanged.
fn check_head<'a, T: Serialize + Deserialize<'a> + PartialEq + std::fmt::Debug>(
    incoming: &'a Incoming,
) {
    let Ok(head) = incoming.head::<T>() else {
        return;
    };
    let mut written = Vec::new();
    write(&mut written, &head, b"body").expect("memory can be written to");
    let again = Incoming::read(&written[..])
        .expect("a frame")
        .expect("a frame");
    assert_eq!(again.body_start(), b"body");
    let text = |incoming: &Incoming| incoming.head::<serde_json::Value>().expect("JSON");
    let rewritten = serde_json::to_value(&head).expect("heads are JSON");
    assert_eq!(text(&again), rewritten);
}

/// Returns at most `pieces` bytes at a time, and an interruption before each piece.
struct InPieces<'a> {
    data: &'a [u8],
    pieces: usize,
    interrupt: bool,
}

impl Read for InPieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupt = !self.interrupt && self.pieces < usize::MAX;
        if self.interrupt {
            return Err(ErrorKind::Interrupted.into());
        }
        let limit = self.pieces.min(buffer.len());
        self.data.read(&mut buffer[..limit])
    }
}
