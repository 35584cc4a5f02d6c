//! The open connections, by number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::http::socket::Socket;

/// All open connections: looked up for each event, changed when one begins or ends.
#[derive(Debug)]
pub struct Table<P> {
    sockets: RwLock<HashMap<u64, Arc<Socket<P>>>>,
    /// How many each worker has.
    loads: Vec<AtomicUsize>,
}

impl<P> Table<P> {
    /// Without connections, for so many workers.
    pub fn new(workers: usize) -> Self {
        Self {
            sockets: RwLock::default(),
            loads: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
        }
    }

    /// The worker with the fewest connections; `preferred` if it has no more than the others.
    pub fn least_loaded(&self, preferred: usize) -> usize {
        let load = |worker: usize| self.loads[worker].load(Ordering::Relaxed);
        let best = (0..self.loads.len()).min_by_key(|&worker| (load(worker), worker != preferred));
        best.unwrap_or(preferred)
    }

    /// Adds a connection.
    pub fn insert(&self, socket: Arc<Socket<P>>) {
        self.loads[socket.worker].fetch_add(1, Ordering::Relaxed);
        self.write().insert(socket.id, socket);
    }

    /// Removes a connection. Its socket is closed, and with that leaves its worker's event loop, when the last reference goes.
    pub fn remove(&self, socket: &Socket<P>) {
        let removed = self.write().remove(&socket.id);
        if removed.is_some() {
            self.loads[socket.worker].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The connection with this number, if it is open.
    pub fn get(&self, id: u64) -> Option<Arc<Socket<P>>> {
        self.read().get(&id).map(Arc::clone)
    }

    /// All connections.
    pub fn all(&self) -> Vec<Arc<Socket<P>>> {
        self.read().values().map(Arc::clone).collect()
    }

    /// All connections of one worker.
    pub fn of_worker(&self, worker: usize) -> Vec<Arc<Socket<P>>> {
        let sockets = self.read();
        let own = sockets.values().filter(|socket| socket.worker == worker);
        own.map(Arc::clone).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.read().len()
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<u64, Arc<Socket<P>>>> {
        self.sockets.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<u64, Arc<Socket<P>>>> {
        self.sockets.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpListener, TcpStream};

    use super::*;
    use crate::http::budget::Budget;

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
        for (id, worker) in [(1, 2), (2, 0), (3, 2)] {
            table.insert(socket(id, worker));
        }
        assert_eq!(table.least_loaded(2), 1);
        table.insert(socket(4, 1));
        assert_eq!(table.least_loaded(1), 1);
        assert_eq!(table.least_loaded(2), 0);
        // Twice is once.
        let gone = table.get(3).unwrap();
        table.remove(&gone);
        table.remove(&gone);
        assert_eq!(table.least_loaded(2), 2);
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn connections_are_found_by_number_and_by_worker() {
        let table = Table::new(2);
        for (id, worker) in [(1, 0), (2, 1), (3, 0)] {
            table.insert(socket(id, worker));
        }
        assert_eq!(ids(&table.all()), [1, 2, 3]);
        assert_eq!(ids(&table.of_worker(0)), [1, 3]);
        assert_eq!(ids(&table.of_worker(1)), [2]);
        table.remove(&table.get(1).unwrap());
        assert!(table.get(1).is_none());
        assert_eq!(ids(&table.of_worker(0)), [3]);
    }
}
