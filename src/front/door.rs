//! The listening socket and tiny_http on it: options, refusal of new connections, and a fresh start when
//! tiny_http stops accepting.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::{self, Timeout};
use tiny_http::{Request, Server};

use crate::error::StartError;

/// A connection on which nothing is read or written for this long is closed; longer than load balancers keep
/// idle connections, so that it is not us who closes one just as it is used. With a shorter deadline of requests
/// it is that: reading a body can be given up in no other way.
const IDLE_LIMIT: Duration = Duration::from_secs(75);
/// An answer to our own request comes at once unless nobody accepts any more.
const CHECK_LIMIT: Duration = Duration::from_secs(10);
/// Connections that wait to be accepted.
const LISTEN_BACKLOG: i32 = 1024;
/// Pause before accepting is tried again, for example when there are no file descriptors left.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);

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
    closed: AtomicBool,
    /// Threads that call [`Door::receive`].
    receivers: usize,
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
            closed: AtomicBool::new(false),
            receivers,
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
    pub fn connect_and_end(&self) {
        let result = self.own_address().and_then(|address| {
            let stream = TcpStream::connect_timeout(&address, CHECK_LIMIT)?;
            // Ends with a reset, which leaves no port waiting on this side.
            Ok(sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?)
        });
        if let Err(e) = result {
            log::debug!("no connection to our own port: {e}");
        }
    }

    fn own_address(&self) -> io::Result<SocketAddr> {
        let mut address = self.listener.local_addr()?;
        if address.ip().is_unspecified() {
            address.set_ip([127, 0, 0, 1].into());
        }
        Ok(address)
    }

    /// Checks that connections are accepted and answered, and starts accepting anew if they are not.
    pub fn check(&self, stray: &(impl Fn(Request) + Clone + Send + 'static)) {
        let server = self.current();
        if let Err(error) = self.ask_ourselves()
            && !self.is_closed()
        {
            self.reopen(
                &server,
                &format!("no answer to our own request: {error}"),
                stray,
            );
        }
    }

    fn ask_ourselves(&self) -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&self.own_address()?, CHECK_LIMIT)?;
        stream.set_read_timeout(Some(CHECK_LIMIT))?;
        stream.write_all(b"GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n")?;
        stream.read_exact(&mut [0])
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
        let mut current = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&current, old) {
            return; // somebody else was quicker
        }
        log::error!("accepting connections stopped ({why}); starting again");
        *current = loop {
            match new_server(&self.listener) {
                Ok(server) => break Arc::new(server),
                Err(e) => log::error!("cannot start again: {e}"),
            }
            thread::sleep(REOPEN_PAUSE);
        };
        drop(current);
        for _ in 0..self.receivers {
            old.unblock();
        }
        let (old, stray) = (Arc::clone(old), stray.clone());
        thread::spawn(move || {
            loop {
                if let Ok(request) = old.recv() {
                    stray(request);
                }
            }
        });
    }
}

fn new_server(listener: &TcpListener) -> io::Result<Server> {
    Server::from_listener(listener.try_clone()?, None).map_err(io::Error::other)
}
