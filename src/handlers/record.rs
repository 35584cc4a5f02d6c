//! Which calls a Python worker has begun, and when: a small file in memory that both sides hold.
//!
//! The worker notes a call before it runs it, with one write and without waking anybody. When the worker dies, the
//! server reads here which calls had begun; the others can be given to another worker. While it lives, the watchdog
//! reads here how long a call has been running.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
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
}

/// Number and nanoseconds, each 8 bytes, for each channel.
const ENTRY_BYTES: usize = 16;

/// Time on the clock that all processes share and nobody sets.
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Record {
    /// An empty one for so many channels.
    ///
    /// # Errors
    /// When there are no file descriptors or memory left.
    pub fn new(channels: usize) -> io::Result<Self> {
        let file = File::from(memfd_create("calls", MemfdFlags::CLOEXEC)?);
        file.set_len((channels * ENTRY_BYTES) as u64)?;
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

    /// Notes that a call begins now.
    ///
    /// # Errors
    /// None that is known of: the file is in memory.
    pub fn begin(&self, channel: usize, number: u64) -> io::Result<()> {
        let mut entry = [0; ENTRY_BYTES];
        entry[..8].copy_from_slice(&number.to_le_bytes());
        entry[8..].copy_from_slice(&(now().as_nanos() as u64).to_le_bytes());
        self.0.write_all_at(&entry, (channel * ENTRY_BYTES) as u64)
    }

    /// The last call that has begun on a channel.
    pub fn last(&self, channel: usize) -> Begun {
        let mut entry = [0u8; ENTRY_BYTES];
        if let Err(e) = self
            .0
            .read_exact_at(&mut entry, (channel * ENTRY_BYTES) as u64)
        {
            log::error!("the record of calls cannot be read: {e}");
        }
        let [number, at] = [0, 8].map(|start| {
            let bytes = entry[start..].first_chunk().expect("8 bytes");
            u64::from_le_bytes(*bytes)
        });
        Begun {
            number,
            at: Duration::from_nanos(at),
        }
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
}
