//! The listening socket: binds, accepts, assigns connections to workers, and turns clients away when there is no room.

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

/// Connections that may wait to be accepted. The system may limit this further (`net.core.somaxconn`).
const LISTEN_BACKLOG: i32 = 4096;
/// Connections accepted in one turn, before other events get theirs.
const ACCEPT_TURN: usize = 64;
/// Most open connections, each with a descriptor and some memory. The limit of descriptors may lower this.
const MAX_CONNECTIONS: usize = 16 * 1024;
/// Problems that could affect every connection are logged at most once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The listening socket's token in each worker's event loop. Connections use their ids, which start at 1.
pub const LISTENER: Token = 0;

/// Edge-triggered events for reading, writing and hang-ups. The state machine reads and writes until it would block, so
/// a connection is registered only once.
const ALL_CHANGES: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// How a turn of accepting ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Accepting {
    /// No connection is waiting.
    Done,
    /// More connections may be waiting.
    More,
    /// Connections are waiting, but cannot be accepted now.
    Paused,
}

/// The listening socket and the connections accepted from it.
#[derive(Debug)]
pub struct Listener<P> {
    socket: TcpListener,
    /// The event loops of the workers, by worker number.
    workers: Vec<Arc<Remote>>,
    /// The open connections.
    pub table: Table<P>,
    /// Connections that can be closed for new ones.
    candidates: Mutex<Candidates>,
    /// Memory for what clients send.
    budget: Arc<Budget>,
    max_connections: usize,
    is_closed: AtomicBool,
    /// A descriptor kept for turning a client away when no other is left.
    reserve: Mutex<Option<File>>,
    /// When a rate-limited message was last logged.
    last_logged: Mutex<Option<Instant>>,
    /// The complete response to a client for whom there is no room.
    full_response: Vec<u8>,
}

impl<P> Listener<P> {
    /// Opens a listening socket for at most `max_connections` connections. Clients for whom there is no room get
    /// `full_response`.
    ///
    /// # Errors
    /// When the port is in use or the address does not belong to this machine.
    pub fn open(
        (ip, port): (IpAddr, u16),
        workers: Vec<Arc<Remote>>,
        max_connections: usize,
        budget: &Arc<Budget>,
        full_response: Vec<u8>,
    ) -> Result<Self, StartError> {
        let bound = bind(ip, port).and_then(|socket| Ok((socket, reserve()?)));
        let (socket, reserve) = bound.map_err(|e| {
            let choose = match e.kind() {
                io::ErrorKind::AddrNotAvailable => {
                    "address with SAGEMAKER_TFS_LISTEN_ADDRESS or --listen"
                }
                _ => "port with SAGEMAKER_BIND_TO_PORT or --port",
            };
            StartError::failed(format!(
                "cannot listen on {ip}:{port}: {e}; choose another {choose}"
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
            last_logged: Mutex::new(None),
            full_response,
        })
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// The system's error.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Makes a worker watch for new connections. The system wakes one of the workers that watch.
    pub fn watch(&self, worker: usize) {
        let flags = EventFlags::IN | EventFlags::EXCLUSIVE;
        if let Err(e) = self.workers[worker].register(&self.socket, LISTENER, flags)
            && e.kind() != io::ErrorKind::AlreadyExists
            && !self.is_closed()
        {
            self.log_rate_limited(format_args!("cannot wait for connections: {e}"));
        }
    }

    /// Accepts some connections, on this worker's thread. If accepting fails, the worker stops watching until its next
    /// tick, because the waiting connection would wake it again at once.
    pub fn accept(&self, worker: usize) {
        if self.is_closed() {
            return;
        }
        if self.accept_turn(worker) == Accepting::Paused {
            // Fails if another thread has closed the listener, which is fine.
            let _ = self.workers[worker].unregister(&self.socket);
        }
    }

    /// Refuses new connections from now on. Connections that already wait to be accepted, and open ones, are served.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        // Accept the connections that wait: closing the socket would reset them.
        for _ in 0..LISTEN_BACKLOG as usize / ACCEPT_TURN {
            if self.accept_turn(0) != Accepting::More {
                break;
            }
        }
        for worker in &self.workers {
            // Fails where accepting has paused, which is fine.
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
                // By accept(2), these errors concern only the one connection, which failed before it was accepted.
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
                    self.log_rate_limited(format_args!("cannot accept a connection: {e}"));
                    let is_full = matches!(e, Errno::MFILE | Errno::NFILE);
                    if !is_full || !self.make_room() && !self.turn_away_with_reserve() {
                        return Accepting::Paused;
                    }
                }
            }
        }
        Accepting::More
    }

    /// Gives a new connection to a worker, or turns it away.
    fn admit(&self, stream: TcpStream, peer: IpAddr, acceptor: usize) {
        if self.table.len() >= self.max_connections && !self.make_room() {
            self.log_rate_limited(format_args!(
                "turned away a new connection: the limit of {} connections is reached",
                self.max_connections
            ));
            return self.turn_away(&stream);
        }
        let worker = self.table.least_loaded(acceptor);
        let id = self.table.new_id(worker);
        let socket = Arc::new(Socket::new(id, stream, peer, worker, &self.budget));
        self.table.insert(Arc::clone(&socket));
        if let Err(e) = self.workers[worker].register(&socket.stream, id, ALL_CHANGES) {
            self.log_rate_limited(format_args!("cannot serve a connection: {e}"));
            self.table.remove(&socket);
        }
    }

    /// Closes the most dispensable connection. Returns false if every connection has to stay.
    fn make_room(&self) -> bool {
        let turn_away = |socket: &Socket<P>| self.turn_away(&socket.stream);
        self.candidates.lock().make_room(&self.table, turn_away)
    }

    /// Turns one client away when no descriptors are left, by freeing the one in reserve for a moment. Returns whether
    /// accepting can continue.
    fn turn_away_with_reserve(&self) -> bool {
        let mut place = self.reserve.lock();
        let had_one = place.take().is_some();
        if let Ok(socket) = rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC) {
            self.turn_away(&socket.into());
        }
        *place = reserve().ok();
        had_one && place.is_some()
    }

    /// Responds that there is no room.
    fn turn_away(&self, mut socket: &TcpStream) {
        // Does not read the request first. The client gets the response unless it has sent much already, in which case
        // the system resets the connection.
        let _ = socket.write(&self.full_response);
        let _ = socket.shutdown(std::net::Shutdown::Write);
    }

    /// Logs an error, unless one was logged within [`LOG_INTERVAL`].
    fn log_rate_limited(&self, text: std::fmt::Arguments) {
        let now = Instant::now();
        let mut last_logged = self.last_logged.lock();
        if last_logged.is_none_or(|time| now - time >= LOG_INTERVAL) {
            *last_logged = Some(now);
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
    // Allows a new server to bind the port right after the old one ended.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // On Linux, accepted sockets inherit this.
    sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddr::new(ip, port))?;
    rustix::net::listen(&socket, LISTEN_BACKLOG)?;
    Ok(socket.into())
}
