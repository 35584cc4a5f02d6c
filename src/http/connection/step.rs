//! What a connection says that it needs, and what it is told of a request that wants to come.

use std::time::{Duration, Instant};

use crate::budget::Buffer;
use crate::error::RequestError;
use crate::http::body::BodyDecoder;
use crate::http::head::Head;

/// A request that has arrived as a whole.
#[derive(Debug)]
pub struct Arrived {
    /// Its head.
    pub head: Head,
    /// Its body; empty when nobody wants it.
    pub body: Buffer,
    /// When its head was there.
    pub received: Instant,
}

/// What the connection needs to go on.
#[derive(Debug)]
pub enum Step<P> {
    /// More bytes from the client.
    Read,
    /// The client to take bytes.
    Write,
    /// An answer to this request, planned like this, by [`Connection::answer`](super::Connection::answer).
    Request(Box<Arrived>, P),
    /// An answer to this mistake, by [`Connection::answer`](super::Connection::answer). The head, where there is one.
    Refused(Option<Box<Head>>, RequestError),
    /// Nothing: it is over.
    Close,
    /// Its turn again, after others: it has more to do.
    Again,
    /// Nothing: somebody else has its request.
    Busy,
}

/// Whether a request may come.
#[derive(Debug)]
pub enum Admission<P> {
    /// It may.
    Admitted {
        /// Its body, of which nothing has been taken yet.
        body: BodyDecoder,
        /// How long that may take, from the end of the head.
        limit: Duration,
        /// What is planned for it.
        plan: P,
    },
    /// It may not.
    Refused {
        error: RequestError,
        /// Its body, when the connection can go on behind that.
        rest: Option<BodyDecoder>,
    },
}

/// Says whether a request may come, by its head and by what has arrived behind it.
pub type Admit<'a, P> = &'a dyn Fn(&Head, &Buffer) -> Admission<P>;
