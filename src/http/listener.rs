//! The listening socket: binding, accepting, and turning clients away when there is no room.

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::budget::Budget;
use crate::error::StartError;
use crate::http::eviction::Candidates;
use crate::http::socket::Socket;
use crate::http::table::Table;
use crate::wait::{Mutex, Remote, Token};

/// Connections that wait to be accepted; the system takes less if it is set to.
const LISTEN_BACKLOG: i32 = 4096;
/// Connections accepted in one go; then it is another event's turn.
const ACCEPT_TURN: usize = 64;
/// Connections at once, each with a descriptor and some memory, if the limit of descriptors allows.
const MAX_CONNECTIONS: usize = 16 * 1024;
/// What could be said of each connection is said this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// The listening socket's token in each worker's event loop. Connections have their numbers, from 1.
pub const LISTENER: Token = 0;

/// Everything a connection may be watched for, each change reported once: the state machine on it reads and writes
/// until it would block, so a connection never has to be registered again.
const ALL_CHANGES: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// How far accepting got.
#[derive(Debug, PartialEq, Eq)]
pub enum Accepting {
    /// No more connections wait.
    Done,
    /// There may be more.
    More,
    /// There are, but they cannot be accepted now.
    Paused,
}

/// The listening socket and the connections that came in by it.
#[derive(Debug)]
pub struct Listener<P> {
    socket: TcpListener,
    /// The event loops of the workers, by number.
    workers: Vec<Arc<Remote>>,
    /// The open connections.
    pub table: Table<P>,
    /// What may be closed for new connections.
    candidates: Mutex<Candidates>,
    /// Memory for what clients send.
    budget: Arc<Budget>,
    max_connections: usize,
    is_closed: AtomicBool,
    /// A descriptor kept for the moment when there are none left.
    reserve: Mutex<Option<File>>,
    complained: Mutex<Option<Instant>>,
    /// The whole response to a client for whom there is no room.
    full: Vec<u8>,
}

impl<P> Listener<P> {
    /// Listens on this address. Connections may have `files` descriptors, or at least half of `all_files`. `full` is
    /// sent to clients for whom there is no room.
    ///
    /// # Errors
    /// When the port is in use or the address not ours.
    pub fn open(
        (ip, port): (IpAddr, u16),
        workers: Vec<Arc<Remote>>,
        max_connections: usize,
        budget: &Arc<Budget>,
        full: Vec<u8>,
    ) -> Result<Self, StartError> {
        let bound = bind(ip, port).and_then(|socket| Ok((socket, reserve()?)));
        let (socket, reserve) = bound.map_err(|e| {
            StartError::failed(format!(
                "cannot listen on {ip}:{port}: {e}; another port is set with SAGEMAKER_BIND_TO_PORT or --port"
            ))
        })?;
        Ok(Self {
            socket,
            table: Table::new(workers.len()),
            workers,
            candidates: Mutex::default(),
            budget: Arc::clone(budget),
            max_connections: max_connections.min(MAX_CONNECTIONS),
            is_closed: AtomicBool::new(false),
            reserve: Mutex::new(Some(reserve)),
            complained: Mutex::new(None),
            full,
        })
    }

    /// Its address.
    ///
    /// # Errors
    /// The system's.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Has a worker accept connections. When several do, the system wakes one of them.
    pub fn watch(&self, worker: usize) {
        let flags = EventFlags::IN | EventFlags::EXCLUSIVE;
        if let Err(e) = self.workers[worker].register(&self.socket, LISTENER, flags)
            && e.kind() != io::ErrorKind::AlreadyExists
            && !self.is_closed()
        {
            self.complain(format_args!("cannot wait for connections: {e}"));
        }
    }

    /// Accepts some connections, on this worker. When that cannot go on, the worker stops watching for a while: a
    /// connection that cannot be accepted would wake it without end.
    pub fn accept(&self, worker: usize) {
        if self.is_closed() {
            return;
        }
        if self.accept_turn(worker) == Accepting::Paused {
            // It may have been closed meanwhile.
            let _ = self.workers[worker].unregister(&self.socket);
        }
    }

    /// Refuses new connections from now on; those that came before, and open ones, go on.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        // Connections that wait to be accepted would be reset.
        for _ in 0..LISTEN_BACKLOG as usize / ACCEPT_TURN {
            if self.accept_turn(0) != Accepting::More {
                break;
            }
        }
        for worker in &self.workers {
            // Accepting may have paused there.
            let _ = worker.unregister(&self.socket);
        }
        if let Err(e) = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both) {
            log::warn!("cannot stop listening: {e}");
        }
    }

    /// Whether [`Listener::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Accepts some connections.
    fn accept_turn(&self, worker: usize) -> Accepting {
        for _ in 0..ACCEPT_TURN {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::acceptfrom_with(&self.socket, flags) {
                Ok((socket, address)) => {
                    let peer = address.and_then(|address| SocketAddr::try_from(address).ok());
                    let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |address| address.ip());
                    self.admit(socket.into(), peer, worker);
                }
                Err(Errno::AGAIN) => return Accepting::Done,
                Err(Errno::INVAL) if self.is_closed() => return Accepting::Done,
                // What happened to this one connection before it was accepted is nobody else's business.
                Err(
                    Errno::INTR
                    | Errno::CONNABORTED
                    | Errno::PROTO
                    | Errno::PERM
                    | Errno::NETDOWN
                    | Errno::NETUNREACH
                    | Errno::HOSTUNREACH
                    | Errno::HOSTDOWN
                    | Errno::NONET
                    | Errno::NOPROTOOPT
                    | Errno::OPNOTSUPP,
                ) => {}
                Err(e) => {
                    self.complain(format_args!("a connection cannot be accepted: {e}"));
                    let is_full = matches!(e, Errno::MFILE | Errno::NFILE);
                    if !is_full || !self.make_room() && !self.turn_away_with_reserve() {
                        return Accepting::Paused;
                    }
                }
            }
        }
        Accepting::More
    }

    fn admit(&self, stream: TcpStream, peer: IpAddr, acceptor: usize) {
        if self.table.len() >= self.max_connections && !self.make_room() {
            self.complain(format_args!(
                "there are {} connections: a new one is turned away",
                self.max_connections
            ));
            return self.turn_away(&stream);
        }
        let worker = self.table.least_loaded(acceptor);
        let id = self.table.new_id(worker);
        let socket = Arc::new(Socket::new(id, stream, peer, worker, &self.budget));
        self.table.insert(Arc::clone(&socket));
        if let Err(e) = self.workers[worker].register(&socket.stream, id, ALL_CHANGES) {
            self.complain(format_args!("a connection cannot be served: {e}"));
            self.table.remove(&socket);
        }
    }

    /// Closes the most dispensable connection, if there is one.
    fn make_room(&self) -> bool {
        let turn_away = |socket: &Socket<P>| self.turn_away(&socket.stream);
        self.candidates.lock().make_room(&self.table, turn_away)
    }

    /// There are no descriptors left: the one in reserve lets one client be told.
    fn turn_away_with_reserve(&self) -> bool {
        let mut place = self.reserve.lock();
        let had_one = place.take().is_some();
        if let Ok(socket) = rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC) {
            self.turn_away(&socket.into());
        }
        *place = reserve().ok();
        had_one && place.is_some()
    }

    /// Tells a client that there is no room.
    fn turn_away(&self, mut socket: &TcpStream) {
        // Without waiting for a request: it is all the client will read, unless it has sent much already.
        let _ = socket.write(&self.full);
        let _ = socket.shutdown(std::net::Shutdown::Write);
    }

    fn complain(&self, text: std::fmt::Arguments) {
        let now = Instant::now();
        let mut complained = self.complained.lock();
        if complained.is_none_or(|time| now - time >= COMPLAINT_INTERVAL) {
            *complained = Some(now);
            log::error!("{text}");
        }
    }
}

fn reserve() -> io::Result<File> {
    File::open("/dev/null")
}

fn bind(ip: IpAddr, port: u16) -> io::Result<TcpListener> {
    let family = match ip {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // The port of a server that has just ended can be had at once.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // Accepted sockets inherit this on Linux.
    sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddr::new(ip, port))?;
    rustix::net::listen(&socket, LISTEN_BACKLOG)?;
    Ok(socket.into())
}
