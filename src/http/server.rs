//! The server: its settings, how it starts its workers, and how it drains and ends.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;

use crate::budget::Budget;
use crate::error::{RequestError, StartError};
use crate::http::executor;
use crate::http::listener::Listener;
use crate::http::response;
#[cfg(doc)]
use crate::http::service::Lane;
use crate::http::service::Service;
use crate::http::shared::{Mailbox, Message, Shared, start_thread};
use crate::http::slots::Slots;
use crate::http::socket::Socket;
use crate::http::worker::Worker;
use crate::pauses;
use crate::wait::{self, Reactor};

/// How long to wait for the last responses to be sent.
const FINISH_LIMIT: Duration = Duration::from_millis(500);
/// How often to check whether they have been sent.
const FINISH_STEP: Duration = Duration::from_millis(5);

/// The settings of a server.
#[derive(Debug)]
pub struct Settings {
    /// The address to listen on.
    pub listen: (IpAddr, u16),
    /// How requests run.
    pub workers: Workers,
    /// Most requests in [`Lane::Request`] that run at once.
    pub slots: usize,
    /// Most requests that wait for a slot. Each holds its connection and its body.
    pub backlog: usize,
    /// Time for a request, from the end of its head.
    pub deadline: Duration,
    /// Memory for all requests, in bytes.
    pub memory: usize,
    /// Most open connections that the limit of descriptors allows.
    pub max_connections: usize,
}

/// How requests run. In both modes, worker threads read requests and write responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// As coroutines on this many workers. A request that waits does not hold its worker.
    Coroutines(usize),
    /// Each on a thread of a fixed pool, with this many workers for connections.
    Threads(usize),
}

impl Workers {
    /// The number of workers: threads with an event loop.
    fn event_loops(self) -> usize {
        match self {
            Self::Coroutines(threads) | Self::Threads(threads) => threads.max(1),
        }
    }
}

/// A handle to a running server. Its threads end with the process.
pub struct Server<S: Service>(Arc<Shared<S>>);

impl<S: Service> Server<S> {
    /// Opens the port and starts the workers. Calls `announce` with the server before it accepts the first request: the
    /// supervisor needs the handle by then, or a signal would end the program without draining the server.
    ///
    /// # Errors
    /// When the port cannot be opened or a thread cannot be started.
    pub fn start(
        settings: &Settings,
        service: S,
        announce: impl FnOnce(Self),
    ) -> Result<(), StartError> {
        let workers = settings.workers.event_loops();
        let mailboxes = (0..workers).map(|_| Mailbox::new());
        let mailboxes = mailboxes.collect::<Result<Vec<_>, _>>()?;
        let budget = Budget::new(settings.memory);
        let listener = Listener::open(
            settings.listen,
            mailboxes
                .iter()
                .map(|mailbox| Arc::clone(&mailbox.remote))
                .collect(),
            settings.max_connections,
            &budget,
            response::prepare(
                &RequestError::busy("There are too many connections; try again.").into(),
            ),
        )?;
        let (threads, work) = match settings.workers {
            Workers::Coroutines(_) => (None, None),
            Workers::Threads(_) => {
                let (threads, work) = unbounded();
                (Some(threads), Some(work))
            }
        };
        let shared = Arc::new(Shared {
            listener,
            budget,
            slots: Slots::new(settings.slots, settings.backlog),
            service,
            deadline: settings.deadline,
            is_refusing: AtomicBool::new(false),
            mailboxes,
            threads,
        });
        pauses::tick();
        announce(Self(Arc::clone(&shared)));
        if let Some(work) = work {
            executor::start_threads(settings.slots, &work, &shared)?;
        }
        for index in 0..workers {
            let shared = Arc::clone(&shared);
            start_thread(format!("worker-{index}"), move || {
                let reactor = Reactor::new(&shared.mailboxes[index].remote, index);
                Worker::new(index, reactor, shared).run();
            })?;
        }
        Ok(())
    }

    /// The address the server listens on. If the settings have port 0, the system has chosen the port.
    ///
    /// # Errors
    /// The system's error, which is not expected.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.listener.local_address()
    }

    /// Refuses new connections. Open ones are served; their responses say `Connection: close`.
    pub fn stop_accepting(&self) {
        self.0.listener.close();
    }

    /// The number of requests that are being received, wait, run or have an unsent response.
    pub fn in_flight(&self) -> usize {
        let sockets = self.0.listener.table.all();
        let is_in_flight = |socket: &&Arc<Socket<S::Plan>>| {
            let connection = socket.try_connection();
            connection.is_none_or(|connection| !connection.is_idle())
        };
        sockets.iter().filter(is_in_flight).count()
    }

    /// From now on, responds 503 to every new, waiting and running request, except those in [`Lane::Immediate`].
    pub fn refuse_the_rest(&self) {
        self.0.is_refusing.store(true, Ordering::SeqCst);
        for mailbox in &self.0.mailboxes {
            mailbox.send(Message::Refuse);
        }
    }

    /// Waits until all responses have been sent, but only briefly, because the process is about to end.
    pub fn finish(&self) {
        let until = Instant::now() + FINISH_LIMIT;
        let mut quiet = 0;
        while quiet < 2 && Instant::now() < until {
            quiet = if self.in_flight() == 0 { quiet + 1 } else { 0 };
            let _ = wait::until(Instant::now() + FINISH_STEP);
        }
    }
}

#[cfg(test)]
mod tests;
