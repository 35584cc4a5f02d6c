//! One worker: its event loop and its connections.
//!
//! The worker advances the state machine of each connection (`connection.rs`) on events, carries out the step that it
//! asks for, and checks time limits. `requests.rs` starts the requests and passes on their slots.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use crate::budget::Buffer;
use crate::error::RequestError;
use crate::http::access_log::{CLIENT_HUNG_UP, log_access};
use crate::http::connection::{Connection, Step};
use crate::http::executor::waited_too_long;
use crate::http::head::Head;
use crate::http::listener::LISTENER;
use crate::http::response::{Response, ResponseWriter};
use crate::http::service::{Planned, Request, Service};
use crate::http::shared::{Answered, Message, Shared, Work};
use crate::http::socket::{HangUp, Socket};
use crate::pauses;
use crate::wait::{self, Event, Reactor};

mod requests;

/// How often to check time limits.
const TICK: Duration = Duration::from_millis(100);

/// A worker; see the [module](self).
pub struct Worker<S: Service> {
    index: usize,
    reactor: Reactor<Answered<S::Plan>>,
    shared: Arc<Shared<S>>,
    /// Connections that need another turn.
    again: VecDeque<Arc<Socket<S::Plan>>>,
    /// Requests that have a slot and have not started.
    runnable: VecDeque<Work<S::Plan>>,
    /// Results of finished coroutines.
    done: Vec<thread::Result<Answered<S::Plan>>>,
}

type SocketOf<S> = Arc<Socket<<S as Service>::Plan>>;
type StepOf<S> = Step<Planned<<S as Service>::Plan>>;

impl<S: Service> Worker<S> {
    /// A worker for the thread that calls this.
    pub fn new(index: usize, reactor: Reactor<Answered<S::Plan>>, shared: Arc<Shared<S>>) -> Self {
        Self {
            index,
            reactor,
            shared,
            again: VecDeque::new(),
            runnable: VecDeque::new(),
            done: Vec::new(),
        }
    }

    /// Serves until the process ends.
    pub fn run(mut self) {
        self.shared.listener.watch(self.index);
        let mut events = Vec::new();
        let mut next_tick = Instant::now() + TICK;
        loop {
            let limit = match self.again.is_empty() {
                true => next_tick.saturating_duration_since(Instant::now()),
                false => Duration::ZERO,
            };
            if let Err(e) = self.reactor.turn(Some(limit), &mut events, &mut self.done) {
                // Not expected. If it happens, do not spin.
                log::error!("cannot wait for events: {e}");
                let _ = wait::until(Instant::now() + TICK);
            }
            self.settle();
            for message in self.shared.mailboxes[self.index].take() {
                self.handle_message(message);
            }
            for event in events.drain(..) {
                self.handle_event(event);
            }
            // Connections added during this loop get their turn after new events.
            for _ in 0..self.again.len() {
                if let Some(socket) = self.again.pop_front() {
                    self.drive(&socket);
                }
            }
            let now = Instant::now();
            if now >= next_tick {
                next_tick = now + TICK;
                self.tick(now);
            }
        }
    }

    /// Sends finished responses, and starts the requests that got their slots.
    fn settle(&mut self) {
        loop {
            if let Some(result) = self.done.pop() {
                match result {
                    Ok(answered) => self.finish(answered),
                    Err(_) => log::error!("a coroutine panicked outside its request"),
                }
            } else if let Some(work) = self.runnable.pop_front() {
                self.start(work);
            } else {
                return;
            }
        }
    }

    fn handle_message(&mut self, message: Message<S::Plan>) {
        match message {
            Message::Run(work) => self.runnable.push_back(*work),
            Message::Answered(answered) => self.finish(*answered),
            Message::Refuse => self.refuse_all(),
        }
        self.settle();
    }

    fn handle_event(&mut self, event: Event) {
        if event.token == LISTENER {
            return self.shared.listener.accept(self.index);
        }
        let Some(socket) = self.shared.listener.table.get(event.token) else {
            return; // closed since the event
        };
        if event.flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            socket.note_hang_up(HangUp::Both);
        } else if event.flags.contains(EventFlags::RDHUP) {
            socket.note_hang_up(HangUp::Sending);
        }
        self.drive(&socket);
    }

    /// Advances a connection, cancelling its request if the client has hung up.
    fn drive(&mut self, socket: &SocketOf<S>) {
        self.catch_panic(socket, |worker| {
            let step = worker.advance(socket, &mut socket.connection());
            if matches!(step, Step::Busy | Step::Write) {
                // The event was not used for reading, and epoll will not report it again.
                socket.note_missed_event();
            }
            if matches!(step, Step::Busy) && socket.has_hung_up() {
                worker.cancel(socket);
            }
            worker.carry_out(socket, step);
        });
        self.settle();
    }

    /// Closes the connection if `run` panics, so that a bug does not stop the worker.
    fn catch_panic(&mut self, socket: &SocketOf<S>, run: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| run(self))).is_err() {
            log::error!("the server panicked while serving a connection; the connection is closed");
            self.shared.listener.table.remove(socket);
        }
    }

    fn advance(
        &self,
        socket: &SocketOf<S>,
        connection: &mut Connection<Planned<S::Plan>>,
    ) -> StepOf<S> {
        connection.advance(&**socket, &|head, arrived| self.shared.admit(head, arrived))
    }

    /// Carries out the step that a connection needs.
    fn carry_out(&mut self, socket: &SocketOf<S>, step: StepOf<S>) {
        match step {
            Step::Busy | Step::Write => {}
            // New bytes cause an event, but bytes that arrived while a request was running have already caused theirs.
            Step::Read => {
                if socket.take_missed_event() {
                    self.again.push_back(Arc::clone(socket));
                }
            }
            Step::Again => self.again.push_back(Arc::clone(socket)),
            Step::Close => self.shared.listener.table.remove(socket),
            Step::Refused(head, error) => {
                self.send(socket, head.as_deref(), error.into(), Instant::now());
            }
            Step::Request(arrived, planned) => self.dispatch(socket, *arrived, planned),
        }
    }

    /// Sends the response to a request, and frees the request's body.
    fn reply(&mut self, socket: &SocketOf<S>, request: Request, response: Response) {
        let Request {
            head,
            body,
            received,
            ..
        } = request;
        drop(body);
        self.catch_panic(socket, |worker| {
            worker.send(socket, Some(&head), response, received);
        });
    }

    /// Logs a response and starts sending it.
    fn send(
        &mut self,
        socket: &SocketOf<S>,
        head: Option<&Head>,
        response: Response,
        received: Instant,
    ) {
        if socket.connection().is_closed() {
            self.shared.listener.table.remove(socket);
            return log_access(socket, head, CLIENT_HUNG_UP, 0, received);
        }
        let keep =
            !response.ends_connection && head.is_some_and(|head| self.keeps_open(socket, head));
        log_access(socket, head, response.status, response.body.len(), received);
        self.respond(socket, ResponseWriter::new(response, head, keep), keep);
    }

    /// Gives a response to the connection, which sends as much of it as the client takes now.
    fn respond(&mut self, socket: &SocketOf<S>, writer: ResponseWriter, keep: bool) {
        let mut connection = socket.connection();
        connection.answer(writer, keep);
        let step = self.advance(socket, &mut connection);
        drop(connection);
        self.carry_out(socket, step);
    }

    /// Whether the connection stays open after this request. While the server stops, it does so only if the client has
    /// already sent more.
    fn keeps_open(&self, socket: &SocketOf<S>, head: &Head) -> bool {
        head.keeps_connection()
            && (!self.shared.listener.is_closed() || socket.connection().has_more(&**socket))
    }

    /// Enforces time limits, and resumes accepting if it had paused.
    fn tick(&mut self, now: Instant) {
        pauses::tick();
        let last_pause_end = pauses::last_end();
        let shared = Arc::clone(&self.shared);
        let index = self.index;
        let is_too_late = |work: &Work<S::Plan>| {
            let from = work.request.received.max(last_pause_end);
            work.socket.worker == index && from + shared.deadline <= now
        };
        for work in shared.slots.take_from_backlog(is_too_late) {
            let error = waited_too_long(&shared);
            self.reply(&work.socket, work.request, error.into());
        }
        let is_closed = shared.listener.is_closed();
        for socket in shared.listener.table.of_worker(index) {
            self.catch_panic(&socket, |worker| {
                let step = socket.try_connection().and_then(|mut connection| {
                    connection.overdue(&*socket, now, last_pause_end, is_closed)
                });
                if let Some(step) = step {
                    worker.carry_out(&socket, step);
                }
            });
        }
        if !is_closed {
            shared.listener.watch(index);
        }
        self.settle();
    }

    /// Responds 503 to the requests of this worker's connections that run, wait or are being received.
    fn refuse_all(&mut self) {
        for socket in self.shared.listener.table.of_worker(self.index) {
            self.catch_panic(&socket, |worker| {
                let mut connection = socket.connection();
                if let Some(step) = connection.refuse_body(|| RequestError::ending(503, STOPPING)) {
                    drop(connection);
                    worker.carry_out(&socket, step);
                } else if connection.is_busy() {
                    let mut response = Response::from(stopping());
                    if connection.is_head_request() {
                        response.body = Buffer::default();
                    }
                    let keep = connection.has_more(&*socket);
                    drop(connection);
                    worker.respond(&socket, ResponseWriter::new(response, None, keep), keep);
                }
            });
        }
    }
}

/// The error text for requests while the server ends.
const STOPPING: &str = "The server is stopping.";

/// The error for requests while the server ends.
fn stopping() -> RequestError {
    RequestError::new(503, STOPPING)
}
