//! A client's socket, and the state of the connection on it.

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

/// A client's socket. It belongs to one worker, which alone reads requests from it.
#[derive(Debug)]
pub struct Socket<P> {
    /// Its number, never used again.
    pub id: u64,
    /// The socket, which does not block.
    pub stream: TcpStream,
    /// The client's address.
    pub peer: IpAddr,
    /// Number of the worker.
    pub worker: usize,
    connection: Mutex<Connection<Planned<P>>>,
    /// The request at work.
    running: Mutex<Option<Running>>,
    /// Whether the system has reported that the client sends nothing more.
    has_hung_up: AtomicBool,
    /// Whether the connection is gone in both directions.
    is_reset: AtomicBool,
    /// Whether something was reported that could not be read then.
    has_news: AtomicBool,
}

/// How a client has hung up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HangUp {
    /// It sends nothing more.
    Sending,
    /// It neither sends nor reads.
    Both,
}

/// Blank lines behind a request are no other request; some clients send one.
const MAX_BLANK_BYTES: usize = 4;

/// How a request at work can be cancelled.
#[derive(Debug)]
pub enum Running {
    /// A coroutine of the socket's worker.
    Coroutine(TaskId),
    /// A thread.
    Thread(Canceller),
}

impl<P> Socket<P> {
    /// A socket that was just accepted.
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
            has_news: AtomicBool::new(false),
        }
    }

    /// Locks the connection's state: held by its worker, or by the search for a connection to close.
    pub fn connection(&self) -> MutexGuard<'_, Connection<Planned<P>>> {
        self.connection.lock()
    }

    /// The same, if nobody holds it.
    pub fn try_connection(&self) -> Option<MutexGuard<'_, Connection<Planned<P>>>> {
        self.connection.try_lock()
    }

    /// Notes what cancels the request at work.
    pub fn set_running(&self, running: Option<Running>) {
        *self.running.lock() = running;
    }

    /// Takes what cancels the request at work.
    pub fn take_running(&self) -> Option<Running> {
        self.running.lock().take()
    }

    /// Notes that something was reported that cannot be read now: it is not reported again.
    pub fn note_news(&self) {
        self.has_news.store(true, Ordering::Relaxed);
    }

    /// Whether something was reported that has not been seen to: since the last call, or the end of what the client sends.
    pub fn take_news(&self) -> bool {
        self.has_news.swap(false, Ordering::Relaxed) || self.has_hung_up.load(Ordering::Relaxed)
    }

    /// Notes that the client has hung up.
    pub fn note_hang_up(&self, how: HangUp) {
        self.has_hung_up.store(true, Ordering::Relaxed);
        if how == HangUp::Both {
            self.is_reset.store(true, Ordering::Relaxed);
        }
    }

    /// Whether nobody waits for the response to the request at work: the client reads nothing more, or it sends nothing more
    /// and no other request stands behind this one.
    pub fn has_hung_up(&self) -> bool {
        self.is_reset.load(Ordering::Relaxed)
            || self.has_hung_up.load(Ordering::Relaxed)
                && !self.connection().has_request_behind()
                && self.ends_with_blank_lines()
    }

    /// Whether what is still to be read from the system is nothing, or blank lines up to the end.
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
