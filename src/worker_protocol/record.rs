//! Which calls a Python worker has begun, and when: a small file in memory that both sides hold.
//!
//! The worker notes a call before it runs it, with one write and without waking anybody. When the worker dies, the
//! server reads here which calls had begun; the others can be given to another worker. While it lives, the watchdog
//! reads here how long a call has been running. The server notes which calls are cancelled: the worker does not run those
//! that it has yet to begin.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::time::{ClockId, clock_gettime};

/// The record of one worker.
#[derive(Debug)]
pub struct Record(File);

/// A call that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// Number of the call; 0: none has begun on this channel.
    pub number: u64,
    /// When, by [`now`].
    pub at: Duration,
    /// What all greenlets together had computed when it began, and what it has computed since: of [`Turn::computed`],
    /// what lies beyond this is others' computing during the call.
    pub base: Duration,
}

/// The greenlet that has the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// Calls are not greenlets, so nothing is accounted.
    Unaccounted,
    /// gevent's hub, which waits for events.
    Hub,
    /// A greenlet that the script started.
    Other,
    /// The call on this channel.
    Call(usize),
}

/// The current turn in a worker whose calls are greenlets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The greenlet that has the thread.
    pub runs: Runs,
    /// Since when, by [`now`].
    pub since: Duration,
    /// What all greenlets but the hub had computed by then.
    pub computed: Duration,
}

/// A number and two times, which the worker writes, and the number of a cancelled call, which the server writes; each has 8
/// bytes. The first entry is the turn, then comes the call of each channel.
const ENTRY_BYTES: usize = 32;
const CANCELLED: Range<usize> = 24..ENTRY_BYTES;
/// An entry is read again, at most this often, until two reads agree: the worker may be writing it.
const MAX_READS: usize = 100;

/// Time on the clock that all processes share and nobody sets.
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Turn {
    /// What all greenlets have computed until `now`.
    pub fn computed_until(&self, now: Duration) -> Duration {
        match self.runs {
            Runs::Unaccounted | Runs::Hub => self.computed,
            Runs::Other | Runs::Call(_) => self.computed + now.saturating_sub(self.since),
        }
    }

    /// How long a call has been running, without what others computed meanwhile.
    pub fn time_of(&self, channel: usize, call: Begun, now: Duration) -> Duration {
        let computed = match self.runs == Runs::Call(channel) {
            // Its own computing is added to its base at the end of its turn.
            true => self.computed,
            false => self.computed_until(now),
        };
        let others = computed.saturating_sub(call.base);
        now.saturating_sub(call.at).saturating_sub(others)
    }
}

impl Runs {
    fn number(self) -> u64 {
        match self {
            Self::Unaccounted => 0,
            Self::Hub => 1,
            Self::Other => 2,
            Self::Call(channel) => 3 + channel as u64,
        }
    }

    fn from_number(number: u64) -> Self {
        match number {
            0 => Self::Unaccounted,
            1 => Self::Hub,
            2 => Self::Other,
            call => Self::Call((call - 3) as usize),
        }
    }
}

impl Record {
    /// An empty one for so many channels.
    ///
    /// # Errors
    /// When there are no file descriptors or memory left.
    pub fn new(channels: usize) -> io::Result<Self> {
        let file = File::from(memfd_create("calls", MemfdFlags::CLOEXEC)?);
        file.set_len(((1 + channels) * ENTRY_BYTES) as u64)?;
        Ok(Self(file))
    }

    /// One that was made by the other side.
    pub fn from_file(file: OwnedFd) -> Self {
        Self(file.into())
    }

    /// The file, for the other side.
    pub fn file(&self) -> &File {
        &self.0
    }

    /// Notes that a call begins now. Where calls are greenlets, [`Account::begin`] does this.
    ///
    /// # Errors
    /// None that is known of: the file is in memory.
    pub fn begin(&self, channel: usize, number: u64) -> io::Result<()> {
        let begun = Begun {
            number,
            at: now(),
            base: Duration::ZERO,
        };
        self.write_call(channel, begun)
    }

    /// The last call that has begun on a channel.
    pub fn last(&self, channel: usize) -> Begun {
        let (number, at, base) = self.read(1 + channel);
        Begun { number, at, base }
    }

    /// The current turn. Read it after the calls: the worker writes it before them, so a call read during a switch
    /// appears to have run for less time than it has, never for more.
    pub fn turn(&self) -> Turn {
        let (runs, since, computed) = self.read(0);
        Turn {
            runs: Runs::from_number(runs),
            since,
            computed,
        }
    }

    /// Notes that nobody waits for a call any more.
    ///
    /// # Errors
    /// As [`Record::begin`].
    pub fn cancel(&self, channel: usize, number: u64) -> io::Result<()> {
        let offset = (1 + channel) * ENTRY_BYTES + CANCELLED.start;
        self.0.write_all_at(&number.to_le_bytes(), offset as u64)
    }

    /// Whether nobody waits any more for this call, the latest on its channel.
    ///
    /// # Errors
    /// As [`Record::begin`].
    pub fn is_cancelled(&self, channel: usize, number: u64) -> io::Result<bool> {
        let offset = (1 + channel) * ENTRY_BYTES + CANCELLED.start;
        let mut cancelled = [0; CANCELLED.end - CANCELLED.start];
        self.0.read_exact_at(&mut cancelled, offset as u64)?;
        Ok(u64::from_le_bytes(cancelled) == number)
    }

    fn write_call(&self, channel: usize, call: Begun) -> io::Result<()> {
        self.write(1 + channel, call.number, call.at, call.base)
    }

    fn write_turn(&self, turn: Turn) -> io::Result<()> {
        self.write(0, turn.runs.number(), turn.since, turn.computed)
    }

    fn write(&self, place: usize, number: u64, a: Duration, b: Duration) -> io::Result<()> {
        let mut entry = [0; CANCELLED.start];
        entry[..8].copy_from_slice(&number.to_le_bytes());
        entry[8..16].copy_from_slice(&(a.as_nanos() as u64).to_le_bytes());
        entry[16..].copy_from_slice(&(b.as_nanos() as u64).to_le_bytes());
        self.0.write_all_at(&entry, (place * ENTRY_BYTES) as u64)
    }

    fn read(&self, place: usize) -> (u64, Duration, Duration) {
        let read = || {
            let mut entry = [0u8; ENTRY_BYTES];
            let offset = (place * ENTRY_BYTES) as u64;
            if let Err(e) = self.0.read_exact_at(&mut entry, offset) {
                log::error!("the record of calls cannot be read: {e}");
            }
            entry
        };
        let mut entry = read();
        for _ in 0..MAX_READS {
            let again = read();
            if again == entry {
                break;
            }
            entry = again;
        }
        let [number, a, b] = [0, 8, 16].map(|start| {
            let bytes = entry[start..].first_chunk().expect("8 bytes");
            u64::from_le_bytes(*bytes)
        });
        (number, Duration::from_nanos(a), Duration::from_nanos(b))
    }
}

/// The worker's side of the record when calls are greenlets: which greenlet computes, and for how long.
#[derive(Debug)]
pub struct Account {
    record: Arc<Record>,
    turn: Turn,
    calls: Vec<Begun>,
}

impl Account {
    /// Nothing has been computed yet, and the hub has the thread.
    pub fn new(record: Arc<Record>, channels: usize) -> Self {
        let turn = Turn {
            runs: Runs::Hub,
            since: now(),
            computed: Duration::ZERO,
        };
        let calls = (0..channels).map(|channel| record.last(channel)).collect();
        Self {
            record,
            turn,
            calls,
        }
    }

    /// The greenlet that has the thread has just read this call.
    ///
    /// # Errors
    /// As [`Record::begin`].
    pub fn begin(&mut self, channel: usize, number: u64) -> io::Result<()> {
        let at = now();
        self.switched(Runs::Call(channel), at)?;
        let base = self.turn.computed;
        self.calls[channel] = Begun { number, at, base };
        self.record.write_call(channel, self.calls[channel])
    }

    /// The thread goes over to another greenlet.
    ///
    /// # Errors
    /// As [`Record::begin`].
    pub fn switched(&mut self, runs: Runs, now: Duration) -> io::Result<()> {
        let before = self.turn;
        self.turn = Turn {
            runs,
            since: now,
            computed: before.computed_until(now),
        };
        self.record.write_turn(self.turn)?;
        if let Runs::Call(channel) = before.runs {
            self.calls[channel].base += self.turn.computed - before.computed;
            self.record.write_call(channel, self.calls[channel])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_has_its_last_call() {
        let record = Record::new(3).unwrap();
        assert_eq!(record.last(2).number, 0);
        let before = now();
        record.begin(2, 5).unwrap();
        record.begin(0, u64::MAX).unwrap();
        let other_side = Record::from_file(record.file().try_clone().unwrap().into());
        let begun = other_side.last(2);
        assert_eq!(begun.number, 5);
        assert!(before <= begun.at && begun.at <= now());
        assert_eq!(other_side.last(0).number, u64::MAX);
        assert_eq!(other_side.last(1).number, 0);
    }

    #[test]
    fn a_cancelled_call_is_one_call_of_one_channel() {
        let record = Record::new(2).unwrap();
        let worker = Record::from_file(record.file().try_clone().unwrap().into());
        record.cancel(1, 7).unwrap();
        worker.begin(1, 7).unwrap();
        assert!(
            worker.is_cancelled(1, 7).unwrap(),
            "beginning changes nothing"
        );
        assert!(!worker.is_cancelled(0, 7).unwrap());
        assert!(!worker.is_cancelled(1, 8).unwrap());
        record.cancel(1, 8).unwrap();
        assert_eq!(record.last(1).number, 7, "cancelling changes nothing else");
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// A record and its account, with calls begun on all channels; the moment after.
    fn account(channels: usize) -> (Arc<Record>, Account, Duration) {
        let record = Arc::new(Record::new(channels).unwrap());
        let mut account = Account::new(Arc::clone(&record), channels);
        (0..channels).for_each(|channel| account.begin(channel, 1).unwrap());
        let start = now();
        account.switched(Runs::Hub, start).unwrap();
        (record, account, start)
    }

    /// Time of the call on a channel, in whole seconds: calls do not begin in exactly the same moment.
    fn seconds(record: &Record, channel: usize, now: Duration) -> u64 {
        let call = record.last(channel);
        let time = record.turn().time_of(channel, call, now);
        (time + SECOND / 2).as_secs()
    }

    #[test]
    fn what_others_compute_does_not_count() {
        let (record, mut account, start) = account(3);
        let at = |seconds| start + SECOND * seconds;
        account.switched(Runs::Call(0), at(1)).unwrap();
        assert_eq!([0, 1, 2].map(|n| seconds(&record, n, at(4))), [4, 1, 1]);
        account.switched(Runs::Call(1), at(5)).unwrap();
        assert_eq!([0, 1, 2].map(|n| seconds(&record, n, at(7))), [5, 3, 1]);
        account.switched(Runs::Other, at(8)).unwrap();
        assert_eq!([0, 1, 2].map(|n| seconds(&record, n, at(18))), [5, 4, 1]);
        // While the hub waits, all wait for something of their own.
        account.switched(Runs::Hub, at(20)).unwrap();
        assert_eq!([0, 1, 2].map(|n| seconds(&record, n, at(25))), [10, 9, 6]);
    }

    #[test]
    fn the_next_call_of_a_channel_begins_at_nothing() {
        let (record, mut account, start) = account(2);
        account.switched(Runs::Call(0), start).unwrap();
        account.switched(Runs::Call(1), start + SECOND * 5).unwrap();
        account.switched(Runs::Hub, start + SECOND * 9).unwrap();
        account.turn.since = now();
        account.begin(1, 2).unwrap();
        let begun = record.last(1);
        assert_eq!(begun.number, 2);
        assert_eq!(seconds(&record, 1, begun.at), 0);
        assert_eq!(seconds(&record, 1, begun.at + SECOND * 3), 3);
    }

    #[test]
    fn without_an_account_all_time_counts() {
        let record = Record::new(1).unwrap();
        record.begin(0, 1).unwrap();
        let at = record.last(0).at;
        assert_eq!(record.turn().runs, Runs::Unaccounted);
        assert_eq!(seconds(&record, 0, at + SECOND * 7), 7);
    }
}
