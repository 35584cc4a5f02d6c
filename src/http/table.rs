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
