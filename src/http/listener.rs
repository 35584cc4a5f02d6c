//! The listening socket, the connections, and the one place where all workers wait for something to happen on them.
//!
//! Everything is registered with one epoll instance, each for one event at a time: whichever worker gets the event has
//! the connection to itself until it says what it waits for next. So no thread is bound to a connection, and thousands
//! of idle ones cost some memory only.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::error::StartError;
use crate::http::budget::Budget;
use crate::http::socket::Connection;
use crate::logging::FRONT;

mod room;

use room::Noted;

/// Connections that wait to be accepted; the system takes less if it is set to.
const LISTEN_BACKLOG: i32 = 4096;
/// Connections accepted in one go; then it is another event's turn.
const ACCEPT_TURN: usize = 64;
/// How often to look for connections on which something takes too long.
const TICK: Duration = Duration::from_millis(100);
/// Connections at once, each with a descriptor and some memory, if the limit of descriptors allows.
const MAX_CONNECTIONS: usize = 16 * 1024;
/// What could be said of each connection is said this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// What is registered waits for one event, and is registered again when that is used.
const ONCE: EventFlags = EventFlags::IN.union(EventFlags::ONESHOT);

const LISTENER: u64 = 0;
const TIMER: u64 = 1;
const FIRST_CONNECTION: u64 = 2;

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Bytes from the client.
    Read,
    /// The client to take bytes.
    Write,
    /// Its turn.
    Turn,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Something on a connection.
    Connection(Arc<Connection>),
    /// It is time to look for what takes too long.
    Tick,
    /// Nothing that concerns anybody.
    Nothing,
}

/// How far accepting got.
#[derive(Debug, PartialEq, Eq)]
enum Accepting {
    /// No more connections wait.
    Done,
    /// There may be more.
    More,
    /// There are, but they cannot be accepted now.
    Paused,
}

/// Connections by their numbers.
type Table = HashMap<u64, Arc<Connection>>;

/// The front door.
#[derive(Debug)]
pub struct Door {
    epoll: OwnedFd,
    listener: TcpListener,
    timer: OwnedFd,
    /// Read for each event, written when a connection begins or ends.
    connections: RwLock<Table>,
    dispensable: Mutex<Noted>,
    /// Memory for what clients send.
    budget: Arc<Budget>,
    next_id: AtomicU64,
    max_connections: usize,
    closed: AtomicBool,
    /// A descriptor kept for the moment when there are none left.
    reserve: Mutex<Option<File>>,
    complained: Mutex<Option<Instant>>,
    /// The whole answer to a client for whom there is no room.
    full: Vec<u8>,
}

impl Door {
    /// Listens on this address. Some of the process's `files` are left to others: `reserved`.
    ///
    /// # Errors
    /// When the port is in use or the address not ours.
    pub fn open(
        ip: IpAddr,
        port: u16,
        files: usize,
        reserved: usize,
        budget: &Arc<Budget>,
        full: Vec<u8>,
    ) -> Result<Self, StartError> {
        Self::listen(ip, port, files, reserved, budget, full).map_err(|e| {
            StartError::failed(format!(
                "cannot listen on {ip}:{port}: {e}; another port is set with SAGEMAKER_BIND_TO_PORT or --port"
            ))
        })
    }

    fn listen(
        ip: IpAddr,
        port: u16,
        files: usize,
        reserved: usize,
        budget: &Arc<Budget>,
        full: Vec<u8>,
    ) -> io::Result<Self> {
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
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let tick = Timespec {
            tv_sec: TICK.as_secs() as i64,
            tv_nsec: TICK.subsec_nanos().into(),
        };
        let every_tick = Itimerspec {
            it_interval: tick,
            it_value: tick,
        };
        rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &every_tick)?;
        epoll::add(&epoll, &socket, EventData::new_u64(LISTENER), ONCE)?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), ONCE)?;
        Ok(Self {
            epoll,
            listener: socket.into(),
            timer,
            connections: RwLock::default(),
            dispensable: Mutex::default(),
            budget: Arc::clone(budget),
            next_id: AtomicU64::new(FIRST_CONNECTION),
            // With few descriptors it gets half of them.
            max_connections: files
                .saturating_sub(reserved)
                .max(files / 2)
                .min(MAX_CONNECTIONS),
            closed: AtomicBool::new(false),
            reserve: Mutex::new(Some(reserve()?)),
            complained: Mutex::new(None),
            full,
        })
    }

    /// Waits until something happens. Accepts connections on the way.
    pub fn wait(&self) -> Event {
        let mut events = Vec::with_capacity(1);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => {
                // It cannot be, but if it is, it must not take a whole CPU.
                log::error!("cannot wait for connections: {e}");
                std::thread::sleep(TICK);
            }
        }
        let Some(event) = events.first() else {
            return Event::Nothing;
        };
        match event.data.u64() {
            LISTENER => {
                self.accept();
                Event::Nothing
            }
            TIMER => {
                let _ = rustix::io::read(&self.timer, &mut [0; 8]);
                Event::Tick
            }
            id => match self.connection(id) {
                Some(connection) => Event::Connection(connection),
                None => Event::Nothing, // closed meanwhile
            },
        }
    }

    /// The tick was used.
    pub fn rearm_tick(&self) {
        self.rearm(&self.timer, TIMER);
        // Accepting may have paused.
        if !self.is_closed() {
            self.rearm(&self.listener, LISTENER);
        }
    }

    /// From now on, an event of this kind on the connection wakes a worker, once.
    pub fn await_event(&self, connection: &Connection, interest: Interest) {
        let flags = match interest {
            Interest::Read => EventFlags::IN,
            Interest::Write => EventFlags::OUT,
            Interest::Turn => EventFlags::IN | EventFlags::OUT,
        };
        let data = EventData::new_u64(connection.id);
        let flags = flags | EventFlags::ONESHOT;
        if let Err(e) = epoll::modify(&self.epoll, &connection.socket, data, flags) {
            log::error!(target: FRONT, "a connection is given up: {e}");
            self.end(connection);
        }
    }

    /// Ends a connection.
    pub fn end(&self, connection: &Connection) {
        // Closed, and so taken from epoll, when the last reference goes.
        let mut connections = self.table_mut();
        let ended = connections.remove(&connection.id);
        drop(connections);
        drop(ended);
    }

    /// All connections.
    pub fn all(&self) -> Vec<Arc<Connection>> {
        self.table().values().map(Arc::clone).collect()
    }

    fn connection(&self, id: u64) -> Option<Arc<Connection>> {
        self.table().get(&id).map(Arc::clone)
    }

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.connections
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn table_mut(&self) -> RwLockWriteGuard<'_, Table> {
        self.connections
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> usize {
        self.table().len()
    }

    /// Refuses new connections from now on; those that came before, and open ones, go on.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        // Connections that wait to be accepted would be reset.
        for _ in 0..LISTEN_BACKLOG as usize / ACCEPT_TURN {
            if self.accept_turn() != Accepting::More {
                break;
            }
        }
        let stopped = epoll::delete(&self.epoll, &self.listener)
            .and_then(|()| rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both));
        if let Err(e) = stopped {
            log::warn!("cannot stop listening: {e}");
        }
    }

    /// Whether [`Door::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn rearm(&self, what: &impl std::os::fd::AsFd, id: u64) {
        if let Err(e) = epoll::modify(&self.epoll, what, EventData::new_u64(id), ONCE)
            && !self.is_closed()
        {
            log::error!("cannot wait for connections: {e}");
        }
    }

    fn accept(&self) {
        // Paused, it goes on with the next tick: a connection that cannot be accepted would wake workers without end.
        if self.accept_turn() != Accepting::Paused && !self.is_closed() {
            self.rearm(&self.listener, LISTENER);
        }
    }

    /// Accepts some connections.
    fn accept_turn(&self) -> Accepting {
        for _ in 0..ACCEPT_TURN {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::acceptfrom_with(&self.listener, flags) {
                Ok((socket, address)) => {
                    let peer = address.and_then(|address| SocketAddr::try_from(address).ok());
                    let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |address| address.ip());
                    self.admit(socket.into(), peer);
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

    fn admit(&self, socket: TcpStream, peer: IpAddr) {
        if self.count() >= self.max_connections && !self.make_room() {
            self.complain(format_args!(
                "there are {} connections: a new one is turned away",
                self.max_connections
            ));
            return self.turn_away(&socket);
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection::new(id, socket, peer, &self.budget));
        let mut connections = self.table_mut();
        connections.insert(id, Arc::clone(&connection));
        drop(connections);
        let data = EventData::new_u64(id);
        if let Err(e) = epoll::add(&self.epoll, &connection.socket, data, ONCE) {
            self.complain(format_args!("a connection cannot be served: {e}"));
            self.end(&connection);
        }
    }

    /// There are no descriptors left: the one in reserve lets one client be told.
    fn turn_away_with_reserve(&self) -> bool {
        let mut place = self.reserve.lock().unwrap_or_else(PoisonError::into_inner);
        let had_one = place.take().is_some();
        if let Ok(socket) = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC) {
            self.turn_away(&socket.into());
        }
        *place = reserve().ok();
        had_one && place.is_some()
    }

    fn turn_away(&self, mut socket: &TcpStream) {
        // Without waiting for a request: it is all the client will read, unless it has sent much already.
        let _ = socket.write(&self.full);
        let _ = socket.shutdown(std::net::Shutdown::Write);
    }

    fn complain(&self, text: std::fmt::Arguments) {
        let now = Instant::now();
        let mut complained = self
            .complained
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if complained.is_none_or(|time| now - time >= COMPLAINT_INTERVAL) {
            *complained = Some(now);
            log::error!("{text}");
        }
    }
}

fn reserve() -> io::Result<File> {
    File::open("/dev/null")
}
