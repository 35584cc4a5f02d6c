//! The interface between a connection and its worker: what the connection needs next, and whether it may accept a
//! request.

use std::time::{Duration, Instant};

use crate::budget::Buffer;
use crate::error::RequestError;
use crate::http::body::BodyDecoder;
use crate::http::head::Head;

/// A request that has arrived completely.
#[derive(Debug)]
pub struct Arrived {
    /// The head.
    pub head: Head,
    /// The body; empty if the route discards it.
    pub body: Buffer,
    /// When the head was complete.
    pub received: Instant,
}

/// What a connection needs next.
#[derive(Debug)]
pub enum Step<P> {
    /// The client has to send more bytes.
    Read,
    /// The client has to read, so that more bytes can be sent.
    Write,
    /// The worker has to run this request by its plan, and respond with
    /// [`Connection::answer`](super::Connection::answer).
    Request(Box<Arrived>, P),
    /// The worker has to respond with this error by [`Connection::answer`](super::Connection::answer). The head is
    /// there if it could be read.
    Refused(Option<Box<Head>>, RequestError),
    /// The connection has ended: the worker removes it.
    Close,
    /// The connection has more to do, and needs another turn after other connections.
    Again,
    /// Nothing: its request is running or waits for a slot.
    Busy,
}

/// The decision whether to accept a request.
#[derive(Debug)]
pub enum Admission<P> {
    /// The request is accepted.
    Admitted {
        /// The decoder for its body, which has decoded nothing yet.
        body: BodyDecoder,
        /// How long the body may take to arrive, from the end of the head.
        limit: Duration,
        /// The plan for the request.
        plan: P,
    },
    /// The request is refused.
    Refused {
        /// The error to respond with.
        error: RequestError,
        /// The decoder that discards its body, if the connection can continue after that.
        rest: Option<BodyDecoder>,
    },
}

/// Decides whether to accept a request, by its head and the bytes that have arrived after the head.
pub type Admit<'a, P> = &'a dyn Fn(&Head, &Buffer) -> Admission<P>;
