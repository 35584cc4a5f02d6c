//! The server: its settings, what its workers share, and its end.

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

/// Time for the last responses to leave.
const FINISH_LIMIT: Duration = Duration::from_millis(500);
/// How often to look whether they have.
const FINISH_STEP: Duration = Duration::from_millis(5);

/// What a server needs to know.
#[derive(Debug)]
pub struct Settings {
    /// The address to listen on.
    pub listen: (IpAddr, u16),
    /// How requests are worked on.
    pub workers: Workers,
    /// Requests at work at once, in [`Lane::Request`].
    pub slots: usize,
    /// Requests that may wait for a slot; each holds its connection and its body.
    pub backlog: usize,
    /// Time for a whole request, from the end of its head.
    pub deadline: Duration,
    /// Bytes of memory for all requests.
    pub memory: usize,
    /// Connections at once, by the number of descriptors.
    pub max_connections: usize,
}

/// How requests are worked on. Both have threads that read requests and write responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// On so many threads; a request that waits does not hold its thread.
    Coroutines(usize),
    /// Each on a thread of its own from a fixed pool, besides so many threads for connections.
    Threads(usize),
}

impl Workers {
    /// Threads with an event loop.
    fn event_loops(self) -> usize {
        match self {
            Self::Coroutines(threads) | Self::Threads(threads) => threads.max(1),
        }
    }
}

/// A running server. Its threads end with the process.
pub struct Server<S: Service>(Arc<Shared<S>>);

impl<S: Service> Server<S> {
    /// Opens the port and starts the workers. `announce` gets the server before the first request is taken: the
    /// supervisor must have it by then, or a signal would end the program without draining it.
    ///
    /// # Errors
    /// When the port cannot be opened or a thread not be started.
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

    /// Where it listens. The port is the system's choice if none was set.
    ///
    /// # Errors
    /// The system's, which should not happen.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.listener.local_address()
    }

    /// Refuses new connections; open ones are served on and told that they end.
    pub fn stop_accepting(&self) {
        self.0.listener.close();
    }

    /// Requests being received, waiting or being answered.
    pub fn in_flight(&self) -> usize {
        let sockets = self.0.listener.table.all();
        let is_at_work = |socket: &&Arc<Socket<S::Plan>>| {
            let connection = socket.try_connection();
            connection.is_none_or(|connection| !connection.is_idle())
        };
        sockets.iter().filter(is_at_work).count()
    }

    /// Answers 503 to every request that is not answered immediately, from now on: to new ones, waiting ones and running ones.
    pub fn refuse_the_rest(&self) {
        self.0.is_refusing.store(true, Ordering::SeqCst);
        for mailbox in &self.0.mailboxes {
            mailbox.send(Message::Refuse);
        }
    }

    /// Waits until all responses have left, but not for long: the process is about to end.
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
