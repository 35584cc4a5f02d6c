//! What the workers of a server share, and what they and the threads hand each other.

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

/// What workers share.
pub struct Shared<S: Service> {
    pub listener: Listener<S::Plan>,
    pub budget: Arc<Budget>,
    pub slots: Slots<Work<S::Plan>>,
    pub service: S,
    pub deadline: Duration,
    /// Requests but those that are answered immediately are refused from now on.
    pub is_refusing: AtomicBool,
    /// By the number of the worker.
    pub mailboxes: Vec<Mailbox<S::Plan>>,
    /// Where requests run when they are no coroutines.
    pub threads: Option<Sender<Work<S::Plan>>>,
}

/// Messages to a worker.
pub struct Mailbox<P> {
    pub remote: Arc<Remote>,
    messages: Mutex<Vec<Message<P>>>,
}

impl<P> Mailbox<P> {
    /// A mailbox without messages.
    pub fn new() -> Result<Self, StartError> {
        let remote = Remote::new();
        Ok(Self {
            remote: Arc::new(remote.map_err(cannot_start)?),
            messages: Mutex::default(),
        })
    }

    /// Leaves a message and has the worker look for it.
    pub fn send(&self, message: Message<P>) {
        self.messages.lock().push(message);
        self.remote.nudge();
    }

    /// Takes all messages.
    pub fn take(&self) -> Vec<Message<P>> {
        std::mem::take(&mut *self.messages.lock())
    }
}

/// A request to be answered, and whose it is.
pub struct Work<P> {
    pub socket: Arc<Socket<P>>,
    pub request: Request,
    pub plan: P,
    /// Whether it counts among the requests at work.
    pub has_slot: bool,
}

/// A request and its response.
pub struct Answered<P> {
    pub socket: Arc<Socket<P>>,
    pub request: Request,
    pub response: Response,
    pub has_slot: bool,
}

/// What others tell a worker.
pub enum Message<P> {
    /// A slot is free for this request.
    Run(Box<Work<P>>),
    /// A request was answered elsewhere.
    Answered(Box<Answered<P>>),
    /// Requests at work are to be refused, because the server ends.
    Refuse,
}

/// Starts a thread.
pub fn start_thread(name: String, run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    let started = thread::Builder::new().name(name).spawn(run);
    started.map(drop).map_err(cannot_start)
}

/// The error of a thread that cannot be started.
pub fn cannot_start(error: std::io::Error) -> StartError {
    StartError::failed(format!("cannot start a thread: {error}"))
}
