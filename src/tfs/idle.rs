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
        self.put_at(connection, Instant::now());
    }

    fn put_at(&self, connection: Connection, since: Instant) {
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    fn listen() -> (TcpListener, u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    fn connect(port: u16) -> Connection {
        Connection::new(port, Instant::now() + Duration::from_secs(60)).unwrap()
    }

    fn id(connection: &Connection) -> u16 {
        connection.local_port()
    }

    #[test]
    fn the_one_used_last_comes_first_and_only_for_its_port() {
        let idle = IdleConnections::new(10);
        let ((_a, a), (_b, b)) = (listen(), listen());
        let connections = [connect(a), connect(b), connect(a), connect(b)];
        let ids = connections.each_ref().map(id);
        connections.into_iter().for_each(|c| idle.put(c));
        let take = |port| idle.take(port).map(|connection| id(&connection));
        assert_eq!(take(a), Some(ids[2]));
        assert_eq!(take(a), Some(ids[0]));
        assert_eq!(take(a), None);
        assert_eq!(take(b), Some(ids[3]));
    }

    #[test]
    fn the_longest_idle_is_closed_when_there_are_too_many() {
        let idle = IdleConnections::new(2);
        let (_listener, port) = listen();
        let connections = [connect(port), connect(port), connect(port)];
        let ids = connections.each_ref().map(id);
        connections.into_iter().for_each(|c| idle.put(c));
        let take = || idle.take(port).map(|connection| id(&connection));
        assert_eq!([take(), take(), take()], [Some(ids[2]), Some(ids[1]), None]);
    }

    #[test]
    fn what_was_idle_for_too_long_is_closed_whatever_its_port() {
        let idle = IdleConnections::new(10);
        let ((_a, a), (_b, b)) = (listen(), listen());
        let now = Instant::now();
        idle.put_at(connect(a), now);
        idle.put_at(connect(a), now + MAX_IDLE / 2);
        idle.put_at(connect(b), now + MAX_IDLE);
        assert!(idle.take(a).is_some());
        assert!(idle.take(a).is_none());
        assert!(idle.take(b).is_some());
    }
}
