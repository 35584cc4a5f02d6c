//! Idle connections to TFS instances.
//!
//! ureq has a pool of its own, but compares the addresses of all connections in it twice for each request. So ureq is
//! set to keep no idle connections; a reusable connection comes here when ureq drops it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::tfs::connection::Connection;
use crate::wait::Mutex;

/// A connection that has been idle this long is closed when another one becomes idle.
const MAX_IDLE: Duration = Duration::from_secs(15);

/// The idle connections of one agent, the longest idle first.
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
    /// An empty list that keeps up to `most` connections.
    pub fn new(most: usize) -> Self {
        Self {
            list: Mutex::default(),
            most,
        }
    }

    /// The most recently used connection to this port that TFS has not closed.
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

    /// Keeps a connection, and closes connections that have been idle for too long.
    pub fn put(&self, connection: Connection) {
        self.put_at(connection, Instant::now());
    }

    fn put_at(&self, connection: Connection, since: Instant) {
        // Dropped after the lock, so that no thread waits while the system closes connections.
        let mut closed = Vec::new();
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
    fn take_returns_the_most_recently_used_connection_to_the_port() {
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
    fn put_closes_the_longest_idle_connection_when_the_list_is_full() {
        let idle = IdleConnections::new(2);
        let (_listener, port) = listen();
        let connections = [connect(port), connect(port), connect(port)];
        let ids = connections.each_ref().map(id);
        connections.into_iter().for_each(|c| idle.put(c));
        let take = || idle.take(port).map(|connection| id(&connection));
        assert_eq!([take(), take(), take()], [Some(ids[2]), Some(ids[1]), None]);
    }

    #[test]
    fn put_closes_connections_to_any_port_that_were_idle_for_too_long() {
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
