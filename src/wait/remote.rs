//! The part of an event loop that other threads use, to register files and to wake its coroutines.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};

use super::Mutex;

/// The bit that marks tokens of coroutines.
pub(super) const TASK: u64 = 1 << 63;
/// The token of the eventfd that wakes the worker.
pub(super) const NUDGE: u64 = TASK - 1;

/// Identifies one of the worker's own files. Less than 2^62.
pub type Token = u64;

/// A handle to a reactor for other threads.
#[derive(Debug)]
pub struct Remote {
    pub(super) epoll: OwnedFd,
    /// An eventfd that wakes the worker.
    pub(super) event: OwnedFd,
    /// Coroutines to resume: slot index, and id of the wait that has ended.
    pub(super) woken: Mutex<Vec<(u32, u32)>>,
    /// Whether the worker has to check for more than events.
    pub(super) is_nudged: AtomicBool,
    /// Whether the worker is waiting for events, or about to.
    pub(super) sleeps: AtomicBool,
}

impl Remote {
    /// Creates the handle first; the reactor's own thread then creates the reactor from it.
    ///
    /// # Errors
    /// When no descriptors are left.
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

    /// Wakes the worker, so that it checks for messages and woken coroutines.
    pub fn nudge(&self) {
        self.is_nudged.store(true, Ordering::SeqCst);
        if self.sleeps.swap(false, Ordering::SeqCst) {
            // The counter cannot overflow: the worker resets it.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// Registers one of the worker's own files. Closing the file ends the registration.
    ///
    /// # Errors
    /// The system's error.
    pub fn register(&self, file: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            file,
            EventData::new_u64(token),
            flags,
        )?)
    }

    /// Stops watching a file.
    ///
    /// # Errors
    /// The system's error.
    pub fn unregister(&self, file: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, file)?)
    }
}
