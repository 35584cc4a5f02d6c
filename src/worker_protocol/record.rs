//! The record of a Python worker's calls: a small memory file that the server and the worker share.
//!
//! The worker notes each call before it runs the call, with one write that wakes no process. When the worker dies, the
//! server reads here which calls had begun, and gives the others to another worker. While the worker lives, the
//! watchdog reads here how long calls have been running. The server marks cancelled calls, which the worker then does
//! not run.

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
pub struct BegunCall {
    /// Number of the call; 0: no call has begun on this channel.
    pub number: u64,
    /// When the call began, by [`now`].
    pub at: Duration,
    /// The computing time of all greenlets when the call began, plus the call's own computing time since. The excess of
    /// [`Turn::computed`] over this is the computing time of other greenlets during the call.
    pub base: Duration,
}

/// The greenlet that is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// Calls are not greenlets, so computing time is not accounted.
    Unaccounted,
    /// gevent's hub, which waits for events.
    Hub,
    /// A greenlet that the script started.
    Other,
    /// The call on this channel.
    Call(usize),
}

/// The current turn in a worker whose calls are greenlets: the time since the latest switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The greenlet that is running.
    pub runs: Runs,
    /// When its turn began, by [`now`].
    pub since: Duration,
    /// The computing time of all greenlets except the hub, up to `since`.
    pub computed: Duration,
}

/// An entry has four fields of 8 bytes: a number and two times, which the worker writes, and the number of a cancelled
/// call, which the server writes. Entry 0 is the turn; the calls of the channels follow.
const ENTRY_BYTES: usize = 32;
const CANCELLED: Range<usize> = 24..ENTRY_BYTES;
/// The worker may be writing an entry, so an entry is read until two reads agree, at most this many times.
const MAX_READS: usize = 100;

/// The time on the monotonic clock, which all processes share and which is never set.
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Turn {
    /// The computing time of all greenlets up to `now`.
    pub fn computed_until(&self, now: Duration) -> Duration {
        match self.runs {
            Runs::Unaccounted | Runs::Hub => self.computed,
            Runs::Other | Runs::Call(_) => self.computed + now.saturating_sub(self.since),
        }
    }

    /// How long a call has been running at `now`, without the computing time of other greenlets.
    pub fn time_of(&self, channel: usize, call: BegunCall, now: Duration) -> Duration {
        let computed = match self.runs == Runs::Call(channel) {
            // The call's own computing time is added to its base only when its turn ends.
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
    /// An empty record for this number of channels.
    ///
    /// # Errors
    /// When file descriptors or memory are used up.
    pub fn new(channels: usize) -> io::Result<Self> {
        let file = File::from(memfd_create("calls", MemfdFlags::CLOEXEC)?);
        file.set_len(((1 + channels) * ENTRY_BYTES) as u64)?;
        Ok(Self(file))
    }

    /// The record in a file that the other side made.
    pub fn from_file(file: OwnedFd) -> Self {
        Self(file.into())
    }

    /// The file, to be passed to the other side.
    pub fn file(&self) -> &File {
        &self.0
    }

    /// Notes that a call begins now. Where calls are greenlets, [`Account::begin`] does this.
    ///
    /// # Errors
    /// When the file is closed, which a script can do; writing to a memory file does not fail otherwise.
    pub fn begin(&self, channel: usize, number: u64) -> io::Result<()> {
        let begun = BegunCall {
            number,
            at: now(),
            base: Duration::ZERO,
        };
        self.write_call(channel, begun)
    }

    /// The latest call that has begun on a channel.
    pub fn last(&self, channel: usize) -> BegunCall {
        let (number, at, base) = self.read(1 + channel);
        BegunCall { number, at, base }
    }

    /// The current turn. To be read after the calls: the worker writes the turn first, so a call that is read during a
    /// switch seems to have run for less time than it has, never for more.
    pub fn turn(&self) -> Turn {
        let (runs, since, computed) = self.read(0);
        Turn {
            runs: Runs::from_number(runs),
            since,
            computed,
        }
    }

    /// Marks a call as cancelled, because its request no longer waits for it.
    ///
    /// # Errors
    /// Those of [`Record::begin`].
    pub fn cancel(&self, channel: usize, number: u64) -> io::Result<()> {
        let offset = (1 + channel) * ENTRY_BYTES + CANCELLED.start;
        self.0.write_all_at(&number.to_le_bytes(), offset as u64)
    }

    /// Whether this call, the latest on its channel, is cancelled.
    ///
    /// # Errors
    /// Those of [`Record::begin`].
    pub fn is_cancelled(&self, channel: usize, number: u64) -> io::Result<bool> {
        let offset = (1 + channel) * ENTRY_BYTES + CANCELLED.start;
        let mut cancelled = [0; CANCELLED.end - CANCELLED.start];
        self.0.read_exact_at(&mut cancelled, offset as u64)?;
        Ok(u64::from_le_bytes(cancelled) == number)
    }

    fn write_call(&self, channel: usize, call: BegunCall) -> io::Result<()> {
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

/// The worker's side of the record when calls are greenlets: notes which greenlet runs, and for how long.
#[derive(Debug)]
pub struct Account {
    record: Arc<Record>,
    turn: Turn,
    calls: Vec<BegunCall>,
}

impl Account {
    /// An account that starts now, with the hub running and no computing time.
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

    /// Notes that the running greenlet begins this call.
    ///
    /// # Errors
    /// Those of [`Record::begin`].
    pub fn begin(&mut self, channel: usize, number: u64) -> io::Result<()> {
        let at = now();
        self.switched(Runs::Call(channel), at)?;
        let base = self.turn.computed;
        self.calls[channel] = BegunCall { number, at, base };
        self.record.write_call(channel, self.calls[channel])
    }

    /// Notes that the thread has switched to another greenlet at `now`.
    ///
    /// # Errors
    /// Those of [`Record::begin`].
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
    fn keeps_the_latest_call_of_each_channel() {
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
    fn cancels_one_call_of_one_channel() {
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

    /// A record and its account after calls have begun on all channels, and the time after that.
    fn account(channels: usize) -> (Arc<Record>, Account, Duration) {
        let record = Arc::new(Record::new(channels).unwrap());
        let mut account = Account::new(Arc::clone(&record), channels);
        (0..channels).for_each(|channel| account.begin(channel, 1).unwrap());
        let start = now();
        account.switched(Runs::Hub, start).unwrap();
        (record, account, start)
    }

    /// The time of the call on a channel in whole seconds, because the calls begin at slightly different times.
    fn seconds(record: &Record, channel: usize, now: Duration) -> u64 {
        let call = record.last(channel);
        let time = record.turn().time_of(channel, call, now);
        (time + SECOND / 2).as_secs()
    }

    #[test]
    fn computing_time_of_other_greenlets_does_not_count() {
        let (record, mut account, start) = account(3);
        let at = |seconds| start + SECOND * seconds;
        account.switched(Runs::Call(0), at(1)).unwrap();
        assert_eq!([0, 1, 2].map(|n| seconds(&record, n, at(4))), [4, 1, 1]);
        account.switched(Runs::Call(1), at(5)).unwrap();
        assert_eq!([0, 1, 2].map(|n| seconds(&record, n, at(7))), [5, 3, 1]);
        account.switched(Runs::Other, at(8)).unwrap();
        assert_eq!([0, 1, 2].map(|n| seconds(&record, n, at(18))), [5, 4, 1]);
        // While the hub waits, every call waits for its own event.
        account.switched(Runs::Hub, at(20)).unwrap();
        assert_eq!([0, 1, 2].map(|n| seconds(&record, n, at(25))), [10, 9, 6]);
    }

    #[test]
    fn next_call_of_a_channel_begins_at_zero() {
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
    fn all_time_counts_without_an_account() {
        let record = Record::new(1).unwrap();
        record.begin(0, 1).unwrap();
        let at = record.last(0).at;
        assert_eq!(record.turn().runs, Runs::Unaccounted);
        assert_eq!(seconds(&record, 0, at + SECOND * 7), 7);
    }
}
