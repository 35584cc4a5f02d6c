//! The channels to one Python worker process, and what is known of the calls on them.
//!
//! Each call in progress has a channel of its own, a socket on which calls and answers alternate. Who uses which channel is
//! for `handlers/pool.rs`. A call gives way to its deadline and to its client's hanging up only between frames, where the
//! channel stays usable; the answer is then read over by `handlers/late_answers.rs`.

use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};

use crate::budget::{Buffer, NoRoom};
use crate::wait::{Condition, Mutex, Stream, WaitError, is_cancelled};
use crate::worker_protocol::frame::{self, Answer, Call, Incoming, Shape};
use crate::worker_protocol::record::{self, Record};

/// The text of an exception may have all of a request in it, but clients are shown little of an error.
const MAX_RAISED_BYTES: usize = 64 << 10;
/// A process that hung up is reaped by then, and the reason for its end known.
const END_WAIT: Duration = Duration::from_secs(2);

/// The channels to a process, from its start until nobody needs them any more.
#[derive(Debug)]
pub struct WorkerChannels {
    channels: Vec<Channel>,
    record: Record,
    last_number: AtomicU64,
    /// When it last answered, in nanoseconds by [`record::now`]; 0: never.
    last_answer: AtomicU64,
    /// What it said of itself once its script was loaded.
    pub loaded: OnceLock<Loaded>,
    /// The calls for which it is being killed.
    overdue: OnceLock<Vec<u64>>,
    /// Whether a channel was closed because something other than an answer arrived.
    garbled: AtomicBool,
    /// How it ended.
    end: Mutex<Option<String>>,
    has_ended: Condition,
}

/// One channel, and the call in progress on it.
#[derive(Debug)]
struct Channel {
    /// In non-blocking mode.
    socket: UnixStream,
    /// Number of the call; 0: none. It goes on when nobody waits for it any more.
    outstanding: AtomicU64,
    /// When it was sent, in nanoseconds by [`record::now`].
    sent: AtomicU64,
    /// What the greenlets had computed by then, in nanoseconds; see [`record::Turn::computed_until`].
    computed_before: AtomicU64,
}

/// What a worker says when its script is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// Channels it listens on, from the first: so many calls it takes at once.
    pub channels: usize,
    /// The function found.
    pub shape: Shape,
    /// Whether its calls can be greenlets.
    pub has_gevent: bool,
}

/// What became of a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has an answer.
    Answered(Reply),
    /// The wait for its answer ended first, for this reason. The channel owes the answer: it can be used again once
    /// [`WorkerChannels::read_over`] has read it.
    Late(WaitError),
    /// The deadline passed in the middle of a frame; the channel is closed.
    Interrupted,
    /// There is no memory for its answer.
    NoRoom(NoRoom),
    /// It cannot be sent, for this reason.
    Broken(String),
    /// Something other than its answer arrived, for this reason, and the channel is closed. [`WorkerChannels::fate`] says whether
    /// the call had begun; if it had not, it never will.
    Garbled(String),
    /// The process ended. Whether the call had begun is for [`WorkerChannels::fate`] to say.
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

/// How far a call had come when its process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It had not begun: another worker can have it.
    NotBegun,
    /// It was running.
    Running,
    /// It was running for too long, which is why the process was killed.
    Overdue,
}

impl Channel {
    fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            outstanding: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            computed_before: AtomicU64::new(0),
        })
    }

    fn close(&self) {
        // An error means that the other side is gone.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn stream(&self, deadline: Option<Instant>) -> Stream<'_, UnixStream> {
        Stream::new(&self.socket, deadline)
    }
}

impl WorkerChannels {
    /// The channels to a process, by our ends of them.
    ///
    /// # Errors
    /// When a socket cannot be put into non-blocking mode.
    pub fn new(sockets: Vec<UnixStream>, record: Record) -> io::Result<Self> {
        let channels = sockets.into_iter().map(Channel::new);
        Ok(Self {
            channels: channels.collect::<io::Result<_>>()?,
            record,
            last_number: AtomicU64::new(0),
            last_answer: AtomicU64::new(0),
            loaded: OnceLock::new(),
            overdue: OnceLock::new(),
            garbled: AtomicBool::new(false),
            end: Mutex::new(None),
            has_ended: Condition::new(),
        })
    }

    /// Waits for the first word of the process.
    ///
    /// # Errors
    /// Why its script cannot be loaded; empty when it ended without a word.
    pub fn wait_until_loaded(&self) -> Result<(), String> {
        let text = |e: io::Error| format!("it cannot be understood: {e}");
        let mut channel = self.channels[0].stream(None);
        let Some(incoming) = Incoming::read(&mut channel).map_err(text)? else {
            return Err(String::new());
        };
        match incoming.head().map_err(text)? {
            Answer::Loaded {
                channels,
                shape,
                has_gevent,
            } => {
                let loaded = Loaded {
                    channels: channels.clamp(1, self.channels.len()),
                    shape,
                    has_gevent,
                };
                // It says so once.
                let _ = self.loaded.set(loaded);
                Ok(())
            }
            _ => {
                let mut why = vec![0; incoming.body_length];
                incoming.read_body(&mut channel, &mut why).map_err(text)?;
                Err(String::from_utf8_lossy(&why).into_owned())
            }
        }
    }

    /// Sends a call on a channel that is the caller's alone and waits for the answer, which is counted where `memory` is.
    /// `head` makes the call from its number and deadline.
    pub fn call<'a>(
        &self,
        channel: usize,
        head: impl FnOnce(u64, u64) -> Call<'a>,
        body: &[u8],
        memory: &Buffer,
        deadline: Instant,
    ) -> (u64, Outcome) {
        let channel = &self.channels[channel];
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let left = deadline.saturating_duration_since(Instant::now());
        let head = head(number, nanoseconds(record::now() + left));
        let now = record::now();
        channel.sent.store(nanoseconds(now), Ordering::Relaxed);
        let computed = self.record.turn().computed_until(now);
        (channel.computed_before).store(nanoseconds(computed), Ordering::Relaxed);
        channel.outstanding.store(number, Ordering::Release);
        let outcome =
            exchange(channel, number, &head, body, memory, deadline).unwrap_or_else(|e| {
                // Half a frame was written or read, so what follows would make no sense.
                channel.close();
                let outcome = match e.kind() {
                    ErrorKind::TimedOut => Outcome::Interrupted,
                    ErrorKind::InvalidInput => Outcome::Broken(e.to_string()),
                    ErrorKind::InvalidData => {
                        self.garbled.store(true, Ordering::Relaxed);
                        Outcome::Garbled(e.to_string())
                    }
                    _ => return Outcome::Lost,
                };
                log::error!("a channel to a Python worker is given up: {e}");
                outcome
            });
        if matches!(outcome, Outcome::Answered(_) | Outcome::NoRoom(_)) {
            let now = nanoseconds(record::now());
            self.last_answer.fetch_max(now, Ordering::Relaxed);
        }
        if !matches!(outcome, Outcome::Late(_)) {
            channel.outstanding.store(0, Ordering::Relaxed);
        }
        (number, outcome)
    }

    /// Reads over the answer that a channel owes, and waits for it as long as it takes.
    ///
    /// # Errors
    /// When it does not come: the process is gone. See [`WorkerChannels::give_up`].
    pub fn read_over(&self, channel: usize) -> io::Result<()> {
        let channel = &self.channels[channel];
        let mut stream = channel.stream(None);
        let late = Incoming::read(&mut stream)?.ok_or(ErrorKind::UnexpectedEof)?;
        late.skip_body(&mut stream)?;
        channel.outstanding.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Nobody uses this channel any more.
    pub fn give_up(&self, channel: usize) {
        let channel = &self.channels[channel];
        channel.close();
        channel.outstanding.store(0, Ordering::Relaxed);
    }

    /// Notes how the process ended.
    pub fn note_end(&self, how: String) {
        // It ends once.
        self.end.lock().get_or_insert(how);
        self.has_ended.notify_all();
    }

    /// After the process hung up: how it ended. Waits for that a little, but not beyond `deadline`.
    ///
    /// # Errors
    /// [`WaitError::Cancelled`].
    pub fn wait_for_end(&self, deadline: Instant) -> Result<String, WaitError> {
        let until = deadline.min(Instant::now() + END_WAIT);
        let mut end = self.end.lock();
        loop {
            if let Some(how) = &*end {
                return Ok(how.clone());
            }
            if Instant::now() >= until {
                return Ok("it closed its connection".into());
            }
            let waited;
            (end, waited) = self.has_ended.wait(end, Some(until));
            if waited == Err(WaitError::Cancelled) {
                return Err(WaitError::Cancelled);
            }
        }
    }

    /// Whether it has ever answered a call.
    pub fn has_answered(&self) -> bool {
        self.last_answer.load(Ordering::Relaxed) > 0
    }

    /// Whether something other than an answer arrived on a channel: the script wrote to it.
    pub fn has_garbled(&self) -> bool {
        self.garbled.load(Ordering::Relaxed)
    }

    /// What had become of a call when the process ended, or its channel was given up.
    pub fn fate(&self, channel: usize, number: u64) -> Fate {
        let overdue = self.overdue.get();
        if overdue.is_some_and(|numbers| numbers.contains(&number)) {
            Fate::Overdue
        } else if self.record.last(channel).number == number {
            Fate::Running
        } else {
            Fate::NotBegun
        }
    }

    /// Whether calls have been running for longer than `limit` at `now`, by `record::now`, without what other greenlets
    /// computed meanwhile. They count as overdue from now on, once.
    pub fn has_overdue_calls(&self, limit: Duration, now: Duration) -> bool {
        let calls = self.unanswered();
        let calls = calls.map(|(channel, number)| (channel, number, self.record.last(channel)));
        let calls = Vec::from_iter(calls.filter(|(_, number, begun)| begun.number == *number));
        let turn = self.record.turn();
        let overdue = calls
            .into_iter()
            .filter(|&(channel, _, begun)| turn.time_of(channel, begun, now) > limit);
        let numbers = Vec::from_iter(overdue.map(|(_, number, _)| number));
        !numbers.is_empty() && self.overdue.set(numbers).is_ok()
    }

    /// Whether a call has been waiting for longer than `limit` at `now`, and in all that time none began and none ended: it
    /// is frozen, or something else than a call keeps the interpreter to itself. Greenlets can take turns for longer than
    /// `limit` before one ends. While they do, only the time counts in which none of them computed and the call could have begun.
    pub fn is_stuck(&self, limit: Duration, now: Duration) -> bool {
        let time =
            |nanoseconds: &AtomicU64| Duration::from_nanos(nanoseconds.load(Ordering::Relaxed));
        let since = |then: Duration| now.saturating_sub(then);
        let waiting: Vec<_> = self.unanswered().collect();
        let last = Vec::from_iter((0..self.channels.len()).map(|n| self.record.last(n)));
        let turn = self.record.turn();
        let waits = |&(channel, number): &(usize, u64)| {
            let waited = since(time(&self.channels[channel].sent));
            let computed = turn.computed_until(now);
            let others = computed.saturating_sub(time(&self.channels[channel].computed_before));
            let could_begin =
                last[channel].number != number && waited.saturating_sub(others) > limit;
            waited > limit && (could_begin || since(turn.since) > limit)
        };
        waiting.iter().any(waits)
            && since(time(&self.last_answer)) > limit
            && last.iter().all(|begun| since(begun.at) > limit)
    }

    /// Channels and numbers of calls that have no answer yet.
    fn unanswered(&self) -> impl Iterator<Item = (usize, u64)> {
        let numbers = (self.channels.iter()).map(|c| c.outstanding.load(Ordering::Acquire));
        numbers.enumerate().filter(|&(_, number)| number != 0)
    }

    /// Tells the process to end, and the calls on its channels that it is gone.
    pub fn close(&self) {
        self.channels.iter().for_each(Channel::close);
    }
}

/// Sends a call and waits for its answer. After an error the channel is of no more use.
fn exchange(
    channel: &Channel,
    number: u64,
    head: &Call,
    body: &[u8],
    memory: &Buffer,
    deadline: Instant,
) -> io::Result<Outcome> {
    // Bytes that are here before the call cannot be its answer, and a call that is not sent will not begin.
    match recv(
        &channel.socket,
        &mut [0],
        RecvFlags::PEEK | RecvFlags::DONTWAIT,
    ) {
        Ok((0, _)) => return Ok(Outcome::Lost),
        Ok(_) => {
            let text = "bytes arrived that answer no call";
            return Err(io::Error::new(ErrorKind::InvalidData, text));
        }
        // Nothing is here, as expected; any other error comes up again in the next step.
        Err(_) => {}
    }
    // A frame that is left half done costs the channel, so a client that hangs up does not end it.
    let mut stream = channel.stream(Some(deadline)).ignoring_cancelling();
    frame::write(&mut stream, head, body)?;
    match channel.stream(Some(deadline)).wait_for_input() {
        Err(e) if is_cancelled(&e) => return Ok(Outcome::Late(WaitError::Cancelled)),
        Err(e) if e.kind() == ErrorKind::TimedOut => return Ok(Outcome::Late(WaitError::TimedOut)),
        other => other?,
    }
    let Some(incoming) = Incoming::read(&mut stream)? else {
        return Ok(Outcome::Lost);
    };
    let mut answer = memory.sibling();
    if let Err(why) = answer.reserve_exact(incoming.body_length) {
        incoming.skip_body(&mut stream)?;
        return Ok(Outcome::NoRoom(why));
    }
    answer.bytes_mut().resize(incoming.body_length, 0);
    incoming.read_body(&mut stream, answer.bytes_mut())?;
    reply(incoming.head()?, number, answer).map(Outcome::Answered)
}

fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos() as u64
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker_protocol::frame::Response;
    use crate::worker_protocol::record::{Account, Runs};
    use std::sync::Arc;
    use std::thread;

    /// The channels to a process, and the other ends.
    fn process(channels: usize) -> (WorkerChannels, Vec<UnixStream>, Record) {
        let (ours, theirs) = (0..channels).map(|_| UnixStream::pair().unwrap()).unzip();
        let record = Record::new(channels).unwrap();
        let other_side = Record::from_file(record.file().try_clone().unwrap().into());
        (
            WorkerChannels::new(ours, record).unwrap(),
            theirs,
            other_side,
        )
    }

    fn call<'a>(number: u64, deadline: u64) -> Call<'a> {
        let response = Response {
            status: 200,
            reason: "OK".into(),
            headers: Vec::new(),
        };
        Call::Response {
            number,
            deadline,
            response,
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn answer(to: &UnixStream, number: u64, body: &[u8]) {
        let content_type = "text/plain".into();
        let head = Answer::ForClient {
            number,
            content_type,
        };
        frame::write(to, &head, body).unwrap();
    }

    /// Sends a call and waits for the answer.
    fn call_on(process: &WorkerChannels, channel: usize, deadline: Instant) -> (u64, Outcome) {
        process.call(channel, call, b"", &Buffer::default(), deadline)
    }

    fn answered(body: &[u8]) -> Outcome {
        Outcome::Answered(Reply::ForClient {
            content_type: "text/plain".into(),
            body: body.to_vec().into(),
        })
    }

    #[test]
    fn a_late_answer_is_not_taken_for_the_next_one() {
        let (process, theirs, _) = process(1);
        let (first, outcome) = call_on(&process, 0, soon());
        assert_eq!(outcome, Outcome::Late(WaitError::TimedOut));
        // Before the next call comes: two frames at once would be read as a broken one.
        Incoming::read(&theirs[0]).unwrap().unwrap();
        thread::scope(|scope| {
            let reader = scope.spawn(|| process.read_over(0));
            // More than the socket holds: somebody takes it.
            answer(&theirs[0], first, &vec![b'l'; 10 << 20]);
            reader.join().unwrap().unwrap();
        });
        let outcome = thread::scope(|scope| {
            let next = scope.spawn(|| call_on(&process, 0, later()).1);
            Incoming::read(&theirs[0]).unwrap().unwrap();
            answer(&theirs[0], first + 1, b"right");
            next.join().unwrap()
        });
        assert_eq!(outcome, answered(b"right"));
    }

    #[test]
    fn a_large_call_that_nobody_reads_costs_the_channel() {
        let (process, _theirs, _) = process(1);
        let body = vec![0; 10 << 20];
        let (_, outcome) = process.call(0, call, &body, &Buffer::default(), soon());
        assert_eq!(outcome, Outcome::Interrupted);
    }

    #[test]
    fn the_record_tells_what_had_begun() {
        let (process, theirs, record) = process(2);
        let lost = thread::scope(|scope| {
            let calls = [0, 1].map(|channel| {
                let process = &process;
                scope.spawn(move || call_on(process, channel, later()))
            });
            let incoming = Incoming::read(&theirs[1]).unwrap().unwrap();
            let Call::Response { number, .. } = incoming.head().unwrap() else {
                panic!()
            };
            record.begin(1, number).unwrap();
            // Both calls are on their way before the process ends.
            Incoming::read(&theirs[0]).unwrap().unwrap();
            assert!(process.has_overdue_calls(Duration::ZERO, record::now()));
            assert!(!process.has_overdue_calls(Duration::ZERO, record::now()));
            process.close();
            calls.map(|call| call.join().unwrap())
        });
        assert_eq!((&lost[0].1, &lost[1].1), (&Outcome::Lost, &Outcome::Lost));
        assert_eq!(process.fate(0, lost[0].0), Fate::NotBegun);
        assert_eq!(process.fate(1, lost[1].0), Fate::Overdue);
    }

    #[test]
    fn a_call_counts_until_its_late_answer_is_there() {
        let (process, theirs, record) = process(1);
        let (number, _) = call_on(&process, 0, soon());
        assert!(
            process.is_stuck(Duration::ZERO, record::now()),
            "it has not begun"
        );
        assert!(!process.is_stuck(Duration::from_secs(60), record::now()));
        assert!(!process.has_overdue_calls(Duration::ZERO, record::now()));
        record.begin(0, number).unwrap();
        assert!(!process.is_stuck(Duration::from_secs(60), record::now()));
        answer(&theirs[0], number, b"late");
        process.read_over(0).unwrap();
        assert!(!process.has_overdue_calls(Duration::ZERO, record::now()));
        assert!(!process.is_stuck(Duration::ZERO, record::now()));
    }

    #[test]
    fn the_first_word_is_loaded_or_a_reason() {
        let (good, theirs, _) = process(2);
        let first_word = Answer::Loaded {
            channels: 9,
            shape: Shape::Pair,
            has_gevent: true,
        };
        frame::write(&theirs[0], &first_word, b"").unwrap();
        assert_eq!(good.wait_until_loaded(), Ok(()));
        let loaded = Loaded {
            channels: 2,
            shape: Shape::Pair,
            has_gevent: true,
        };
        assert_eq!(good.loaded.get(), Some(&loaded));

        let (bad, theirs, _) = process(1);
        frame::write(&theirs[0], &Answer::Failed, b"Traceback").unwrap();
        assert_eq!(bad.wait_until_loaded(), Err("Traceback".into()));

        let (gone, theirs, _) = process(1);
        drop(theirs);
        assert_eq!(gone.wait_until_loaded(), Err(String::new()));
    }

    #[test]
    fn the_answer_to_another_call_costs_the_channel() {
        let (process, theirs, record) = process(2);
        for (channel, fate) in [(0, Fate::NotBegun), (1, Fate::Running)] {
            let (number, outcome) = thread::scope(|scope| {
                let call = scope.spawn(|| call_on(&process, channel, later()));
                let incoming = Incoming::read(&theirs[channel]).unwrap().unwrap();
                let (number, _) = incoming.head::<Call>().unwrap().place();
                if fate == Fate::Running {
                    record.begin(channel, number).unwrap();
                }
                answer(&theirs[channel], number + 7, b"another's");
                call.join().unwrap()
            });
            assert!(matches!(outcome, Outcome::Garbled(_)), "{outcome:?}");
            assert_eq!(process.fate(channel, number), fate);
            assert!(Incoming::read(&theirs[channel]).unwrap().is_none());
        }
        assert!(process.has_garbled() && !process.has_answered());
    }

    #[test]
    fn greenlets_that_take_turns_are_neither_overdue_nor_stuck() {
        const LIMIT: Duration = Duration::from_secs(30);
        let (process, theirs, record) = process(3);
        let mut account = Account::new(Arc::new(record), 3);
        for (channel, other_end) in theirs.iter().enumerate().take(2) {
            let (number, _) = call_on(&process, channel, soon());
            Incoming::read(other_end).unwrap().unwrap();
            account.begin(channel, number).unwrap();
        }
        let start = record::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let is_hung = |seconds| {
            let now = at(seconds);
            process.is_stuck(LIMIT, now) || process.has_overdue_calls(LIMIT, now)
        };
        account.switched(Runs::Call(0), start).unwrap();
        assert!(!is_hung(25));
        account.switched(Runs::Call(1), at(25)).unwrap();
        assert!(!is_hung(50));
        // A third one is sent, and has to wait for the others.
        call_on(&process, 2, soon());
        account.switched(Runs::Hub, at(50)).unwrap();
        assert!(!is_hung(50));
        assert!(
            process.is_stuck(LIMIT, at(81)),
            "the third could have begun"
        );
        assert!(
            process.has_overdue_calls(LIMIT, at(81)),
            "the others wait too long"
        );
    }

    #[test]
    fn a_greenlet_that_keeps_the_thread_is_overdue_alone() {
        let (process, theirs, record) = process(2);
        let mut account = Account::new(Arc::new(record), 2);
        let mut numbers = [0; 2];
        for channel in [0, 1] {
            (numbers[channel], _) = call_on(&process, channel, soon());
            Incoming::read(&theirs[channel]).unwrap().unwrap();
            account.begin(channel, numbers[channel]).unwrap();
        }
        let start = record::now();
        account.switched(Runs::Call(1), start).unwrap();
        let limit = Duration::from_secs(30);
        assert!(!process.has_overdue_calls(limit, start + limit / 2));
        assert!(process.has_overdue_calls(limit, start + limit * 2));
        assert_eq!(process.fate(0, numbers[0]), Fate::Running);
        assert_eq!(process.fate(1, numbers[1]), Fate::Overdue);
    }

    #[test]
    fn a_script_thread_that_keeps_the_thread_makes_the_worker_stuck() {
        let (process, _theirs, record) = process(1);
        let mut account = Account::new(Arc::new(record), 1);
        call_on(&process, 0, soon());
        let start = record::now();
        account.switched(Runs::Other, start).unwrap();
        let limit = Duration::from_secs(30);
        assert!(!process.is_stuck(limit, start + limit / 2));
        assert!(process.is_stuck(limit, start + limit * 2));
    }
}
