//! A connection to a client: its socket, and what happens on it.

use std::io::{self, IoSlice, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::http::budget::Budget;
use crate::http::connection::{Direction, Exchange, Stream};

/// A connection to a client.
#[derive(Debug)]
pub struct Connection {
    /// Its number, never used again.
    pub id: u64,
    /// The socket, which does not block.
    pub socket: TcpStream,
    /// The client's address.
    pub peer: IpAddr,
    exchange: Mutex<Exchange>,
}

impl Connection {
    /// A connection that was just made.
    pub fn new(id: u64, socket: TcpStream, peer: IpAddr, budget: &Arc<Budget>) -> Self {
        Self {
            id,
            socket,
            peer,
            exchange: Mutex::new(Exchange::new(Instant::now(), budget)),
        }
    }

    /// What happens on it. Whoever got its event has it, and whoever looks after slow ones.
    pub fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, if nobody has it.
    pub fn try_exchange(&self) -> Option<MutexGuard<'_, Exchange>> {
        match self.exchange.try_lock() {
            Ok(exchange) => Some(exchange),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl Stream for Connection {
    fn receive(&self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        Ok(rustix::io::read(&self.socket, spare_capacity(bytes))?)
    }

    fn send(&self, parts: &[IoSlice]) -> io::Result<usize> {
        (&self.socket).write_vectored(parts)
    }

    fn is_ready(&self, direction: Direction) -> bool {
        let flags = match direction {
            Direction::In => PollFlags::IN,
            Direction::Out => PollFlags::OUT,
        };
        let mut polled = [PollFd::new(&self.socket, flags)];
        let at_once = Timespec::default();
        poll(&mut polled, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    fn finish(&self) {
        // The client may be gone, which is fine.
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}
