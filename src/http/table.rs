//! The table of open connections, by worker and by id.
//!
//! A connection is open as long as it is in the table. The listener adds connections; workers and eviction remove them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::http::socket::Socket;

/// All open connections, by worker. Each event looks one up; only new and closed connections change the table.
#[derive(Debug)]
pub struct Table<P> {
    workers: Vec<RwLock<Sockets<P>>>,
    /// Number of connections so far.
    last_number: AtomicU64,
}

type Sockets<P> = HashMap<u64, Arc<Socket<P>>>;

impl<P> Table<P> {
    /// An empty table for this many workers.
    pub fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers.max(1)).map(|_| RwLock::default()).collect(),
            last_number: AtomicU64::new(0),
        }
    }

    /// The id of a new connection for this worker: positive, and never reused.
    pub fn new_id(&self, worker: usize) -> u64 {
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        number * self.workers.len() as u64 + worker as u64
    }

    /// The worker with the fewest connections. If several have the fewest, `preferred` is chosen if it is one of them.
    pub fn least_loaded(&self, preferred: usize) -> usize {
        let load = |worker: usize| read(&self.workers[worker]).len();
        let all = 0..self.workers.len();
        let best = all.min_by_key(|&worker| (load(worker), worker != preferred));
        best.unwrap_or(preferred)
    }

    /// Adds a connection to its worker.
    pub fn insert(&self, socket: Arc<Socket<P>>) {
        write(self.of_id(socket.id)).insert(socket.id, socket);
    }

    /// Removes a connection. Dropping the last reference closes the socket, which also removes it from the event loop.
    pub fn remove(&self, socket: &Socket<P>) {
        let removed = write(self.of_id(socket.id)).remove(&socket.id);
        drop(removed);
    }

    /// The connection with this id, if it is open.
    pub fn get(&self, id: u64) -> Option<Arc<Socket<P>>> {
        read(self.of_id(id)).get(&id).map(Arc::clone)
    }

    /// All connections.
    pub fn all(&self) -> Vec<Arc<Socket<P>>> {
        let workers = 0..self.workers.len();
        workers.flat_map(|worker| self.of_worker(worker)).collect()
    }

    /// All connections of one worker.
    pub fn of_worker(&self, worker: usize) -> Vec<Arc<Socket<P>>> {
        read(&self.workers[worker])
            .values()
            .map(Arc::clone)
            .collect()
    }

    /// The number of open connections.
    pub fn len(&self) -> usize {
        self.workers.iter().map(|sockets| read(sockets).len()).sum()
    }

    fn of_id(&self, id: u64) -> &RwLock<Sockets<P>> {
        &self.workers[(id % self.workers.len() as u64) as usize]
    }
}

fn read<P>(sockets: &RwLock<Sockets<P>>) -> RwLockReadGuard<'_, Sockets<P>> {
    sockets.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<P>(sockets: &RwLock<Sockets<P>>) -> RwLockWriteGuard<'_, Sockets<P>> {
    sockets.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpListener, TcpStream};

    use super::*;
    use crate::budget::Budget;

    fn socket(id: u64, worker: usize) -> Arc<Socket<()>> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let peer = IpAddr::from([127, 0, 0, 1]);
        Arc::new(Socket::new(id, stream, peer, worker, &Budget::new(1)))
    }

    fn ids(sockets: &[Arc<Socket<()>>]) -> Vec<u64> {
        let mut ids = Vec::from_iter(sockets.iter().map(|socket| socket.id));
        ids.sort_unstable();
        ids
    }

    #[test]
    fn new_connections_go_to_the_worker_with_the_fewest() {
        let table = Table::new(3);
        assert_eq!(table.least_loaded(2), 2, "they are equal");
        for (id, worker) in [(5, 2), (3, 0), (8, 2)] {
            table.insert(socket(id, worker));
        }
        assert_eq!(table.least_loaded(2), 1);
        table.insert(socket(4, 1));
        assert_eq!(table.least_loaded(1), 1);
        assert_eq!(table.least_loaded(2), 0);
        // Removing a connection twice does no harm.
        let gone = table.get(8).unwrap();
        table.remove(&gone);
        table.remove(&gone);
        assert_eq!(table.least_loaded(2), 2);
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn finds_connections_by_id_and_by_worker() {
        let table = Table::new(2);
        for (id, worker) in [(2, 0), (3, 1), (4, 0)] {
            table.insert(socket(id, worker));
        }
        assert_eq!(ids(&table.all()), [2, 3, 4]);
        assert_eq!(ids(&table.of_worker(0)), [2, 4]);
        assert_eq!(ids(&table.of_worker(1)), [3]);
        table.remove(&table.get(2).unwrap());
        assert!(table.get(2).is_none());
        assert_eq!(ids(&table.of_worker(0)), [4]);
        assert_eq!((table.new_id(0) % 2, table.new_id(1) % 2), (0, 1));
    }
}
