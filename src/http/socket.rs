//! A client's socket with the state of its connection: reading and writing, hang-ups, and cancelling the running
//! request.

use std::io::{self, IoSlice, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::budget::Budget;
use crate::http::connection::{Connection, Direction, Stream};
use crate::http::head;
use crate::http::service::Planned;
use crate::wait::{Canceller, Mutex, MutexGuard, TaskId};

/// A client's socket. It belongs to one worker, and only that worker reads requests from it.
#[derive(Debug)]
pub struct Socket<P> {
    /// The id, which is never reused.
    pub id: u64,
    /// The socket, in non-blocking mode.
    pub stream: TcpStream,
    /// The client's address.
    pub peer: IpAddr,
    /// The number of its worker.
    pub worker: usize,
    connection: Mutex<Connection<Planned<P>>>,
    /// How to cancel the running request.
    running: Mutex<Option<Running>>,
    /// Whether the system has reported that the client will send nothing more.
    has_hung_up: AtomicBool,
    /// Whether the connection has ended in both directions.
    is_reset: AtomicBool,
    /// Whether an event arrived while the connection could not read. It is not reported again.
    has_missed_event: AtomicBool,
}

/// How a client has hung up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HangUp {
    /// The client sends nothing more, but may still read.
    Sending,
    /// The client neither sends nor reads.
    Both,
}

/// Up to this many bytes of blank lines after a request are not another request: some clients send a blank line.
const MAX_BLANK_BYTES: usize = 4;

/// How to cancel a running request.
#[derive(Debug)]
pub enum Running {
    /// It is a coroutine of the socket's worker.
    Coroutine(TaskId),
    /// It runs on a thread.
    Thread(Canceller),
}

impl<P> Socket<P> {
    /// A socket that was just accepted, for this worker.
    pub fn new(
        id: u64,
        stream: TcpStream,
        peer: IpAddr,
        worker: usize,
        budget: &Arc<Budget>,
    ) -> Self {
        Self {
            id,
            stream,
            peer,
            worker,
            connection: Mutex::new(Connection::new(Instant::now(), budget)),
            running: Mutex::default(),
            has_hung_up: AtomicBool::new(false),
            is_reset: AtomicBool::new(false),
            has_missed_event: AtomicBool::new(false),
        }
    }

    /// Locks the connection's state, which its worker uses, and the search for a connection to close.
    pub fn connection(&self) -> MutexGuard<'_, Connection<Planned<P>>> {
        self.connection.lock()
    }

    /// Locks the connection's state unless it is locked.
    pub fn try_connection(&self) -> Option<MutexGuard<'_, Connection<Planned<P>>>> {
        self.connection.try_lock()
    }

    /// Stores how to cancel the running request.
    pub fn set_running(&self, running: Option<Running>) {
        *self.running.lock() = running;
    }

    /// Takes how to cancel the running request.
    pub fn take_running(&self) -> Option<Running> {
        self.running.lock().take()
    }

    /// Records an event that cannot be handled now. Epoll will not report it again.
    pub fn note_missed_event(&self) {
        self.has_missed_event.store(true, Ordering::Relaxed);
    }

    /// Whether an event was missed since the last call. Always true once the client has hung up.
    pub fn take_missed_event(&self) -> bool {
        self.has_missed_event.swap(false, Ordering::Relaxed)
            || self.has_hung_up.load(Ordering::Relaxed)
    }

    /// Records that the client has hung up.
    pub fn note_hang_up(&self, how: HangUp) {
        self.has_hung_up.store(true, Ordering::Relaxed);
        if how == HangUp::Both {
            self.is_reset.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the client no longer waits for the response to the running request: it has stopped reading, or has
    /// stopped sending with no request after this one.
    pub fn has_hung_up(&self) -> bool {
        self.is_reset.load(Ordering::Relaxed)
            || self.has_hung_up.load(Ordering::Relaxed)
                && !self.connection().has_next_request()
                && self.ends_with_blank_lines()
    }

    /// Whether the unread bytes are at most blank lines, up to the end of what the client sends.
    fn ends_with_blank_lines(&self) -> bool {
        let mut bytes = [0u8; MAX_BLANK_BYTES + 1];
        match recv(
            &self.stream,
            &mut bytes,
            RecvFlags::PEEK | RecvFlags::DONTWAIT,
        ) {
            Ok((amount, _)) => amount <= MAX_BLANK_BYTES && head::is_blank(&bytes[..amount]),
            Err(Errno::AGAIN | Errno::INTR) => false,
            Err(_) => true,
        }
    }
}

impl<P> Stream for Socket<P> {
    fn receive(&self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        Ok(rustix::io::read(&self.stream, spare_capacity(bytes))?)
    }

    fn send(&self, parts: &[IoSlice]) -> io::Result<usize> {
        (&self.stream).write_vectored(parts)
    }

    fn is_ready(&self, direction: Direction) -> bool {
        let flags = match direction {
            Direction::In => PollFlags::IN,
            Direction::Out => PollFlags::OUT,
        };
        let mut polled = [PollFd::new(&self.stream, flags)];
        let at_once = Timespec::default();
        poll(&mut polled, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    fn finish(&self) {
        // The client may be gone, which is fine.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}
