//! What happens on one connection: heads and bodies come in, responses go out, until one side has enough.
//!
//! A state machine over bytes. It never blocks and knows no sockets but by [`Stream`], no threads and no routes:
//! [`Connection::advance`] goes on as far as the bytes at hand allow and says what it needs then.

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

/// Bytes read in one go; then it is another connection's turn.
const TURN_BYTES: usize = 1 << 20;
/// So many bytes of a head that is not whole yet are not counted, so that small requests are served when there is no memory
/// for bodies. Whole heads are not counted up to [`READ_BYTES`].
const FREE_HEAD_BYTES: usize = 1024;

/// What becomes of the connection once the response is sent.
#[derive(Debug)]
enum AfterResponse {
    /// The next request.
    Head,
    /// The next request, behind the rest of this body.
    Skip(BodyDecoder),
    /// Its end, once the client has ended it too or has had time to read. `sends`: the client may still send
    /// what belongs to its request.
    Linger { sends: bool },
}

#[derive(Debug)]
enum Phase<P> {
    /// Waits for a head, or is in the midst of one.
    Head,
    /// In the midst of a body.
    Body {
        head: Box<Head>,
        body: BodyDecoder,
        received: Instant,
        limit: Duration,
        plan: P,
    },
    /// Somebody makes the response. `is_whole`: to a request that has arrived as a whole.
    Busy { is_whole: bool },
    /// The response leaves.
    Response {
        writer: ResponseWriter,
        then: AfterResponse,
    },
    /// In the midst of the body of a request that was answered.
    Skip(BodyDecoder),
    /// Reads over whatever comes.
    Linger { sends: bool },
    /// Nothing more is read or sent.
    Closed,
}

/// See the module.
#[derive(Debug)]
pub struct Connection<P> {
    /// What has arrived and is not used up.
    input: Buffer,
    scanner: Scanner,
    phase: Phase<P>,
    /// What is sent before the response: `100 Continue`.
    interim: &'static [u8],
    /// The body behind a head that was refused, for [`Connection::answer`].
    rest: Option<BodyDecoder>,
    /// Whether an empty line came before this head.
    blank_line_seen: bool,
    /// When this phase began. A head's begins with its first byte.
    since: Instant,
    /// When bytes moved last.
    moved: Instant,
    /// Time that the client may need to read the response before, which its system or ours still holds. Until a byte
    /// comes from the client, all limits are longer by this.
    grace: Duration,
    /// Whether the request being answered is a HEAD.
    is_head_request: bool,
    /// Whether everything that had arrived has been read. The system reports what arrives once, and may have done so.
    is_drained: bool,
}

impl<P> Connection<P> {
    /// A connection that was just made.
    pub fn new(now: Instant, budget: &Arc<Budget>) -> Self {
        Self {
            input: budget.arriving(READ_BYTES),
            scanner: Scanner::default(),
            phase: Phase::Head,
            interim: b"",
            rest: None,
            blank_line_seen: false,
            since: now,
            moved: now,
            grace: Duration::ZERO,
            is_head_request: false,
            is_drained: true,
        }
    }

    /// Whether nothing is lost when the connection ends now.
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

    /// Whether somebody makes the response to a request.
    pub fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::Busy { .. })
    }

    /// Whether more than blank lines has been read behind the request at work.
    pub fn has_request_behind(&self) -> bool {
        !head::is_blank(&self.input)
    }

    /// Whether it was ended by [`Connection::close`].
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Whether the request being answered is a HEAD.
    pub fn is_head_request(&self) -> bool {
        self.is_head_request
    }

    /// Whether the client has sent something behind its request.
    pub fn has_more(&self, stream: &impl Stream) -> bool {
        !self.input.is_empty() || stream.is_ready(Direction::In)
    }

    /// Whether what the connection waits for has happened and nobody has seen to it yet.
    pub fn is_ready(&self, stream: &impl Stream) -> bool {
        stream.is_ready(match self.phase {
            Phase::Response { .. } => Direction::Out,
            _ => Direction::In,
        })
    }

    /// Goes on as far as possible.
    pub fn advance(&mut self, stream: &impl Stream, admit: Admit<P>) -> Step<P> {
        let mut turn = TURN_BYTES;
        loop {
            match self.send(stream) {
                Ok(Sent::Nothing) => {}
                // Others first: requests may come one behind the other without end.
                Ok(Sent::Response) if !self.input.is_empty() || !self.is_drained => {
                    return Step::Again;
                }
                Ok(Sent::Response) => return self.wait_for_more(),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Step::Write,
                Err(_) => return Step::Close, // the client is gone
            }
            let found = match &mut self.phase {
                Phase::Head => self.find_request(admit),
                Phase::Body { .. } => self.take_body(),
                Phase::Skip(body) => match body.take(&self.input) {
                    Ok(taken) => {
                        self.input.consume(taken);
                        if body.is_whole() {
                            self.enter(Phase::Head);
                            continue;
                        }
                        Ok(None)
                    }
                    // It was told all there is to tell.
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
                Phase::Response { .. } => unreachable!("sent answers are behind us"),
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

    /// Thousands of connections may wait for their clients: none keeps more memory meanwhile than what has arrived.
    fn wait_for_more(&mut self) -> Step<P> {
        match self.input.settle(FREE_HEAD_BYTES) {
            Ok(()) => Step::Read,
            Err(why) => self.refuse(body::no_room(why)),
        }
    }

    /// Sends a response to what [`Connection::advance`] or [`Connection::overdue`] gave out last, unless it has one. `keep`:
    /// whether another request may follow.
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

    /// Ends it, whatever the client still sends.
    pub fn close(&mut self) {
        self.phase = Phase::Closed;
    }

    fn enter(&mut self, phase: Phase<P>) {
        self.phase = phase;
        self.since = Instant::now();
        self.moved = self.since;
        if matches!(self.phase, Phase::Head) {
            self.scanner = Scanner::default();
            self.blank_line_seen = false;
        }
    }

    fn linger(&mut self, stream: &impl Stream, sends: bool) {
        stream.finish();
        self.enter(Phase::Linger { sends });
    }

    /// Sends what there is to send.
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
            self.moved = Instant::now();
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

    /// Looks for a head in what has arrived.
    fn find_request(&mut self, admit: Admit<P>) -> Result<Option<Step<P>>, RequestError> {
        let end = loop {
            match self.scanner.find_end(&self.input)? {
                None => return Ok(None),
                // An empty line before a head is no head: some clients send one behind a body.
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
            let memory = self.input.arriving_beside(head.size());
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
                self.take_body()
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

    /// Takes what has arrived of a body.
    fn take_body(&mut self) -> Result<Option<Step<P>>, RequestError> {
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
                "The request ended within its head.",
            )),
            Phase::Body { body, .. } => {
                let text = format!("The body ended after {body}.");
                self.refuse(RequestError::ending(400, text))
            }
            _ => Step::Close,
        }
    }

    /// Gives an error out to be answered; the connection ends with it.
    fn refuse(&mut self, error: RequestError) -> Step<P> {
        self.rest = None;
        match mem::replace(&mut self.phase, Phase::Busy { is_whole: false }) {
            Phase::Body { head, .. } => Step::Refused(Some(head), error),
            _ => Step::Refused(None, error),
        }
    }
}

/// What [`Connection::send`] has sent.
enum Sent {
    /// There was nothing more to send.
    Nothing,
    /// The rest of a response.
    Response,
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::VecDeque;

    use super::timing::{
        HEAD_LIMIT, IDLE_LIMIT, KEPT_STILL, LAST_HEAD_LIMIT, LINGER_LIMIT, SLOWEST_BYTES_A_SECOND,
        STALL_LIMIT,
    };
    use super::*;
    use crate::budget::Budget;
    use crate::http::body;
    use crate::http::response::Response;

    /// A client: what it sends, piece by piece, and what it gets.
    #[derive(Default)]
    struct Client {
        sends: RefCell<VecDeque<Vec<u8>>>,
        has_ended: Cell<bool>,
        got: RefCell<Vec<u8>>,
        /// Bytes it takes before it makes us wait.
        takes: Cell<usize>,
        is_told_the_end: Cell<bool>,
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
            self.is_told_the_end.set(true);
        }
    }

    /// Takes what fits into 1,000 bytes. A path `/busy` is refused.
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
    fn a_request_comes_in_whatever_pieces() {
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
                // The last piece fitted exactly: there might be more.
                step = connection.advance(&client, &admit);
            }
            assert!(matches!(step, Step::Read));
            assert!(client.got().starts_with("HTTP/1.1 200 OK\r\n"));
            assert!(connection.is_idle());
        }
    }

    #[test]
    fn requests_one_behind_the_other_are_answered_in_turn() {
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
    fn an_answer_leaves_as_the_client_takes_it() {
        let client = Client::new(&[POST]);
        let mut connection = start();
        request(connection.advance(&client, &admit));
        let answer = writer();
        let size = answer.size();
        client.takes.set(0);
        connection.answer(answer, true);
        for taken in 0..size {
            assert!(matches!(connection.advance(&client, &admit), Step::Write));
            assert_eq!(client.got.borrow().len(), taken);
            assert!(!connection.is_idle());
            client.takes.set(1);
        }
        assert!(matches!(connection.advance(&client, &admit), Step::Read));
    }

    #[test]
    fn the_last_answer_is_followed_by_our_end_and_then_the_clients() {
        let client = Client::new(&[POST]);
        let mut connection = start();
        request(connection.advance(&client, &admit));
        connection.answer(writer(), false);
        assert!(matches!(connection.advance(&client, &admit), Step::Read));
        assert!(client.is_told_the_end.get());
        client.sends.borrow_mut().push_back(POST.to_vec());
        assert!(matches!(connection.advance(&client, &admit), Step::Read));
        client.has_ended.set(true);
        assert!(matches!(connection.advance(&client, &admit), Step::Close));
    }

    #[test]
    fn behind_a_refused_body_the_next_request_is_found() {
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
    fn a_client_that_waits_is_told_to_continue() {
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
    fn what_is_cut_off_is_a_bad_request() {
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
    fn one_empty_line_before_a_head_is_passed_over_and_more_are_not() {
        let client = Client::new(&[b"\r\n", POST]);
        request(start().advance(&client, &admit));
        let client = Client::new(&[b"\r\n", b"\r\n", POST]);
        assert_eq!(status(&start().advance(&client, &admit)), 400);
    }

    /// A pause that concerns nobody.
    fn long_ago() -> Instant {
        Instant::now() - Duration::from_secs(3600)
    }

    fn in_time(limit: Duration) -> Instant {
        Instant::now() + limit
    }

    #[test]
    fn what_takes_too_long_is_given_up() {
        let nobody = Client::new(&[]);
        let mut idle = start();
        assert!(
            idle.overdue(&nobody, in_time(IDLE_LIMIT / 2), long_ago(), false)
                .is_none()
        );
        let step = idle.overdue(&nobody, in_time(IDLE_LIMIT), long_ago(), false);
        assert!(matches!(step, Some(Step::Close)));
        let client = Client::new(&[POST]);
        assert!(matches!(idle.advance(&client, &admit), Step::Close));

        for (sent, limit, is_last) in [
            (&POST[..10], HEAD_LIMIT, false),
            (&POST[..10], LAST_HEAD_LIMIT, true),
            (&POST[..POST.len() - 1], Duration::from_secs(60), false),
        ] {
            let client = Client::new(&[sent]);
            let mut connection = start();
            assert!(matches!(connection.advance(&client, &admit), Step::Read));
            let step = connection.overdue(&client, in_time(limit / 2), long_ago(), is_last);
            assert!(step.is_none());
            let step = connection.overdue(&client, in_time(limit), long_ago(), is_last);
            assert_eq!(status(&step.unwrap()), 408);
        }

        let client = Client::new(&[POST]);
        let mut connection = start();
        request(connection.advance(&client, &admit));
        let step = connection.overdue(&client, in_time(10 * STALL_LIMIT), long_ago(), false);
        assert!(step.is_none());
        client.takes.set(0);
        connection.answer(writer(), true);
        assert!(matches!(connection.advance(&client, &admit), Step::Write));
        let step = connection.overdue(&client, in_time(STALL_LIMIT / 2), long_ago(), false);
        assert!(step.is_none());
        let step = connection.overdue(&client, in_time(STALL_LIMIT), long_ago(), false);
        assert!(matches!(step, Some(Step::Close)));
    }

    #[test]
    fn what_has_arrived_is_never_too_late() {
        for sent in [&b""[..], &POST[..10], &POST[..POST.len() - 1]] {
            let pieces = if sent.is_empty() { vec![] } else { vec![sent] };
            let client = Client::new(&pieces);
            let mut connection = start();
            assert!(matches!(connection.advance(&client, &admit), Step::Read));
            // All of the rest came while nobody looked.
            client
                .sends
                .borrow_mut()
                .push_back(POST[sent.len()..].to_vec());
            let step = connection.overdue(&client, in_time(1000 * STALL_LIMIT), long_ago(), false);
            assert!(matches!(step, Some(Step::Again)), "{sent:?}");
            assert_eq!(
                &*request(connection.advance(&client, &admit)).body,
                b"12345"
            );
        }
        // And so did the client's reading.
        let client = Client::new(&[POST]);
        let mut connection = start();
        request(connection.advance(&client, &admit));
        client.takes.set(0);
        connection.answer(writer(), true);
        assert!(matches!(connection.advance(&client, &admit), Step::Write));
        client.takes.set(usize::MAX);
        let step = connection.overdue(&client, in_time(1000 * STALL_LIMIT), long_ago(), false);
        assert!(matches!(step, Some(Step::Again)));
        assert!(matches!(connection.advance(&client, &admit), Step::Read));
    }

    #[test]
    fn a_client_that_sends_without_end_behind_its_last_answer_is_cut_off() {
        let client = Client::new(&[POST]);
        let mut connection = start();
        request(connection.advance(&client, &admit));
        connection.answer(writer(), false);
        assert!(matches!(connection.advance(&client, &admit), Step::Read));
        client.sends.borrow_mut().push_back(POST.to_vec());
        let step = connection.overdue(&client, in_time(LINGER_LIMIT / 10), long_ago(), false);
        assert!(step.is_none());
        let step = connection.overdue(&client, in_time(LINGER_LIMIT), long_ago(), false);
        assert!(matches!(step, Some(Step::Close)));
    }

    #[test]
    fn a_pause_of_the_server_is_not_the_clients_fault() {
        for sent in [&POST[..10], &POST[..POST.len() - 1]] {
            let client = Client::new(&[sent]);
            let mut connection = start();
            assert!(matches!(connection.advance(&client, &admit), Step::Read));
            let pause = in_time(2 * STALL_LIMIT);
            let mut overdue = |now| connection.overdue(&client, now, pause, false);
            assert!(overdue(pause).is_none());
            assert!(overdue(pause + HEAD_LIMIT / 2).is_none());
            assert_eq!(status(&overdue(pause + STALL_LIMIT).unwrap()), 408);
        }
    }

    #[test]
    fn behind_a_large_answer_the_clock_starts_with_the_next_byte() {
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
            let step = connection.overdue(&client, in_time(limit + reading / 2), long_ago(), false);
            assert!(step.is_none(), "the client is still reading");
            let step = connection.overdue(&client, in_time(limit + reading), long_ago(), false);
            assert_eq!(status(&step.unwrap()), 408, "but not for ever");
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
        let step = connection.overdue(&client, in_time(body_time), long_ago(), false);
        assert_eq!(status(&step.unwrap()), 408, "it has read its answer");
    }

    #[test]
    fn the_idle_go_first_and_who_is_served_stays() {
        let now = || Instant::now() + 2 * KEPT_STILL;
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
    fn a_body_that_drips_is_slow_and_one_that_flows_is_not() {
        let head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n";
        for (sent, is_slow) in [(999, false), (3, true)] {
            let client = Client::new(&[head, &vec![b'x'; sent]]);
            let mut connection = start();
            assert!(matches!(connection.advance(&client, &admit), Step::Read));
            let Phase::Body { received, .. } = &mut connection.phase else {
                panic!("no body");
            };
            // In so many seconds; the last byte has just come.
            *received -= Duration::from_secs(if is_slow { 30 } else { 0 });
            connection.moved = Instant::now() + KEPT_STILL;
            let found = connection.dispensable(Instant::now() + KEPT_STILL / 2);
            assert_eq!(found.is_some(), is_slow);
        }
    }

    #[test]
    fn an_answer_that_comes_too_late_is_dropped() {
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
    fn a_refused_body_that_still_comes_is_waited_for() {
        let large = b"POST /busy HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n12";
        for keep in [true, false] {
            let client = Client::new(&[large]);
            let mut connection = start();
            assert_eq!(status(&connection.advance(&client, &admit)), 503);
            connection.answer(writer(), keep);
            while matches!(connection.advance(&client, &admit), Step::Again) {}
            assert!(!connection.is_idle(), "to close now may cost the answer");
        }
        let client = Client::new(&[POST]);
        let mut connection = start();
        request(connection.advance(&client, &admit));
        connection.answer(writer(), false);
        assert!(matches!(connection.advance(&client, &admit), Step::Read));
        assert!(connection.is_idle());
    }

    #[test]
    fn large_heads_and_chunks_are_counted() {
        let budget = Budget::new(100_000);
        let mut used = budget.arriving(0);
        used.reserve_exact(99_000).unwrap();
        let large = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n", "x".repeat(6000));
        let client = Client::new(&[large.as_bytes()]);
        let mut connection = Connection::new(Instant::now(), &budget);
        // The test's client gives out more than there was room for; the next read finds none.
        let step = connection.advance(&client, &admit);
        assert_eq!(status(&step), 503);
        drop((connection, used));
        assert_eq!(budget.arriving(0).check_room(100_000), Ok(()));
    }
}
