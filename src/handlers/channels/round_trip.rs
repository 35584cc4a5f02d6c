//! One call and its answer on a channel.
//!
//! A request can abandon its round trip at any point, even in the middle of a frame, and another thread finishes it. So
//! a request whose deadline passes or whose client hangs up never waits for the worker, which may be busy or stopped
//! for minutes.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;

use crate::budget::{Buffer, NoRoom};
use crate::wait::{Stream, WaitError};
use crate::worker_protocol::frame::{Answer, Call, Headers, Incoming, Outgoing};

/// Maximum length of an exception text, bytes; the rest is dropped. The text may contain a whole request, but clients
/// see little of an error.
const MAX_RAISED_BYTES: usize = 64 << 10;

/// The outcome of a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer arrived.
    Answered(Reply),
    /// The wait ended before the answer arrived, for this reason. The channel can be used again once
    /// [`super::WorkerChannels::finish`] has finished the call.
    Abandoned(WaitError),
    /// The answer arrived, but no memory was left for it.
    NoRoom(NoRoom),
    /// The call cannot be sent, for this reason. The channel is unchanged.
    Broken(String),
    /// Bytes other than the answer arrived, with this error, and the channel is closed. [`super::WorkerChannels::fate`]
    /// says whether the call had begun; if not, it never will.
    Garbled(String),
    /// The process ended. [`super::WorkerChannels::fate`] says whether the call had begun.
    Lost,
}

/// The content of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// `input_handler` returned.
    ForModelServer {
        /// Content type of the body.
        content_type: String,
        /// The body of the request to TensorFlow Serving.
        body: Buffer,
    },
    /// `output_handler` or `handler` returned.
    ForClient {
        /// Content type of the body.
        content_type: String,
        /// Headers that the function adds.
        headers: Vec<(String, String)>,
        /// The body of the response to the client.
        body: Buffer,
    },
    /// The function raised an exception with this text, which chooses this HTTP status if it chooses one.
    Raised(String, Option<u16>),
    /// The function raised an exception that chooses the HTTP status and the body.
    Refused {
        /// The HTTP status.
        status: u16,
        /// Headers that the exception adds.
        headers: Vec<(String, String)>,
        /// The body, JSON.
        body: Buffer,
    },
}

/// A call that is being sent, or whose answer is awaited or being read.
#[derive(Debug)]
pub(super) struct RoundTrip<'a> {
    number: u64,
    call: Outgoing<'a>,
    answer: Incoming,
    /// The number of bytes read of the answer's body.
    read: usize,
}

impl<'a> RoundTrip<'a> {
    /// The round trip of a call of which nothing is sent yet.
    ///
    /// # Errors
    /// When the call cannot be sent, because its head is too long.
    pub(super) fn new(number: u64, head: &Call, body: &'a [u8]) -> io::Result<Self> {
        Ok(Self {
            number,
            call: Outgoing::new(head, body)?,
            answer: Incoming::default(),
            read: 0,
        })
    }

    /// Sends the call and waits for its answer, whose body counts towards the memory of the request that `memory`
    /// belongs to.
    ///
    /// # Errors
    /// Those of the stream. When a wait ended early, the call can be abandoned; after any other error the channel is
    /// useless.
    pub(super) fn run(
        &mut self,
        stream: &mut Stream<UnixStream>,
        memory: &Buffer,
    ) -> io::Result<Outcome> {
        self.call.write(&mut *stream)?;
        stream.wait_for_input()?;
        if !self.answer.read_head(&mut *stream)? {
            return Ok(Outcome::Lost);
        }
        let mut body = memory.sibling();
        if let Err(why) = body.reserve_exact(self.answer.body_length) {
            self.answer.skip_rest(stream, &mut self.read)?;
            return Ok(Outcome::NoRoom(why));
        }
        body.bytes_mut().resize(self.answer.body_length, 0);
        (self.answer).read_rest(stream, body.bytes_mut(), &mut self.read)?;
        reply(self.answer.head()?, self.number, body).map(Outcome::Answered)
    }

    /// The rest of a round trip whose call is cancelled in the record. It does not need the call's body: the worker
    /// looks at the record after it has read the body, and ignores the body of a cancelled call.
    pub(super) fn abandon(self) -> Abandoned {
        let Self {
            call, answer, read, ..
        } = self;
        let call = call.without_body();
        Abandoned { call, answer, read }
    }
}

/// The rest of a cancelled call: bytes to send and an answer to skip.
#[derive(Debug)]
pub(super) struct Abandoned {
    call: Outgoing<'static>,
    answer: Incoming,
    read: usize,
}

impl Abandoned {
    /// Sends the rest of the call and skips the rest of its answer.
    ///
    /// # Errors
    /// Those of the stream; `UnexpectedEof` when the worker has closed the channel.
    pub(super) fn finish(mut self, stream: &mut Stream<UnixStream>) -> io::Result<()> {
        self.call.write(&mut *stream)?;
        if !self.answer.read_head(&mut *stream)? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.answer.skip_rest(stream, &mut self.read)
    }
}

/// The content of the answer to call `number`.
///
/// # Errors
/// `InvalidData` when the answer belongs to another call or to no call.
fn reply(answer: Answer, number: u64, body: Buffer) -> io::Result<Reply> {
    if answer.number() != number {
        let text = format!("call {number} got the response to call {}", answer.number());
        return Err(io::Error::new(ErrorKind::InvalidData, text));
    }
    Ok(match answer {
        Answer::ForModelServer { content_type, .. } => Reply::ForModelServer {
            content_type: content_type.into_owned(),
            body,
        },
        Answer::ForClient {
            content_type,
            headers,
            ..
        } => Reply::ForClient {
            content_type: content_type.into_owned(),
            headers: owned(headers),
            body,
        },
        Answer::Raised { status, .. } => {
            let text = &body[..body.len().min(MAX_RAISED_BYTES)];
            Reply::Raised(String::from_utf8_lossy(text).into_owned(), status)
        }
        Answer::Refused {
            status, headers, ..
        } => Reply::Refused {
            status,
            headers: owned(headers),
            body,
        },
        Answer::Loaded { .. } | Answer::Failed => {
            return Err(ErrorKind::InvalidData.into());
        }
    })
}

fn owned(headers: Headers) -> Vec<(String, String)> {
    let pairs = headers.into_iter();
    pairs
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}
