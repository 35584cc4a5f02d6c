//! The channels to one Python worker process, and the state of the calls on them.
//!
//! Each call in progress has its own channel, a socket on which calls and answers alternate. Distributing channels
//! among requests is left to `handlers/pool.rs`. A request abandons its call at once when its deadline passes or its
//! client hangs up; `handlers/abandoned_calls.rs` then finishes the call, so that the channel can be used again.

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

/// Maximum wait for the supervisor to reap a process that closed its channels, and to note why the process ended.
const END_WAIT: Duration = Duration::from_secs(2);

/// The channels to a process. They outlive the process while requests still use them.
#[derive(Debug)]
pub struct WorkerChannels {
    channels: Vec<Channel>,
    record: Record,
    last_number: AtomicU64,
    /// When the process last answered, in nanoseconds by [`record::now`]; 0: never.
    last_answer: AtomicU64,
    /// The process's own description, sent once its script was loaded.
    pub loaded: OnceLock<Loaded>,
    /// Numbers of the calls for which the process is being killed.
    overdue: OnceLock<Vec<u64>>,
    /// Whether a channel was closed because bytes other than an answer arrived.
    garbled: AtomicBool,
    /// How the process ended.
    end: Mutex<Option<String>>,
    has_ended: Condition,
}

/// One channel, and the call in progress on it.
#[derive(Debug)]
struct Channel {
    /// In non-blocking mode.
    socket: UnixStream,
    /// Number of the call in progress, abandoned or not; 0: none.
    outstanding: AtomicU64,
    /// When the call was sent, in nanoseconds by [`record::now`].
    sent: AtomicU64,
    /// The computing time of greenlets when the call was sent, in nanoseconds; see [`record::Turn::computed_until`].
    computed_before: AtomicU64,
    /// The rest of a call that was abandoned.
    abandoned: Mutex<Option<Abandoned>>,
}

/// A worker's description of itself, sent once its script is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// The number of channels, from the first, on which the worker accepts calls: as many calls can be sent at once.
    pub channels: usize,
    /// The functions that the script has.
    pub shape: Shape,
    /// Whether the worker uses gevent, so that calls can be greenlets.
    pub has_gevent: bool,
    /// Whether the script uses the server's own conversions.
    pub converts: bool,
}

/// How far a call had come when its process ended or its channel was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The call had not begun, so another worker can run it.
    NotBegun,
    /// The call was running.
    Running,
    /// The call was running for too long, so the process was killed.
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
        // Fails only when the other side closed the socket before.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Checks, before a call is sent, that no bytes wait on the channel. They could not be the answer, and a call that
    /// is not sent certainly does not begin.
    fn check_empty(&self) -> io::Result<()> {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match recv(&self.socket, &mut [0], flags) {
            Ok((0, _)) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => {
                let text = "bytes arrived while no call was in progress";
                Err(io::Error::new(ErrorKind::InvalidData, text))
            }
            // No bytes, as expected. Any other error occurs again in the next step.
            Err(_) => Ok(()),
        }
    }

    fn stream(&self, deadline: Option<Instant>) -> Stream<'_, UnixStream> {
        Stream::new(&self.socket, deadline)
    }
}

impl WorkerChannels {
    /// The channels to a process, made from the server's ends of the socketpairs.
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

    /// Waits for the first message of the process.
    ///
    /// # Errors
    /// Why the script cannot be loaded; empty when the process ended without a message.
    pub fn wait_until_loaded(&self) -> Result<(), String> {
        let text = |e: io::Error| format!("its first message cannot be read: {e}");
        let mut channel = self.channels[0].stream(None);
        let Some(incoming) = Incoming::read(&mut channel).map_err(text)? else {
            return Err(String::new());
        };
        match incoming.head().map_err(text)? {
            Answer::Loaded {
                channels,
                shape,
                has_gevent,
                converts,
            } => {
                let loaded = Loaded {
                    channels: channels.clamp(1, self.channels.len()),
                    shape,
                    has_gevent,
                    converts,
                };
                // Cannot fail: a process sends this once.
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

    /// Sends a call on a channel that the caller alone uses, and waits for the answer. `head` makes the call from its
    /// number. The answer's body counts towards the memory of the request that `memory` belongs to. Returns the number
    /// and the outcome.
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
                // Cancelled first: the worker must not run the call with the zeros that replace the rest of its body.
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
            // The case in which calls are greenlets, which take turns.
            Some(loaded) if loaded.has_gevent && loaded.shape == Shape::Single => {
                self.record.turn().computed_until(now)
            }
            _ => Duration::ZERO,
        };
        (channel.sent).store(nanoseconds(now), Ordering::Relaxed);
        (channel.computed_before).store(nanoseconds(computed), Ordering::Relaxed);
        channel.outstanding.store(number, Ordering::Release);
    }

    /// Closes a channel after an error, because the start of the next frame is unknown.
    fn give_up_after(&self, channel: usize, error: &io::Error) -> Outcome {
        self.channels[channel].close();
        if error.kind() != ErrorKind::InvalidData {
            return Outcome::Lost;
        }
        self.garbled.store(true, Ordering::Relaxed);
        log::error!("closing a channel to a Python worker: {error}");
        Outcome::Garbled(error.to_string())
    }

    /// Sends the rest of the abandoned call on a channel and skips its answer. Waits without a limit.
    ///
    /// # Errors
    /// When the process has closed the channel; the caller then calls [`WorkerChannels::give_up`].
    pub fn finish(&self, channel: usize) -> io::Result<()> {
        let channel = &self.channels[channel];
        let abandoned = channel.abandoned.lock().take();
        if let Some(abandoned) = abandoned {
            abandoned.finish(&mut channel.stream(None))?;
        }
        channel.outstanding.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Closes this channel for good.
    pub fn give_up(&self, channel: usize) {
        let channel = &self.channels[channel];
        channel.close();
        *channel.abandoned.lock() = None;
        channel.outstanding.store(0, Ordering::Relaxed);
    }

    /// Notes how the process ended. Only the first call counts.
    pub fn note_end(&self, how: String) {
        self.end.lock().get_or_insert(how);
        self.has_ended.notify_all();
    }

    /// Returns how the process ended, after it closed its channels. Waits for [`WorkerChannels::note_end`], but not for
    /// long and not beyond `deadline`.
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
                return Ok("it closed the channel".into());
            }
            let waited;
            (end, waited) = self.has_ended.wait(end, Some(until));
            if waited == Err(WaitError::Cancelled) {
                return Err(WaitError::Cancelled);
            }
        }
    }

    /// Whether the process has ever answered a call.
    pub fn has_answered(&self) -> bool {
        self.last_answer.load(Ordering::Relaxed) > 0
    }

    /// Whether bytes other than an answer arrived on a channel, because the script wrote to it.
    pub fn has_garbled(&self) -> bool {
        self.garbled.load(Ordering::Relaxed)
    }

    /// How far a call had come when the process ended or its channel was closed.
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

    /// Whether calls have been running for longer than `limit` at `now` (by [`record::now`]), without the computing
    /// time of other greenlets. The first time, notes their numbers, whose [`Fate`] then is `Overdue`; later returns
    /// `false`.
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

    /// Whether a call has been waiting for longer than `limit` at `now` while no call began or ended: the process is
    /// stopped, or code other than a call holds the interpreter. Greenlets can take turns for longer than `limit`
    /// before one of them ends. Of that time only the part counts in which no greenlet computed, because the call could
    /// have begun then.
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

    /// Channels and numbers of the calls without an answer.
    fn unanswered(&self) -> impl Iterator<Item = (usize, u64)> {
        let numbers = (self.channels.iter()).map(|c| c.outstanding.load(Ordering::Acquire));
        numbers.enumerate().filter(|&(_, number)| number != 0)
    }

    /// Closes all channels. The process ends when it notices, and the calls on the channels are lost.
    pub fn close(&self) {
        self.channels.iter().for_each(Channel::close);
    }
}

/// Why a wait ended early, if this error means that it did.
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
