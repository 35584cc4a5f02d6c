//! The listening socket and tiny_http on it: options, refusal of new connections, and a fresh start when
//! tiny_http stops accepting.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{self, Timeout};
use tiny_http::{Request, Server};

use crate::error::StartError;

/// A connection on which nothing is read or written for this long is closed; longer than load balancers keep
/// idle connections, so that it is not us who closes one just as it is used. With a shorter deadline of requests
/// it is that: reading a body can be given up in no other way.
const IDLE_LIMIT: Duration = Duration::from_secs(75);
/// An answer to our own request comes at once unless nobody accepts any more.
const CHECK_LIMIT: Duration = Duration::from_secs(2);
/// On a busy machine one answer may be late; so many are not.
const CHECK_ATTEMPTS: u32 = 2;
/// Time to let connections in that came before the door is closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// Connections made to free threads for as many others.
const LET_IN_CONNECTIONS: usize = 64;
/// Connections that wait to be accepted.
const LISTEN_BACKLOG: i32 = 1024;
/// Pause before accepting is tried again, for example when there are no file descriptors left.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);

/// Time for a worker to take what was meant for it.
const STRAY_PAUSE: Duration = Duration::from_millis(1);

/// What a receiver gets.
pub enum Received {
    /// A request.
    Request(Request),
    /// Nothing; there may be work elsewhere.
    Woken,
}

/// The front door.
pub struct Door {
    listener: TcpListener,
    server: Mutex<Arc<Server>>,
    /// Held while a new server takes the place of one.
    reopening: Mutex<()>,
    closed: AtomicBool,
    /// Port on our side of the connection made to check ourselves; 0 while there is none.
    own_port: AtomicU16,
    /// Threads that call [`Door::receive`].
    receivers: usize,
    /// Without a request for this long, a connection is closed.
    stray_life: Duration,
}

impl Door {
    /// Listens on this address. `deadline` is that of a request, `receivers` the number of threads that call
    /// [`Door::receive`].
    ///
    /// # Errors
    /// When the port is in use or the address not ours.
    pub fn open(
        ip: IpAddr,
        port: u16,
        deadline: Duration,
        receivers: usize,
    ) -> Result<Self, StartError> {
        let failed = |e: io::Error| {
            StartError::failed(format!(
                "cannot listen on {ip}:{port}: {e}; another port is set with SAGEMAKER_BIND_TO_PORT or --port"
            ))
        };
        let listener = TcpListener::bind(SocketAddr::new(ip, port)).map_err(failed)?;
        // Accepted sockets inherit these on Linux.
        rustix::net::listen(&listener, LISTEN_BACKLOG)
            .and_then(|()| sockopt::set_tcp_nodelay(&listener, true))
            .and_then(|()| {
                sockopt::set_socket_timeout(
                    &listener,
                    Timeout::Recv,
                    Some(deadline.min(IDLE_LIMIT)),
                )
            })
            .and_then(|()| sockopt::set_socket_timeout(&listener, Timeout::Send, Some(IDLE_LIMIT)))
            .map_err(|e| failed(e.into()))?;
        let server = new_server(&listener).map_err(failed)?;
        Ok(Self {
            listener,
            server: Mutex::new(Arc::new(server)),
            reopening: Mutex::new(()),
            closed: AtomicBool::new(false),
            own_port: AtomicU16::new(0),
            receivers,
            stray_life: deadline + IDLE_LIMIT,
        })
    }

    /// Waits for a request. `stray` gets requests that arrive on connections of an earlier server.
    pub fn receive(
        self: &Arc<Self>,
        stray: &(impl Fn(Request) + Clone + Send + 'static),
    ) -> Received {
        let server = self.current();
        match server.recv() {
            Ok(request) => Received::Request(request),
            Err(error) => {
                // An error of the system is from accept; the other kind is tiny_http's "unblocked".
                if error.raw_os_error().is_some() && !self.is_closed() {
                    self.reopen(&server, &error.to_string(), stray);
                }
                Received::Woken
            }
        }
    }

    /// Makes one receiver return [`Received::Woken`].
    pub fn wake_one(&self) {
        self.current().unblock();
    }

    /// Refuses new connections from now on; open ones go on.
    pub fn close(&self) {
        // Connections that wait to be accepted, and those that wait for a thread, would be reset: first let them in.
        self.let_in();
        let _ = self.ask_ourselves(CLOSE_LIMIT);
        self.closed.store(true, Ordering::Relaxed);
        if let Err(e) = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both) {
            log::warn!("cannot stop listening: {e}");
        }
    }

    /// Whether [`Door::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Makes a connection to our own port that ends at once.
    ///
    /// # Errors
    /// When the port does not take it.
    pub fn connect_and_end(&self) -> io::Result<()> {
        let stream = TcpStream::connect_timeout(&self.own_address()?, CHECK_LIMIT)?;
        // Ends with a reset, which leaves no port waiting on this side.
        Ok(sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?)
    }

    /// Whether a request is one of [`Door::check`].
    pub fn is_our_own(&self, request: &Request) -> bool {
        let port = request.remote_addr().map(|address| address.port());
        port == Some(self.own_port.load(Ordering::Relaxed))
    }

    fn own_address(&self) -> io::Result<SocketAddr> {
        let mut address = self.listener.local_addr()?;
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Ok(address)
    }

    /// Checks that connections are accepted and answered, and starts accepting anew if they are not.
    pub fn check(&self, stray: &(impl Fn(Request) + Clone + Send + 'static)) {
        let server = self.current();
        let mut why = String::new();
        for _ in 0..CHECK_ATTEMPTS {
            match self.ask_ourselves(CHECK_LIMIT) {
                Ok(()) => return,
                Err(_) if self.is_closed() => return,
                Err(e) => why = format!("no answer to our own request: {e}"),
            }
            // Our own connection may be one that waits for a thread.
            self.let_in();
        }
        self.reopen(&server, &why, stray);
    }

    /// Frees threads for connections that wait for one, see `usher.rs`.
    fn let_in(&self) {
        for _ in 0..LET_IN_CONNECTIONS {
            if self.connect_and_end().is_err() {
                break;
            }
        }
    }

    fn ask_ourselves(&self, limit: Duration) -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&self.own_address()?, limit)?;
        stream.set_read_timeout(Some(limit))?;
        let own_port = stream.local_addr()?.port();
        self.own_port.store(own_port, Ordering::Relaxed);
        stream.write_all(b"GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n")?;
        let answered = stream.read_exact(&mut [0]);
        self.own_port.store(0, Ordering::Relaxed);
        answered
    }

    fn current(&self) -> Arc<Server> {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&server)
    }

    /// Puts a new server in the place of `old`, whose accept loop has ended. Its connections live on, so a thread
    /// goes on to receive from it.
    fn reopen(
        &self,
        old: &Arc<Server>,
        why: &str,
        stray: &(impl Fn(Request) + Clone + Send + 'static),
    ) {
        let _one_at_a_time = self
            .reopening
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&self.current(), old) {
            return; // somebody else was quicker
        }
        log::error!("accepting connections stopped ({why}); starting again");
        let new = loop {
            // First of all: what stopped it may stop the next one at once.
            thread::sleep(REOPEN_PAUSE);
            if self.is_closed() {
                return;
            }
            match new_server(&self.listener) {
                Ok(server) => break Arc::new(server),
                Err(e) => log::error!("cannot start again: {e}"),
            }
        };
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = new;
        for _ in 0..self.receivers {
            old.unblock();
        }
        let (old, stray, life) = (Arc::clone(old), stray.clone(), self.stray_life);
        let started = thread::Builder::new()
            .name("stray".into())
            .spawn(move || serve_strays(&old, &stray, life));
        if let Err(e) = started {
            log::error!("cannot start a thread; some open connections are lost: {e}");
        }
    }
}

/// Receives from a server that accepts nothing any more, until none of its connections can be open.
fn serve_strays(old: &Arc<Server>, stray: &impl Fn(Request), life: Duration) {
    let mut last_request = Instant::now();
    while last_request.elapsed() < life {
        match old.recv_timeout(life) {
            Ok(Some(request)) => {
                stray(request);
                last_request = Instant::now();
            }
            // Meant for a worker that still waits here.
            _ if Arc::strong_count(old) > 1 => {
                old.unblock();
                thread::sleep(STRAY_PAUSE);
            }
            _ => {}
        }
    }
}

fn new_server(listener: &TcpListener) -> io::Result<Server> {
    Server::from_listener(listener.try_clone()?, None).map_err(io::Error::other)
}
