//! The part of an event loop that other threads use: they register files with it and wake its coroutines.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};

use super::Mutex;

/// Marks tokens of coroutines.
pub(super) const TASK: u64 = 1 << 63;
/// The token of the event that ends the worker's wait.
pub(super) const NUDGE: u64 = TASK - 1;

/// Identifies a file among the worker's own; less than 2^62.
pub type Token = u64;

/// The part of a reactor that other threads use.
#[derive(Debug)]
pub struct Remote {
    pub(super) epoll: OwnedFd,
    pub(super) event: OwnedFd,
    /// Coroutines to resume, with the number of the wait that is over.
    pub(super) woken: Mutex<Vec<(u32, u32)>>,
    /// Whether there is something to look for but events.
    pub(super) is_nudged: AtomicBool,
    /// Whether the worker waits for events, or is about to.
    pub(super) sleeps: AtomicBool,
}

impl Remote {
    /// The shared part of a reactor that is made by its own thread.
    ///
    /// # Errors
    /// When there are no descriptors.
    pub fn new() -> io::Result<Self> {
        let remote = Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            woken: Mutex::default(),
            is_nudged: AtomicBool::new(false),
            sleeps: AtomicBool::new(false),
        };
        remote.register(&remote.event, NUDGE, EventFlags::IN)?;
        Ok(remote)
    }

    /// Has the worker look for messages, soon.
    pub fn nudge(&self) {
        self.is_nudged.store(true, Ordering::SeqCst);
        if self.sleeps.swap(false, Ordering::SeqCst) {
            // It cannot be full: the worker empties it.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// Registers a file of the worker's own. It is gone with the file.
    ///
    /// # Errors
    /// The system's.
    pub fn register(&self, file: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            file,
            EventData::new_u64(token),
            flags,
        )?)
    }

    /// Watches a file no longer.
    ///
    /// # Errors
    /// The system's.
    pub fn unregister(&self, file: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, file)?)
    }
}
