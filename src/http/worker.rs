//! One worker: its event loop, its connections, and the requests at work on them.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use crate::error::RequestError;
use crate::http::admission::{Placement, TOO_MANY_REQUESTS};
use crate::http::budget::Buffer;
use crate::http::connection::{Arrived, Connection, Step};
use crate::http::executor::{Answered, Work, answer, waited_too_long};
use crate::http::head::Head;
use crate::http::listener::LISTENER;
use crate::http::pauses;
use crate::http::response::{self, Response, ResponseWriter};
use crate::http::server::{Shared, start_thread};
use crate::http::service::{Lane, Planned, Request, Service};
use crate::http::socket::{Running, Socket};
use crate::logging::FRONT;
use crate::wait::{self, Event, Reactor, Spawned};

/// How often to look for connections on which something takes too long.
const TICK: Duration = Duration::from_millis(100);
/// What nginx logs for a client that has hung up. Nobody gets it.
const CLIENT_HUNG_UP: u16 = 499;

/// What others tell a worker.
pub enum Message<P> {
    /// A slot is free for this request.
    Run(Box<Work<P>>),
    /// A request was answered elsewhere.
    Answered(Box<Answered<P>>),
    /// Requests at work are to be refused, because the server ends.
    Refuse,
}

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
        let hang_up = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        if event.flags.intersects(hang_up) {
            socket.note_hang_up();
        }
        self.go_on(&socket);
    }

    /// Has a connection do what it can.
    fn go_on(&mut self, socket: &SocketOf<S>) {
        self.guarded(socket, |worker| {
            let step = worker.advance(socket, &mut socket.connection());
            if matches!(step, Step::Busy) {
                // What has happened is not reported again.
                socket.note_news();
                if socket.has_hung_up() {
                    worker.cancel(socket);
                }
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

    /// Takes a request that has arrived.
    fn take(&mut self, socket: &SocketOf<S>, arrived: Arrived, planned: Planned<S::Plan>) {
        let shared = Arc::clone(&self.shared);
        let Arrived {
            head,
            body,
            received,
        } = arrived;
        // Its body may have been there all the time that this process did not run.
        let from = match planned.lane {
            Lane::Request => received.max(pauses::last_end()),
            Lane::Immediate | Lane::Thread => received,
        };
        let work = Work {
            socket: Arc::clone(socket),
            request: Request {
                head,
                body,
                received: from,
                deadline: from + shared.deadline,
            },
            plan: planned.plan,
            has_slot: planned.lane == Lane::Request,
        };
        match planned.lane {
            Lane::Immediate => {
                let answered = answer(&shared, work);
                self.send(
                    socket,
                    Some(&answered.request.head),
                    answered.response,
                    received,
                );
            }
            _ if shared.is_refusing.load(Ordering::SeqCst) => {
                self.reply(socket, work.request, stopping().into());
            }
            Lane::Thread => self.run_on_thread(work),
            Lane::Request => match shared.slots.admit(work) {
                Placement::Run(work) => self.runnable.push_back(work),
                Placement::Queued => {}
                Placement::Refused(work) => self.turn_away(work),
            },
        }
    }

    /// Starts a request that has a slot.
    fn start(&mut self, work: Work<S::Plan>) {
        let socket = Arc::clone(&work.socket);
        if socket.has_hung_up() {
            close(&socket);
            return self.finish(Answered {
                socket,
                request: work.request,
                has_slot: work.has_slot,
                response: RequestError::hung_up().into(),
            });
        }
        if let Some(threads) = &self.shared.threads {
            return threads.run(work);
        }
        if let Err(e) = self.reactor.prepare() {
            log::error!("no memory for a request's stack: {e}");
            return self.finish(Answered {
                socket,
                request: work.request,
                has_slot: work.has_slot,
                response: RequestError::busy("There is no memory for the request; try again.")
                    .into(),
            });
        }
        let shared = Arc::clone(&self.shared);
        match self.reactor.spawn(move || answer(&shared, work)) {
            Spawned::Done(result) => self.done.push(result),
            Spawned::Waiting(task) => socket.set_running(Some(Running::Coroutine(task))),
        }
    }

    /// Runs a request on a thread of its own.
    fn run_on_thread(&mut self, work: Work<S::Plan>) {
        // Where it can be had back from when there is no thread.
        let (give, take) = crossbeam_channel::bounded::<Work<S::Plan>>(1);
        let (taken, shared) = (take.clone(), Arc::clone(&self.shared));
        let run = move || {
            for work in taken.try_iter() {
                let worker = work.socket.worker;
                let answered = answer(&shared, work);
                shared.mailboxes[worker].send(Message::Answered(Box::new(answered)));
            }
        };
        // There is room for one.
        let _ = give.send(work);
        let Err(error) = start_thread("manage".into(), run) else {
            return;
        };
        log::error!("{error}");
        for work in take.try_iter() {
            match self.shared.service.without_thread(&work.plan, &error) {
                Some(response) => self.reply(&work.socket, work.request, response),
                None => self.runnable.push_back(work),
            }
        }
    }

    /// Sends a response, and gives the slot to the next request.
    fn finish(&mut self, answered: Answered<S::Plan>) {
        let Answered {
            socket,
            request,
            response,
            has_slot,
        } = answered;
        socket.set_running(None);
        self.reply(&socket, request, response);
        if !has_slot {
            return;
        }
        match self.shared.slots.next() {
            Some(work) if work.socket.worker == self.index => self.runnable.push_back(work),
            Some(work) => {
                let worker = work.socket.worker;
                self.shared.mailboxes[worker].send(Message::Run(Box::new(work)));
            }
            None => {}
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

    /// Answers that there is no room, in as little time as possible.
    fn turn_away(&mut self, work: Work<S::Plan>) {
        static BUSY: LazyLock<Vec<u8>> =
            LazyLock::new(|| response::prepare(&RequestError::busy(TOO_MANY_REQUESTS).into()));
        let Work {
            socket, request, ..
        } = work;
        let head = &request.head;
        if head.is_http_1_0 || head.method() == "HEAD" || !self.keeps(&socket, head) {
            let response = RequestError::busy(TOO_MANY_REQUESTS).into();
            return self.reply(&socket, request, response);
        }
        log_access(&socket, Some(head), 503, BUSY.len(), request.received);
        self.guarded(&socket, |worker| {
            worker.respond(&socket, ResponseWriter::prepared(&BUSY), true);
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

    /// Ends the work on a request whose client has hung up.
    fn cancel(&mut self, socket: &SocketOf<S>) {
        match socket.take_running() {
            Some(Running::Coroutine(task)) => {
                close(socket);
                self.reactor.cancel(task, &mut self.done);
            }
            Some(Running::Thread(canceller)) => {
                close(socket);
                canceller.cancel();
            }
            None => {
                let is_this = |work: &Work<S::Plan>| Arc::ptr_eq(&work.socket, socket);
                for work in self.shared.slots.take_from_backlog(is_this) {
                    close(socket);
                    self.reply(socket, work.request, Response::empty());
                }
            }
        }
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
                let mut connection = socket.connection();
                if connection.is_busy() {
                    let mut response = Response::from(stopping());
                    if connection.is_head_request() {
                        response.body = Buffer::default();
                    }
                    let keep = connection.has_more(&*socket);
                    connection.answer(ResponseWriter::new(response, None, keep), keep);
                    let step = worker.advance(&socket, &mut connection);
                    drop(connection);
                    worker.follow(&socket, step);
                }
            });
        }
    }
}

/// Ends a connection whose client has hung up while its request was at work.
fn close<P>(socket: &Socket<P>) {
    socket.connection().close();
}

/// The response while the server ends.
fn stopping() -> RequestError {
    RequestError::new(503, "The server is stopping.")
}

fn log_access<P>(
    socket: &Socket<P>,
    head: Option<&Head>,
    status: u16,
    bytes: usize,
    received: Instant,
) {
    if !log::log_enabled!(target: FRONT, log::Level::Info) {
        return; // what follows costs
    }
    let (method, target) = head.map_or(("-", "-"), |head| (head.method(), head.target()));
    log::info!(
        target: FRONT,
        "{} \"{method} {}\" {status} {bytes} {:.1} ms",
        socket.peer,
        target.escape_default(),
        received.elapsed().as_secs_f64() * 1000.0
    );
}
