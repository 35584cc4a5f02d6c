//! One call and its answer on a channel.
//!
//! It can be left at any point, also in the middle of a frame, and finished elsewhere. So neither a deadline nor a client's
//! hanging up waits for the worker, which may be busy or stopped for minutes.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;

use crate::budget::{Buffer, NoRoom};
use crate::wait::{Stream, WaitError};
use crate::worker_protocol::frame::{Answer, Call, Incoming, Outgoing};

/// The text of an exception may have all of a request in it, but clients are shown little of an error.
const MAX_RAISED_BYTES: usize = 64 << 10;

/// What became of a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has an answer.
    Answered(Reply),
    /// The wait ended before the answer was there, for this reason. The channel can be used again once
    /// [`super::WorkerChannels::finish`] has sent and read what is left.
    Abandoned(WaitError),
    /// There is no memory for its answer.
    NoRoom(NoRoom),
    /// It cannot be sent, for this reason. The channel is as it was.
    Broken(String),
    /// Something other than its answer arrived, for this reason, and the channel is closed.
    /// [`super::WorkerChannels::fate`] says whether the call had begun; if it had not, it never will.
    Garbled(String),
    /// The process ended. Whether the call had begun is for [`super::WorkerChannels::fate`] to say.
    Lost,
}

/// A worker's answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// `input_handler` returned.
    ForModelServer {
        /// The body's type.
        content_type: String,
        /// The body.
        body: Buffer,
    },
    /// `output_handler` or `handler` returned.
    ForClient {
        /// The body's type.
        content_type: String,
        /// The body.
        body: Buffer,
    },
    /// The function raised an exception with this text.
    Raised(String),
}

/// A call that is being sent, or whose answer is awaited or being read.
#[derive(Debug)]
pub(super) struct RoundTrip<'a> {
    number: u64,
    call: Outgoing<'a>,
    answer: Incoming,
    /// Bytes of the answer's body that were read.
    read: usize,
}

impl<'a> RoundTrip<'a> {
    /// A call of which nothing is sent yet.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub(super) fn new(number: u64, head: &Call, body: &'a [u8]) -> io::Result<Self> {
        Ok(Self {
            number,
            call: Outgoing::new(head, body)?,
            answer: Incoming::default(),
            read: 0,
        })
    }

    /// Sends the call and waits for its answer, which is counted where `memory` is.
    ///
    /// # Errors
    /// As the stream. When a wait ended early, the call can be abandoned; after any other error the channel is of no more
    /// use.
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

    /// What is left to do when nobody waits for the answer any more and the call is cancelled in the record. It does without
    /// the call's body: the worker looks at the record once it has read all of the body, and ignores it.
    pub(super) fn abandon(self) -> Abandoned {
        let Self {
            call, answer, read, ..
        } = self;
        let call = call.without_body();
        Abandoned { call, answer, read }
    }
}

/// A cancelled call that leaves something to be sent or read.
#[derive(Debug)]
pub(super) struct Abandoned {
    call: Outgoing<'static>,
    answer: Incoming,
    read: usize,
}

impl Abandoned {
    /// Sends what is left of the call, and reads over what is left of its answer.
    ///
    /// # Errors
    /// As the stream; when the worker has closed the channel.
    pub(super) fn finish(mut self, stream: &mut Stream<UnixStream>) -> io::Result<()> {
        self.call.write(&mut *stream)?;
        if !self.answer.read_head(&mut *stream)? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.answer.skip_rest(stream, &mut self.read)
    }
}

/// The answer to call `number`.
fn reply(answer: Answer, number: u64, body: Buffer) -> io::Result<Reply> {
    if answer.number() != number {
        let text = format!("call {number} got the answer to call {}", answer.number());
        return Err(io::Error::new(ErrorKind::InvalidData, text));
    }
    Ok(match answer {
        Answer::ForModelServer { content_type, .. } => Reply::ForModelServer {
            content_type: content_type.into_owned(),
            body,
        },
        Answer::ForClient { content_type, .. } => Reply::ForClient {
            content_type: content_type.into_owned(),
            body,
        },
        Answer::Raised { .. } => {
            let text = &body[..body.len().min(MAX_RAISED_BYTES)];
            Reply::Raised(String::from_utf8_lossy(text).into_owned())
        }
        Answer::Loaded { .. } | Answer::Failed => {
            return Err(ErrorKind::InvalidData.into());
        }
    })
}
