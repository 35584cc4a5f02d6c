//! The state machine of one connection: receives heads and bodies, sends responses, and decides when the connection
//! ends.
//!
//! It works on bytes and never blocks. It reaches its socket only through [`Stream`], and knows neither threads nor
//! routes. [`Connection::advance`] proceeds as far as the available bytes allow and returns the [`Step`] that it needs
//! next. The submodules hold receiving (`receiving.rs`), time limits (`timing.rs`) and the interfaces to the worker
//! (`step.rs`) and the socket (`stream.rs`).

use std::io::{self, ErrorKind, IoSlice};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::budget::{Budget, Buffer};
use crate::error::RequestError;
use crate::http::body::{self, BodyDecoder};
use crate::http::head::{self, Head, Scanner};
use crate::http::response::ResponseWriter;

mod receiving;
mod step;
mod stream;
mod timing;

use receiving::READ_BYTES;
pub use step::{Admission, Admit, Arrived, Step};
use stream::send_some;
pub use stream::{Direction, Stream};
pub use timing::Dispensable;
use timing::reading_time;

/// Bytes read in one turn, before other connections get theirs.
const TURN_BYTES: usize = 1 << 20;
/// This much of an incomplete head does not count against the memory budget, so that small requests are served even
/// when bodies use all the memory. Complete heads count only if they exceed [`READ_BYTES`].
const UNCOUNTED_HEAD_BYTES: usize = 1024;

/// What the connection does after sending a response.
#[derive(Debug)]
enum AfterResponse {
    /// Reads the next request.
    Head,
    /// Discards the rest of this body, then reads the next request.
    Skip(BodyDecoder),
    /// Ends, once the client has ended it too or has had time to read the response. `sends`: the client may still be
    /// sending its request.
    Linger { sends: bool },
}

/// What the connection is doing.
#[derive(Debug)]
enum Phase<P> {
    /// Waits for a head or receives one.
    Head,
    /// Receives a body.
    Body {
        head: Box<Head>,
        body: BodyDecoder,
        received: Instant,
        limit: Duration,
        plan: P,
    },
    /// Waits for the response. `is_whole`: the whole request has arrived.
    Busy { is_whole: bool },
    /// Sends the response.
    Response {
        writer: ResponseWriter,
        then: AfterResponse,
    },
    /// Discards the rest of a body whose request already has its response.
    Skip(BodyDecoder),
    /// Has ended its own side, and discards what the client still sends.
    Linger { sends: bool },
    /// Neither reads nor sends any more.
    Closed,
}

/// The state machine of one connection; see the [module](self). `P` is the plan for a request.
#[derive(Debug)]
pub struct Connection<P> {
    /// Bytes that have arrived and are not consumed yet.
    input: Buffer,
    scanner: Scanner,
    phase: Phase<P>,
    /// The rest of an interim response, `100 Continue`, to send before anything else.
    interim: &'static [u8],
    /// The body to discard after refusing its head, if the connection can continue. Used by [`Connection::answer`].
    rest: Option<BodyDecoder>,
    /// Whether an empty line preceded this head.
    blank_line_seen: bool,
    /// When this phase began. For a head, when its first byte arrived.
    since: Instant,
    /// When bytes were last received or sent.
    last_progress: Instant,
    /// Time that the client may need to read the previous response, which may still be in socket buffers. All limits
    /// are longer by this, until the client sends another byte.
    grace: Duration,
    /// Whether the current request is a HEAD.
    is_head_request: bool,
    /// Whether the last read emptied the socket. If not, no event will announce the rest, because epoll is
    /// edge-triggered.
    is_drained: bool,
}

impl<P> Connection<P> {
    /// The state of a connection that was just accepted.
    pub fn new(now: Instant, budget: &Arc<Budget>) -> Self {
        Self {
            input: budget.arriving(READ_BYTES),
            scanner: Scanner::default(),
            phase: Phase::Head,
            interim: b"",
            rest: None,
            blank_line_seen: false,
            since: now,
            last_progress: now,
            grace: Duration::ZERO,
            is_head_request: false,
            is_drained: true,
        }
    }

    /// Whether closing the connection now loses nothing.
    pub fn is_idle(&self) -> bool {
        match self.phase {
            Phase::Head => self.input.is_empty(),
            Phase::Linger { sends } => !sends,
            Phase::Closed => true,
            Phase::Body { .. } | Phase::Busy { .. } | Phase::Response { .. } | Phase::Skip(_) => {
                false
            }
        }
    }

    /// Whether a request is waiting for its response.
    pub fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::Busy { .. })
    }

    /// Whether anything but blank lines has been read after the current request.
    pub fn has_next_request(&self) -> bool {
        !head::is_blank(&self.input)
    }

    /// Whether [`Connection::close`] ended the connection.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Whether the current request is a HEAD.
    pub fn is_head_request(&self) -> bool {
        self.is_head_request
    }

    /// Whether the client has sent anything after its request.
    pub fn has_more(&self, stream: &impl Stream) -> bool {
        !self.input.is_empty() || stream.is_ready(Direction::In)
    }

    /// Whether the socket is ready for what the connection waits for. The event for it may not have been handled yet.
    pub fn is_ready(&self, stream: &impl Stream) -> bool {
        stream.is_ready(match self.phase {
            Phase::Response { .. } => Direction::Out,
            _ => Direction::In,
        })
    }

    /// Proceeds as far as the socket allows, and returns what the connection needs next.
    pub fn advance(&mut self, stream: &impl Stream, admit: Admit<P>) -> Step<P> {
        let mut turn = TURN_BYTES;
        loop {
            match self.send(stream) {
                Ok(Sent::Nothing) => {}
                // Other connections get a turn first: a client may pipeline requests without end.
                Ok(Sent::Response) if !self.input.is_empty() || !self.is_drained => {
                    return Step::Again;
                }
                Ok(Sent::Response) => return self.wait_for_more(),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Step::Write,
                Err(_) => return Step::Close, // the client is gone
            }
            let found = match &mut self.phase {
                Phase::Head => self.find_request(admit),
                Phase::Body { .. } => self.decode_body(),
                Phase::Skip(body) => match body.take(&self.input) {
                    Ok(taken) => {
                        self.input.consume(taken);
                        if body.is_whole() {
                            self.enter(Phase::Head);
                            continue;
                        }
                        Ok(None)
                    }
                    // The client has had its response; there is nothing to add.
                    Err(_) => {
                        self.linger(stream, true);
                        Ok(None)
                    }
                },
                Phase::Linger { .. } => {
                    self.input.consume(self.input.len());
                    Ok(None)
                }
                Phase::Busy { .. } => return Step::Busy,
                Phase::Closed => return Step::Close,
                Phase::Response { .. } => unreachable!("`send` has sent the whole response"),
            };
            match found {
                Ok(Some(step)) => return step,
                Ok(None) if !self.interim.is_empty() => continue,
                Ok(None) => {}
                Err(error) => return self.refuse(error),
            }
            if turn == 0 {
                return Step::Again;
            }
            match self.receive(stream) {
                Err(error) => return self.refuse(error),
                Ok(Ok(0)) => return self.end_of_input(),
                Ok(Ok(amount)) => turn = turn.saturating_sub(amount),
                Ok(Err(e)) if e.kind() == ErrorKind::WouldBlock => return self.wait_for_more(),
                Ok(Err(e)) if e.kind() == ErrorKind::Interrupted => {}
                Ok(Err(_)) => return Step::Close,
            }
        }
    }

    /// Waits for the client, keeping no more memory than what has arrived: thousands of connections may be waiting.
    fn wait_for_more(&mut self) -> Step<P> {
        match self.input.settle(UNCOUNTED_HEAD_BYTES) {
            Ok(()) => Step::Read,
            Err(why) => self.refuse(body::no_room(why)),
        }
    }

    /// Starts sending the response to the request or error that [`Connection::advance`] or [`Connection::overdue`]
    /// returned last. Does nothing if that has a response already. `keep`: whether another request may follow.
    pub fn answer(&mut self, writer: ResponseWriter, keep: bool) {
        let Phase::Busy { is_whole } = self.phase else {
            return;
        };
        let then = match (self.rest.take(), keep) {
            (Some(rest), true) => AfterResponse::Skip(rest),
            (None, true) => AfterResponse::Head,
            (_, false) => AfterResponse::Linger { sends: !is_whole },
        };
        self.enter(Phase::Response { writer, then });
    }

    /// Ends the connection, whatever the client still sends.
    pub fn close(&mut self) {
        self.phase = Phase::Closed;
    }

    fn enter(&mut self, phase: Phase<P>) {
        self.phase = phase;
        self.since = Instant::now();
        self.last_progress = self.since;
        if matches!(self.phase, Phase::Head) {
            self.scanner = Scanner::default();
            self.blank_line_seen = false;
        }
    }

    fn linger(&mut self, stream: &impl Stream, sends: bool) {
        stream.finish();
        self.enter(Phase::Linger { sends });
    }

    /// Sends whatever is pending: an interim response, a response.
    fn send(&mut self, stream: &impl Stream) -> io::Result<Sent> {
        while !self.interim.is_empty() {
            let amount = send_some(stream, &[IoSlice::new(self.interim)])?;
            self.interim = &self.interim[amount..];
        }
        let Phase::Response { writer, .. } = &mut self.phase else {
            return Ok(Sent::Nothing);
        };
        while !writer.is_sent() {
            let amount = send_some(stream, &writer.parts())?;
            writer.advance(amount);
            self.last_progress = Instant::now();
        }
        let busy = Phase::Busy { is_whole: true };
        if let Phase::Response { writer, then } = mem::replace(&mut self.phase, busy) {
            let grace = reading_time(&writer);
            match then {
                AfterResponse::Head => self.enter(Phase::Head),
                AfterResponse::Skip(body) => self.enter(Phase::Skip(body)),
                AfterResponse::Linger { sends } => self.linger(stream, sends),
            }
            self.grace = grace;
        }
        Ok(Sent::Response)
    }

    /// Looks for a complete head in the bytes that have arrived.
    fn find_request(&mut self, admit: Admit<P>) -> Result<Option<Step<P>>, RequestError> {
        let end = loop {
            match self.scanner.find_end(&self.input)? {
                None => return Ok(None),
                // Ignore one empty line before a head: some clients send one after a body.
                Some(2) if !self.blank_line_seen => {
                    self.blank_line_seen = true;
                    self.input.consume(2);
                    self.scanner = Scanner::default();
                }
                Some(end) => break end,
            }
        };
        let bytes = self.input[..end].to_vec();
        self.input.consume(end);
        let mut head = Head::parse(bytes)?;
        if head.size() > READ_BYTES {
            let memory = self.input.reserve_arriving_outside(head.size());
            head.memory = memory.map_err(body::no_room)?;
        }
        let received = Instant::now();
        self.is_head_request = head.method() == "HEAD";
        match admit(&head, &self.input) {
            Admission::Admitted { body, limit, plan } => {
                let waits = head.expectations().next().is_some();
                if waits && !body.is_whole() && self.input.is_empty() {
                    self.interim = b"HTTP/1.1 100 Continue\r\n\r\n";
                }
                self.enter(Phase::Body {
                    head: Box::new(head),
                    body,
                    received,
                    limit,
                    plan,
                });
                self.decode_body()
            }
            Admission::Refused { error, rest } => {
                self.phase = Phase::Busy {
                    is_whole: rest.as_ref().is_some_and(BodyDecoder::is_whole),
                };
                self.rest = rest;
                Ok(Some(Step::Refused(Some(Box::new(head)), error)))
            }
        }
    }

    /// Decodes the part of the body that has arrived.
    fn decode_body(&mut self) -> Result<Option<Step<P>>, RequestError> {
        let Phase::Body { body, .. } = &mut self.phase else {
            return Ok(None);
        };
        let taken = body.take(&self.input)?;
        self.input.consume(taken);
        if !body.is_whole() {
            return Ok(None);
        }
        let Phase::Body {
            head,
            body,
            received,
            plan,
            ..
        } = mem::replace(&mut self.phase, Phase::Busy { is_whole: true })
        else {
            return Ok(None);
        };
        let request = Arrived {
            head: *head,
            body: body.into_bytes(),
            received,
        };
        Ok(Some(Step::Request(Box::new(request), plan)))
    }

    fn end_of_input(&mut self) -> Step<P> {
        match &self.phase {
            Phase::Head if self.input.is_empty() => Step::Close,
            Phase::Head => self.refuse(RequestError::ending(
                400,
                "The request ended before its head was complete.",
            )),
            Phase::Body { body, .. } => {
                let text = format!("The body ended after {body}.");
                self.refuse(RequestError::ending(400, text))
            }
            _ => Step::Close,
        }
    }

    /// The step that refuses the request whose body is being received; `None` if no body is.
    pub fn refuse_body(&mut self, error: impl FnOnce() -> RequestError) -> Option<Step<P>> {
        matches!(self.phase, Phase::Body { .. }).then(|| self.refuse(error()))
    }

    /// Returns an error to respond with. The connection ends after that response.
    fn refuse(&mut self, error: RequestError) -> Step<P> {
        self.rest = None;
        match mem::replace(&mut self.phase, Phase::Busy { is_whole: false }) {
            Phase::Body { head, .. } => Step::Refused(Some(head), error),
            _ => Step::Refused(None, error),
        }
    }
}

/// What [`Connection::send`] finished sending.
enum Sent {
    /// Nothing, or an interim response only.
    Nothing,
    /// A response.
    Response,
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::VecDeque;

    use super::timing::{
        EVICTION_GRACE, HEAD_LIMIT, IDLE_LIMIT, LINGER_LIMIT, SLOWEST_BYTES_A_SECOND, STALL_LIMIT,
        STOPPING_HEAD_LIMIT,
    };
    use super::*;
    use crate::budget::Budget;
    use crate::http::body;
    use crate::http::response::Response;

    /// A fake client: the pieces that it sends, and the bytes that it receives.
    #[derive(Default)]
    struct Client {
        sends: RefCell<VecDeque<Vec<u8>>>,
        has_ended: Cell<bool>,
        got: RefCell<Vec<u8>>,
        /// Bytes that it takes before writing blocks.
        takes: Cell<usize>,
        sees_our_end: Cell<bool>,
    }

    impl Client {
        fn new(sends: &[&[u8]]) -> Self {
            Self {
                sends: RefCell::new(sends.iter().map(|piece| piece.to_vec()).collect()),
                takes: Cell::new(usize::MAX),
                ..Self::default()
            }
        }

        fn got(&self) -> String {
            String::from_utf8(self.got.take()).unwrap()
        }
    }

    impl Stream for Client {
        fn receive(&self, bytes: &mut Vec<u8>) -> io::Result<usize> {
            match self.sends.borrow_mut().pop_front() {
                Some(piece) => {
                    bytes.extend_from_slice(&piece);
                    Ok(piece.len())
                }
                None if self.has_ended.get() => Ok(0),
                None => Err(ErrorKind::WouldBlock.into()),
            }
        }

        fn send(&self, parts: &[IoSlice]) -> io::Result<usize> {
            let bytes = parts
                .iter()
                .map(|part| part.to_vec())
                .collect::<Vec<_>>()
                .concat();
            let amount = bytes.len().min(self.takes.get());
            if amount == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.takes.set(self.takes.get() - amount);
            self.got.borrow_mut().extend_from_slice(&bytes[..amount]);
            Ok(amount)
        }

        fn is_ready(&self, direction: Direction) -> bool {
            match direction {
                Direction::In => !self.sends.borrow().is_empty() || self.has_ended.get(),
                Direction::Out => self.takes.get() > 0,
            }
        }

        fn finish(&self) {
            self.sees_our_end.set(true);
        }
    }

    /// Admits bodies of up to 1,000 bytes, and refuses the path `/busy`.
    fn admit(head: &Head, arrived: &Buffer) -> Admission<()> {
        let length = match body::length(head, 1000) {
            Ok(length) => length,
            Err(error) => return Admission::Refused { error, rest: None },
        };
        let body = |is_kept| BodyDecoder::new(length, is_kept, 1000, arrived.arriving_sibling());
        if head.target() == "/busy" {
            return Admission::Refused {
                error: RequestError::new(503, "busy"),
                rest: Some(body(false)),
            };
        }
        Admission::Admitted {
            body: body(true),
            limit: Duration::from_secs(60),
            plan: (),
        }
    }

    fn start() -> Connection<()> {
        Connection::new(Instant::now(), &Budget::new(1 << 20))
    }

    #[track_caller]
    fn request(step: Step<()>) -> Arrived {
        match step {
            Step::Request(request, ()) => *request,
            other => panic!("no request: {other:?}"),
        }
    }

    #[track_caller]
    fn status(step: &Step<()>) -> u16 {
        match step {
            Step::Refused(_, error) => error.status,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn writer() -> ResponseWriter {
        ResponseWriter::new(Response::empty(), None, true)
    }

    const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345";

    #[test]
    fn parses_a_request_split_at_any_point() {
        for piece in 1..=POST.len() {
            let pieces: Vec<_> = POST.chunks(piece).collect();
            let client = Client::new(&pieces);
            let mut connection = start();
            let request = request(connection.advance(&client, &admit));
            assert_eq!(
                (request.head.target(), &request.body[..]),
                ("/", &b"12345"[..])
            );
            assert!(matches!(connection.advance(&client, &admit), Step::Busy));
            connection.answer(writer(), true);
            let mut step = connection.advance(&client, &admit);
            if matches!(step, Step::Again) {
                // The last piece filled the buffer exactly, so there may be more to read.
                step = connection.advance(&client, &admit);
            }
            assert!(matches!(step, Step::Read));
            assert!(client.got().starts_with("HTTP/1.1 200 OK\r\n"));
            assert!(connection.is_idle());
        }
    }

    #[test]
    fn handles_pipelined_requests_in_order() {
        let both = [POST, b"\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
        let client = Client::new(&[&both]);
        let mut connection = start();
        assert_eq!(
            &*request(connection.advance(&client, &admit)).body,
            b"12345"
        );
        connection.answer(writer(), true);
        assert!(matches!(connection.advance(&client, &admit), Step::Again));
        let second = request(connection.advance(&client, &admit));
        assert_eq!(second.head.target(), "/second");
    }

    #[test]
    fn sends_a_response_as_the_client_reads_it() {
        let client = Client::new(&[POST]);
        let mut connection = start();
        request(connection.advance(&client, &admit));
        let response = writer();
        let size = response.size();
        client.takes.set(0);
        connection.answer(response, true);
        for taken in 0..size {
            assert!(matches!(connection.advance(&client, &admit), Step::Write));
            assert_eq!(client.got.borrow().len(), taken);
            assert!(!connection.is_idle());
            client.takes.set(1);
        }
        assert!(matches!(connection.advance(&client, &admit), Step::Read));
    }

    #[test]
    fn ends_its_side_after_the_last_response_and_waits_for_the_clients_end() {
        let client = Client::new(&[POST]);
        let mut connection = start();
        request(connection.advance(&client, &admit));
        connection.answer(writer(), false);
        assert!(matches!(connection.advance(&client, &admit), Step::Read));
        assert!(client.sees_our_end.get());
        client.sends.borrow_mut().push_back(POST.to_vec());
        assert!(matches!(connection.advance(&client, &admit), Step::Read));
        client.has_ended.set(true);
        assert!(matches!(connection.advance(&client, &admit), Step::Close));
    }

    #[test]
    fn finds_the_next_request_after_a_refused_body() {
        let busy = b"POST /busy HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12";
        let client = Client::new(&[busy, b"345", POST]);
        let mut connection = start();
        assert_eq!(status(&connection.advance(&client, &admit)), 503);
        connection.answer(writer(), true);
        assert!(matches!(connection.advance(&client, &admit), Step::Again));
        assert_eq!(
            &*request(connection.advance(&client, &admit)).body,
            b"12345"
        );
    }

    #[test]
    fn sends_100_continue_when_the_client_expects_it() {
        let head =
            b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
        let client = Client::new(&[head]);
        let mut connection = start();
        assert!(matches!(connection.advance(&client, &admit), Step::Read));
        assert_eq!(client.got(), "HTTP/1.1 100 Continue\r\n\r\n");
        client.sends.borrow_mut().push_back(b"12345".to_vec());
        assert_eq!(
            &*request(connection.advance(&client, &admit)).body,
            b"12345"
        );
    }

    #[test]
    fn returns_400_for_a_truncated_request() {
        for end in 1..POST.len() {
            let client = Client::new(&[&POST[..end]]);
            client.has_ended.set(true);
            let mut connection = start();
            assert_eq!(status(&connection.advance(&client, &admit)), 400, "{end}");
        }
        let client = Client::new(&[]);
        client.has_ended.set(true);
        assert!(matches!(start().advance(&client, &admit), Step::Close));
    }

    #[test]
    fn ignores_one_empty_line_before_a_head_but_not_two() {
        let client = Client::new(&[b"\r\n", POST]);
        request(start().advance(&client, &admit));
        let client = Client::new(&[b"\r\n", b"\r\n", POST]);
        assert_eq!(status(&start().advance(&client, &admit)), 400);
    }

    /// A pause that ended too long ago to matter.
    fn long_ago() -> Instant {
        Instant::now() - Duration::from_secs(3600)
    }

    fn after(limit: Duration) -> Instant {
        Instant::now() + limit
    }

    #[test]
    fn gives_up_when_a_time_limit_passes() {
        let nobody = Client::new(&[]);
        let mut idle = start();
        assert!(
            idle.overdue(&nobody, after(IDLE_LIMIT / 2), long_ago(), false)
                .is_none()
        );
        let step = idle.overdue(&nobody, after(IDLE_LIMIT), long_ago(), false);
        assert!(matches!(step, Some(Step::Close)));
        let client = Client::new(&[POST]);
        assert!(matches!(idle.advance(&client, &admit), Step::Close));

        for (sent, limit, is_stopping) in [
            (&POST[..10], HEAD_LIMIT, false),
            (&POST[..10], STOPPING_HEAD_LIMIT, true),
            (&POST[..POST.len() - 1], Duration::from_secs(60), false),
        ] {
            let client = Client::new(&[sent]);
            let mut connection = start();
            assert!(matches!(connection.advance(&client, &admit), Step::Read));
            let step = connection.overdue(&client, after(limit / 2), long_ago(), is_stopping);
            assert!(step.is_none());
            let step = connection.overdue(&client, after(limit), long_ago(), is_stopping);
            assert_eq!(status(&step.unwrap()), 408);
        }

        let client = Client::new(&[POST]);
        let mut connection = start();
        request(connection.advance(&client, &admit));
        let step = connection.overdue(&client, after(10 * STALL_LIMIT), long_ago(), false);
        assert!(step.is_none());
        client.takes.set(0);
        connection.answer(writer(), true);
        assert!(matches!(connection.advance(&client, &admit), Step::Write));
        let step = connection.overdue(&client, after(STALL_LIMIT / 2), long_ago(), false);
        assert!(step.is_none());
        let step = connection.overdue(&client, after(STALL_LIMIT), long_ago(), false);
        assert!(matches!(step, Some(Step::Close)));
    }

    #[test]
    fn bytes_that_have_arrived_are_never_too_late() {
        for sent in [&b""[..], &POST[..10], &POST[..POST.len() - 1]] {
            let pieces = if sent.is_empty() { vec![] } else { vec![sent] };
            let client = Client::new(&pieces);
            let mut connection = start();
            assert!(matches!(connection.advance(&client, &admit), Step::Read));
            // The rest arrived before the limits were checked.
            client
                .sends
                .borrow_mut()
                .push_back(POST[sent.len()..].to_vec());
            let step = connection.overdue(&client, after(1000 * STALL_LIMIT), long_ago(), false);
            assert!(matches!(step, Some(Step::Again)), "{sent:?}");
            assert_eq!(
                &*request(connection.advance(&client, &admit)).body,
                b"12345"
            );
        }
        // The same for a client that resumed reading.
        let client = Client::new(&[POST]);
        let mut connection = start();
        request(connection.advance(&client, &admit));
        client.takes.set(0);
        connection.answer(writer(), true);
        assert!(matches!(connection.advance(&client, &admit), Step::Write));
        client.takes.set(usize::MAX);
        let step = connection.overdue(&client, after(1000 * STALL_LIMIT), long_ago(), false);
        assert!(matches!(step, Some(Step::Again)));
        assert!(matches!(connection.advance(&client, &admit), Step::Read));
    }

    #[test]
    fn closes_when_a_client_keeps_sending_after_its_last_response() {
        let client = Client::new(&[POST]);
        let mut connection = start();
        request(connection.advance(&client, &admit));
        connection.answer(writer(), false);
        assert!(matches!(connection.advance(&client, &admit), Step::Read));
        client.sends.borrow_mut().push_back(POST.to_vec());
        let step = connection.overdue(&client, after(LINGER_LIMIT / 10), long_ago(), false);
        assert!(step.is_none());
        let step = connection.overdue(&client, after(LINGER_LIMIT), long_ago(), false);
        assert!(matches!(step, Some(Step::Close)));
    }

    #[test]
    fn a_pause_of_the_server_does_not_count_against_the_client() {
        for sent in [&POST[..10], &POST[..POST.len() - 1]] {
            let client = Client::new(&[sent]);
            let mut connection = start();
            assert!(matches!(connection.advance(&client, &admit), Step::Read));
            let pause = after(2 * STALL_LIMIT);
            let mut overdue = |now| connection.overdue(&client, now, pause, false);
            assert!(overdue(pause).is_none());
            assert!(overdue(pause + HEAD_LIMIT / 2).is_none());
            assert_eq!(status(&overdue(pause + STALL_LIMIT).unwrap()), 408);
        }
    }

    #[test]
    fn after_a_large_response_limits_start_with_the_next_byte() {
        const SIZE: usize = 10 << 20;
        let body_time = Duration::from_secs(60);
        for (pipelined, limit) in [
            (&POST[..10], HEAD_LIMIT),
            (&POST[..POST.len() - 1], body_time),
        ] {
            let client = Client::new(&[&[POST, pipelined].concat()]);
            let mut connection = start();
            request(connection.advance(&client, &admit));
            let large = Response::json(200, vec![b'x'; SIZE]);
            connection.answer(ResponseWriter::new(large, None, true), true);
            assert!(matches!(connection.advance(&client, &admit), Step::Again));
            assert!(matches!(connection.advance(&client, &admit), Step::Read));
            let reading = Duration::from_secs(SIZE as u64 / SLOWEST_BYTES_A_SECOND);
            let step = connection.overdue(&client, after(limit + reading / 2), long_ago(), false);
            assert!(step.is_none(), "the client is still reading");
            let step = connection.overdue(&client, after(limit + reading), long_ago(), false);
            assert_eq!(status(&step.unwrap()), 408, "but not forever");
        }
        let client = Client::new(&[&[POST, &POST[..POST.len() - 2]].concat()]);
        let mut connection = start();
        request(connection.advance(&client, &admit));
        let large = Response::json(200, vec![b'x'; SIZE]);
        connection.answer(ResponseWriter::new(large, None, true), true);
        assert!(matches!(connection.advance(&client, &admit), Step::Again));
        assert!(matches!(connection.advance(&client, &admit), Step::Read));
        client.sends.borrow_mut().push_back(b"4".to_vec());
        assert!(matches!(connection.advance(&client, &admit), Step::Read));
        let step = connection.overdue(&client, after(body_time), long_ago(), false);
        assert_eq!(
            status(&step.unwrap()),
            408,
            "the client has read its response"
        );
    }

    #[test]
    fn idle_connections_are_dispensable_first_and_busy_ones_never() {
        let now = || Instant::now() + 2 * EVICTION_GRACE;
        let found =
            |connection: &Connection<()>, now| connection.dispensable(now).map(|(what, _)| what);
        let mut connection = start();
        assert_eq!(found(&connection, Instant::now()), None, "it may be in use");
        assert_eq!(found(&connection, now()), Some(Dispensable::Idle));
        for (sent, expected) in [
            (&POST[..10], Dispensable::Head),
            (&POST[..POST.len() - 1], Dispensable::SlowBody),
        ] {
            let client = Client::new(&[sent]);
            connection = start();
            assert!(matches!(connection.advance(&client, &admit), Step::Read));
            assert_eq!(found(&connection, now()), Some(expected));
        }
        let client = Client::new(&[POST]);
        connection = start();
        request(connection.advance(&client, &admit));
        assert_eq!(found(&connection, now()), None);
        client.takes.set(0);
        connection.answer(writer(), true);
        assert!(matches!(connection.advance(&client, &admit), Step::Write));
        assert_eq!(found(&connection, now()), Some(Dispensable::SlowReader));
        assert!(Dispensable::Idle < Dispensable::Head);
        assert!(Dispensable::Head < Dispensable::SlowBody);
        assert!(Dispensable::SlowBody < Dispensable::SlowReader);
    }

    #[test]
    fn a_body_is_slow_if_its_average_rate_is() {
        let head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n";
        for (sent, is_slow) in [(999, false), (3, true)] {
            let client = Client::new(&[head, &vec![b'x'; sent]]);
            let mut connection = start();
            assert!(matches!(connection.advance(&client, &admit), Step::Read));
            let Phase::Body { received, .. } = &mut connection.phase else {
                panic!("no body");
            };
            // The body began this long ago; its last byte has just arrived.
            *received -= Duration::from_secs(if is_slow { 30 } else { 0 });
            connection.last_progress = Instant::now() + EVICTION_GRACE;
            let found = connection.dispensable(Instant::now() + EVICTION_GRACE / 2);
            assert_eq!(found.is_some(), is_slow);
        }
    }

    #[test]
    fn drops_a_second_response_to_the_same_request() {
        let client = Client::new(&[POST]);
        let mut connection = start();
        request(connection.advance(&client, &admit));
        connection.answer(
            ResponseWriter::new(RequestError::new(503, "x").into(), None, false),
            false,
        );
        assert!(matches!(connection.advance(&client, &admit), Step::Read));
        let got = client.got();
        assert!(got.starts_with("HTTP/1.1 503 "), "{got}");
        connection.answer(writer(), true);
        assert!(matches!(connection.advance(&client, &admit), Step::Read));
        assert_eq!(client.got(), "");
    }

    #[test]
    fn is_not_idle_while_a_refused_body_still_arrives() {
        let large = b"POST /busy HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n12";
        for keep in [true, false] {
            let client = Client::new(&[large]);
            let mut connection = start();
            assert_eq!(status(&connection.advance(&client, &admit)), 503);
            connection.answer(writer(), keep);
            while matches!(connection.advance(&client, &admit), Step::Again) {}
            assert!(!connection.is_idle(), "closing now may lose the response");
        }
        let client = Client::new(&[POST]);
        let mut connection = start();
        request(connection.advance(&client, &admit));
        connection.answer(writer(), false);
        assert!(matches!(connection.advance(&client, &admit), Step::Read));
        assert!(connection.is_idle());
    }

    #[test]
    fn large_heads_count_against_the_memory_budget() {
        let budget = Budget::new(100_000);
        let mut used = budget.arriving(0);
        used.reserve_exact(99_000).unwrap();
        let large = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n", "x".repeat(6000));
        let client = Client::new(&[large.as_bytes()]);
        let mut connection = Connection::new(Instant::now(), &budget);
        // The fake client delivers more than the buffer had room for, so the next read finds no memory.
        let step = connection.advance(&client, &admit);
        assert_eq!(status(&step), 503);
        drop((connection, used));
        assert_eq!(budget.arriving(0).check_room(100_000), Ok(()));
    }
}
