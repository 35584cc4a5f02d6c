//! The parts that ureq needs to reach TFS: resolver, connector and transport.
//!
//! They connect to loopback only, keep idle connections in `idle.rs`, and use the waits of `wait` with one deadline for
//! the whole call.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};
use ureq::{Agent, Error, Timeout};

use crate::tfs::connection::Connection;
use crate::tfs::idle::IdleConnections;

/// An agent that keeps up to `connections` idle connections. Make its calls inside [`with_deadline`]; others fail.
pub fn new_agent(connections: usize) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent("")
        .accept("")
        .accept_encoding("")
        .max_idle_connections(0)
        .max_idle_connections_per_host(0)
        .build();
    let idle = Arc::new(IdleConnections::new(connections));
    Agent::with_parts(config, ToLoopback { idle }, Loopback)
}

thread_local! {
    /// The deadline of the call that begins on this thread.
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Runs one call of an agent from [`new_agent`], which ends with [`Timeout::Global`] at the deadline.
///
/// ureq's own timeouts would cost a copy of the agent's configuration for each request, and more reads of the clock.
pub fn with_deadline<R>(deadline: Instant, call: impl FnOnce() -> R) -> R {
    // The call takes the deadline when it asks for a connection. It has not waited before that, so no other request of
    // this thread can have replaced the deadline.
    DEADLINE.set(Some(deadline));
    call()
}

/// Resolves every name to loopback, where all instances run. ureq's resolver would start a thread for each request.
#[derive(Debug)]
struct Loopback;

impl Resolver for Loopback {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let port = uri
            .port_u16()
            .ok_or_else(|| Error::BadUri("no port".into()))?;
        let mut addresses = self.empty();
        addresses.push(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Ok(addresses)
    }
}

/// Takes an idle connection, or makes a new one.
#[derive(Debug)]
struct ToLoopback {
    idle: Arc<IdleConnections>,
}

impl Connector for ToLoopback {
    type Out = LoopbackTransport;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        let address = details.addrs.first().ok_or(Error::HostNotFound)?;
        let deadline = DEADLINE.take().ok_or(Error::ConnectionFailed)?;
        let connection = match self.idle.take(address.port()) {
            Some(connection) => connection,
            None => Connection::new(address.port(), deadline).map_err(error)?,
        };
        Ok(Some(LoopbackTransport {
            connection: Some(connection),
            deadline,
            is_reusable: false,
            idle: Arc::clone(&self.idle),
        }))
    }
}

/// A connection that a request uses.
#[derive(Debug)]
struct LoopbackTransport {
    /// `None` only while this is dropped.
    connection: Option<Connection>,
    deadline: Instant,
    /// Whether the response has ended properly, so that another request may use the connection.
    is_reusable: bool,
    idle: Arc<IdleConnections>,
}

impl LoopbackTransport {
    fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("present until dropped")
    }
}

impl Transport for LoopbackTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.connection().buffers()
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let deadline = self.deadline;
        self.connection().send(amount, deadline).map_err(error)
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let deadline = self.deadline;
        match self.connection().receive(deadline) {
            Ok(amount) => Ok(amount > 0),
            // ureq would take ConnectionReset for the end of a response without a length.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {
                Err(Error::Io(io::Error::new(ErrorKind::BrokenPipe, e)))
            }
            Err(e) => Err(error(e)),
        }
    }

    /// ureq calls this when a response has ended properly, before it drops the transport.
    fn is_open(&mut self) -> bool {
        self.is_reusable = self.connection().is_sound();
        self.is_reusable
    }
}

impl Drop for LoopbackTransport {
    fn drop(&mut self) {
        if self.is_reusable
            && let Some(connection) = self.connection.take()
        {
            self.idle.put(connection);
        }
    }
}

fn error(error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::TimedOut => Error::Timeout(Timeout::Global),
        _ => Error::Io(error),
    }
}
