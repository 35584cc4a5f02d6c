//! The channels to one Python worker process, and what is known of the calls on them.
//!
//! Each call in progress has a channel of its own, a socket on which calls and answers alternate. Who uses which channel is
//! for `handlers/pool.rs`. A request gives a call up at once when its deadline passes or its client hangs up;
//! `handlers/abandoned_calls.rs` finishes it, so that the channel can be used again.

use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};

use crate::budget::Buffer;
use crate::wait::{Condition, Mutex, Stream, WaitError, is_cancelled};
use crate::worker_protocol::frame::{Answer, Call, Incoming, Shape};
use crate::worker_protocol::record::{self, Record};

mod round_trip;

pub use round_trip::{Outcome, Reply};

use round_trip::{Abandoned, RoundTrip};

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
    /// What is left of a call that was abandoned.
    abandoned: Mutex<Option<Abandoned>>,
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
            abandoned: Mutex::new(None),
        })
    }

    fn close(&self) {
        // An error means that the other side is gone.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Bytes that are here before a call cannot be its answer, and a call that is not sent will not begin.
    fn check_empty(&self) -> io::Result<()> {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match recv(&self.socket, &mut [0], flags) {
            Ok((0, _)) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => {
                let text = "bytes arrived that answer no call";
                Err(io::Error::new(ErrorKind::InvalidData, text))
            }
            // Nothing is here, as expected; any other error comes up again in the next step.
            Err(_) => Ok(()),
        }
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
    /// `head` makes the call from its number.
    pub fn call<'a>(
        &self,
        channel: usize,
        head: impl FnOnce(u64) -> Call<'a>,
        body: &[u8],
        memory: &Buffer,
        deadline: Instant,
    ) -> (u64, Outcome) {
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let mut round_trip = match RoundTrip::new(number, &head(number), body) {
            Ok(round_trip) => round_trip,
            Err(e) => return (number, Outcome::Broken(e.to_string())),
        };
        self.note_sent(channel, number);
        let place = &self.channels[channel];
        let mut stream = place.stream(Some(deadline));
        let outcome = (place.check_empty())
            .and_then(|()| round_trip.run(&mut stream, memory))
            .unwrap_or_else(|e| match abandonment(&e) {
                Some(why) => Outcome::Abandoned(why),
                None => self.give_up_after(channel, &e),
            });
        match outcome {
            Outcome::Abandoned(_) => {
                // In this order: the worker must not run it with what stands for the rest of its body.
                if let Err(e) = self.record.cancel(channel, number) {
                    self.give_up_after(channel, &e);
                }
                *place.abandoned.lock() = Some(round_trip.abandon());
                return (number, outcome);
            }
            Outcome::Answered(_) | Outcome::NoRoom(_) => {
                let now = nanoseconds(record::now());
                self.last_answer.fetch_max(now, Ordering::Relaxed);
            }
            _ => {}
        }
        place.outstanding.store(0, Ordering::Relaxed);
        (number, outcome)
    }

    fn note_sent(&self, channel: usize, number: u64) {
        let channel = &self.channels[channel];
        let now = record::now();
        let computed = match self.loaded.get() {
            // The only calls that are greenlets, which take turns.
            Some(loaded) if loaded.has_gevent && loaded.shape == Shape::Single => {
                self.record.turn().computed_until(now)
            }
            _ => Duration::ZERO,
        };
        (channel.sent).store(nanoseconds(now), Ordering::Relaxed);
        (channel.computed_before).store(nanoseconds(computed), Ordering::Relaxed);
        channel.outstanding.store(number, Ordering::Release);
    }

    /// Closes a channel on which there was this error: what follows on it would make no sense.
    fn give_up_after(&self, channel: usize, error: &io::Error) -> Outcome {
        self.channels[channel].close();
        if error.kind() != ErrorKind::InvalidData {
            return Outcome::Lost;
        }
        self.garbled.store(true, Ordering::Relaxed);
        log::error!("a channel to a Python worker is given up: {error}");
        Outcome::Garbled(error.to_string())
    }

    /// Sends what is left of the abandoned call on a channel and reads over its answer, and waits for that as long as it takes.
    ///
    /// # Errors
    /// When the process is gone. See [`WorkerChannels::give_up`].
    pub fn finish(&self, channel: usize) -> io::Result<()> {
        let channel = &self.channels[channel];
        let abandoned = channel.abandoned.lock().take();
        if let Some(abandoned) = abandoned {
            abandoned.finish(&mut channel.stream(None))?;
        }
        channel.outstanding.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Nobody uses this channel any more.
    pub fn give_up(&self, channel: usize) {
        let channel = &self.channels[channel];
        channel.close();
        *channel.abandoned.lock() = None;
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

/// Why a wait ended early, if that is what the error says.
fn abandonment(error: &io::Error) -> Option<WaitError> {
    if is_cancelled(error) {
        Some(WaitError::Cancelled)
    } else {
        (error.kind() == ErrorKind::TimedOut).then_some(WaitError::TimedOut)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos() as u64
}

#[cfg(test)]
mod tests;
