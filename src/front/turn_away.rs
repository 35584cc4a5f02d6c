//! Answers 503 to requests there is no room for, without ever blocking the worker that received them.
//!
//! A request whose body is at hand gets prepared bytes. One whose body is still to come is answered on a thread
//! of its own kind: tiny_http reads such a body to its end before the connection goes on, at the client's pace.

use std::io::Write;
use std::thread;

use crossbeam_channel::{Sender, unbounded};
use tiny_http::{Header, Request, Response};

use crate::error::{RequestError, StartError};
use crate::front::answer::{self, Answer};

/// Threads that wait for bodies nobody wants.
const THREADS: usize = 4;
/// Seconds after which clients may try again.
const RETRY_AFTER: (&str, &str) = ("Retry-After", "1");

/// The prepared answer, and the way to the threads.
pub struct TurnAway {
    /// Unbounded: each request in it has a connection, with a thread, of its own.
    waiting: Sender<Request>,
    prepared: Vec<u8>,
}

impl TurnAway {
    /// Starts the threads.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start() -> Result<Self, StartError> {
        let (waiting, receive) = unbounded::<Request>();
        for index in 0..THREADS {
            let receive = receive.clone();
            thread::Builder::new()
                .name(format!("turn-away-{index}"))
                .spawn(move || receive.iter().for_each(respond))
                .map_err(|e| StartError::failed(format!("cannot start a thread: {e}")))?;
        }
        let answer = Answer::from(error());
        let mut prepared = answer::head(&answer, None);
        prepared.extend_from_slice(&answer.body);
        Ok(Self { waiting, prepared })
    }

    /// Answers `request`, now if its body is at hand, else as soon as a thread is free.
    pub fn turn_away(&self, request: Request, body_is_at_hand: bool) {
        if body_is_at_hand {
            let mut writer = request.into_writer();
            // The client may be gone, which is fine.
            let _ = writer
                .write_all(&self.prepared)
                .and_then(|()| writer.flush());
        } else {
            // The threads live as long as the process.
            let _ = self.waiting.send(request);
        }
    }
}

/// Answers first and drains then, which is the order of tiny_http's own `respond`.
fn respond(request: Request) {
    let error = error();
    let header =
        |(name, value): (&str, &str)| Header::from_bytes(name, value).expect("the header is ASCII");
    let response = Response::from_data(error.to_json())
        .with_status_code(error.status)
        .with_header(header(("Content-Type", "application/json")))
        .with_header(header(RETRY_AFTER));
    let _ = request.respond(response);
}

fn error() -> RequestError {
    RequestError {
        header: Some(RETRY_AFTER),
        ..RequestError::new(503, "Too many requests are waiting; try again.")
    }
}
