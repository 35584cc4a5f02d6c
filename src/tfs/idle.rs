//! Connections to model servers that no request uses.
//!
//! ureq has such a pool of its own, which compares the addresses of all connections in it, twice a request. It is set to
//! keep none; a connection that may be used again comes here when ureq drops it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::tfs::connection::Connection;
use crate::wait::Mutex;

/// A connection that nothing has used for so long is closed when another one becomes idle.
const MAX_IDLE: Duration = Duration::from_secs(15);

/// Idle connections of one worker, the longest idle first.
#[derive(Debug)]
pub struct IdleConnections {
    list: Mutex<VecDeque<Idle>>,
    most: usize,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

impl IdleConnections {
    /// Keeps up to `most` connections.
    pub fn new(most: usize) -> Self {
        Self {
            list: Mutex::default(),
            most,
        }
    }

    /// The connection to this port that was used last and that the model server has not closed.
    pub fn take(&self, port: u16) -> Option<Connection> {
        loop {
            let connection = self.take_last(port)?;
            if connection.is_quiet() {
                return Some(connection);
            }
        }
    }

    fn take_last(&self, port: u16) -> Option<Connection> {
        let mut list = self.list.lock();
        let index = list
            .iter()
            .rposition(|idle| idle.connection.port() == port)?;
        Some(list.remove(index)?.connection)
    }

    /// Keeps a connection, and closes those that were idle for too long.
    pub fn put(&self, connection: Connection) {
        let since = Instant::now();
        let mut closed = Vec::new(); // without the lock
        let mut list = self.list.lock();
        list.push_back(Idle { connection, since });
        while let Some(first) = list.front()
            && (list.len() > self.most || since - first.since >= MAX_IDLE)
        {
            closed.extend(list.pop_front());
        }
        drop(list);
    }
}
