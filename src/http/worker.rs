//! One worker: its event loop and its connections. The requests on them are in `requests.rs`.

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

/// How often to look for connections on which something takes too long.
const TICK: Duration = Duration::from_millis(100);
/// See the module.
pub struct Worker<S: Service> {
    index: usize,
    reactor: Reactor<Answered<S::Plan>>,
    shared: Arc<Shared<S>>,
    /// Connections that have more to do than one turn allows.
    again: VecDeque<Arc<Socket<S::Plan>>>,
    /// Requests that have a slot.
    runnable: VecDeque<Work<S::Plan>>,
    /// Results of coroutines.
    done: Vec<thread::Result<Answered<S::Plan>>>,
}

type SocketOf<S> = Arc<Socket<<S as Service>::Plan>>;
type StepOf<S> = Step<Planned<<S as Service>::Plan>>;

impl<S: Service> Worker<S> {
    /// A worker, on its thread.
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

    /// Serves for ever.
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
                // It cannot be, but if it is, it must not take a whole CPU.
                log::error!("cannot wait for events: {e}");
                let _ = wait::until(Instant::now() + TICK);
            }
            self.settle();
            for message in self.shared.mailboxes[self.index].take() {
                self.read(message);
            }
            for event in events.drain(..) {
                self.handle(event);
            }
            // Those that are added now have their turn after new events.
            for _ in 0..self.again.len() {
                if let Some(socket) = self.again.pop_front() {
                    self.go_on(&socket);
                }
            }
            let now = Instant::now();
            if now >= next_tick {
                next_tick = now + TICK;
                self.tick(now);
            }
        }
    }

    /// Sends the responses that are there, and starts requests that have got a slot by that.
    fn settle(&mut self) {
        loop {
            if let Some(result) = self.done.pop() {
                match result {
                    Ok(answered) => self.finish(answered),
                    Err(_) => log::error!("a coroutine panicked outside of its request"),
                }
            } else if let Some(work) = self.runnable.pop_front() {
                self.start(work);
            } else {
                return;
            }
        }
    }

    fn read(&mut self, message: Message<S::Plan>) {
        match message {
            Message::Run(work) => self.runnable.push_back(*work),
            Message::Answered(answered) => self.finish(*answered),
            Message::Refuse => self.refuse_all(),
        }
        self.settle();
    }

    fn handle(&mut self, event: Event) {
        if event.token == LISTENER {
            return self.shared.listener.accept(self.index);
        }
        let Some(socket) = self.shared.listener.table.get(event.token) else {
            return; // closed meanwhile
        };
        if event.flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            socket.note_hang_up(HangUp::Both);
        } else if event.flags.contains(EventFlags::RDHUP) {
            socket.note_hang_up(HangUp::Sending);
        }
        self.go_on(&socket);
    }

    /// Has a connection do what it can.
    fn go_on(&mut self, socket: &SocketOf<S>) {
        self.guarded(socket, |worker| {
            let step = worker.advance(socket, &mut socket.connection());
            if matches!(step, Step::Busy | Step::Write) {
                // Nothing has been read, and what has arrived is not reported again.
                socket.note_news();
            }
            if matches!(step, Step::Busy) && socket.has_hung_up() {
                worker.cancel(socket);
            }
            worker.follow(socket, step);
        });
        self.settle();
    }

    /// A mistake in our code costs one connection, not a worker.
    fn guarded(&mut self, socket: &SocketOf<S>, run: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| run(self))).is_err() {
            log::error!("a worker panicked; the connection is closed");
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

    /// Does what a connection needs to go on.
    fn follow(&mut self, socket: &SocketOf<S>, step: StepOf<S>) {
        match step {
            Step::Busy | Step::Write => {}
            // Whatever comes is reported, but what came while a request was at work has been.
            Step::Read => {
                if socket.take_news() {
                    self.again.push_back(Arc::clone(socket));
                }
            }
            Step::Again => self.again.push_back(Arc::clone(socket)),
            Step::Close => self.shared.listener.table.remove(socket),
            Step::Refused(head, error) => {
                self.send(socket, head.as_deref(), error.into(), Instant::now());
            }
            Step::Request(arrived, planned) => self.take(socket, *arrived, planned),
        }
    }

    fn reply(&mut self, socket: &SocketOf<S>, request: Request, response: Response) {
        let Request {
            head,
            body,
            received,
            ..
        } = request;
        drop(body);
        self.guarded(socket, |worker| {
            worker.send(socket, Some(&head), response, received);
        });
    }

    /// Sends a response, as much of it as the client takes now.
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
        let keep = !response.ends_connection && head.is_some_and(|head| self.keeps(socket, head));
        log_access(socket, head, response.status, response.body.len(), received);
        self.respond(socket, ResponseWriter::new(response, head, keep), keep);
    }

    fn respond(&mut self, socket: &SocketOf<S>, writer: ResponseWriter, keep: bool) {
        let mut connection = socket.connection();
        connection.answer(writer, keep);
        let step = self.advance(socket, &mut connection);
        drop(connection);
        self.follow(socket, step);
    }

    /// Whether another request may follow on this one's connection. While the server stops: one that is there already.
    fn keeps(&self, socket: &SocketOf<S>, head: &Head) -> bool {
        head.keeps_connection()
            && (!self.shared.listener.is_closed() || socket.connection().has_more(&**socket))
    }

    /// Gives up what takes too long, and accepts connections again if that had paused.
    fn tick(&mut self, now: Instant) {
        pauses::tick();
        let last_pause = pauses::last_end();
        let shared = Arc::clone(&self.shared);
        let index = self.index;
        let is_too_late = |work: &Work<S::Plan>| {
            let from = work.request.received.max(last_pause);
            work.socket.worker == index && from + shared.deadline <= now
        };
        for work in shared.slots.take_from_backlog(is_too_late) {
            let error = waited_too_long(&shared);
            self.reply(&work.socket, work.request, error.into());
        }
        let is_closed = shared.listener.is_closed();
        for socket in shared.listener.table.of_worker(index) {
            self.guarded(&socket, |worker| {
                let step = socket.try_connection().and_then(|mut connection| {
                    connection.overdue(&*socket, now, last_pause, is_closed)
                });
                if let Some(step) = step {
                    worker.follow(&socket, step);
                }
            });
        }
        if !is_closed {
            shared.listener.watch(index);
        }
        self.settle();
    }

    /// Answers 503 to the requests at work on this worker's connections.
    fn refuse_all(&mut self) {
        for socket in self.shared.listener.table.of_worker(self.index) {
            self.guarded(&socket, |worker| {
                let connection = socket.connection();
                if connection.is_busy() {
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

/// The response while the server ends.
fn stopping() -> RequestError {
    RequestError::new(503, "The server is stopping.")
}
