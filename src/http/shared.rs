//! The state that the workers of a server share, and the messages between workers and other threads.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use crossbeam_channel::Sender;

use crate::budget::Budget;
use crate::error::StartError;
use crate::http::listener::Listener;
use crate::http::response::Response;
use crate::http::service::{Request, Service};
use crate::http::slots::Slots;
use crate::http::socket::Socket;
use crate::wait::{Mutex, Remote};

/// The state that all workers share.
pub struct Shared<S: Service> {
    /// The listening socket and all connections.
    pub listener: Listener<S::Plan>,
    /// The memory for requests.
    pub budget: Arc<Budget>,
    /// The slots and the backlog.
    pub slots: Slots<Work<S::Plan>>,
    /// The application.
    pub service: S,
    /// Time for a request, from the end of its head.
    pub deadline: Duration,
    /// Whether the server is ending and refuses every request outside of `Lane::Immediate`.
    pub is_refusing: AtomicBool,
    /// The mailboxes of the workers, by worker number.
    pub mailboxes: Vec<Mailbox<S::Plan>>,
    /// The queue of the thread pool; `None` if requests run as coroutines.
    pub threads: Option<Sender<Work<S::Plan>>>,
}

/// The queue of messages to one worker.
pub struct Mailbox<P> {
    /// Wakes the worker's event loop.
    pub remote: Arc<Remote>,
    messages: Mutex<Vec<Message<P>>>,
}

impl<P> Mailbox<P> {
    /// An empty mailbox.
    ///
    /// # Errors
    /// When no descriptors are left.
    pub fn new() -> Result<Self, StartError> {
        let remote = Remote::new();
        Ok(Self {
            remote: Arc::new(remote.map_err(cannot_start)?),
            messages: Mutex::default(),
        })
    }

    /// Queues a message and wakes the worker.
    pub fn send(&self, message: Message<P>) {
        self.messages.lock().push(message);
        self.remote.nudge();
    }

    /// Takes all messages.
    pub fn take(&self) -> Vec<Message<P>> {
        std::mem::take(&mut *self.messages.lock())
    }
}

/// A request to run.
pub struct Work<P> {
    /// The connection that it came from.
    pub socket: Arc<Socket<P>>,
    /// The request itself.
    pub request: Request,
    /// What to do.
    pub plan: P,
    /// Whether it occupies a slot while it runs.
    pub has_slot: bool,
}

/// A request and its response.
pub struct Answered<P> {
    /// The connection that it came from.
    pub socket: Arc<Socket<P>>,
    /// The request itself.
    pub request: Request,
    /// The response to send.
    pub response: Response,
    /// Whether a slot becomes free once the response is sent.
    pub has_slot: bool,
}

/// A message to a worker.
pub enum Message<P> {
    /// Run this request: it has a slot now.
    Run(Box<Work<P>>),
    /// Send this response, which another thread has made.
    Answered(Box<Answered<P>>),
    /// Respond 503 to all running requests, because the server is ending.
    Refuse,
}

/// Starts a named thread.
pub fn start_thread(name: String, run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    let started = thread::Builder::new().name(name).spawn(run);
    started.map(drop).map_err(cannot_start)
}

/// The error when a thread, or a descriptor that it needs, is not available.
pub fn cannot_start(error: std::io::Error) -> StartError {
    StartError::failed(format!("cannot start a thread: {error}"))
}
