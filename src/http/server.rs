//! The worker threads: wait for something to happen at the door, have requests answered, and always leave one free to
//! look after everybody else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::api::{Mode, Service};
use crate::config::{self, Config};
use crate::error::{RequestError, StartError};
use crate::handlers::worker;
use crate::http::admission::{Admission, Slots};
use crate::http::body::{self, Announced, Incoming};
use crate::http::budget::{Budget, NoRoom};
use crate::http::connection::{Exchange, Request, Step, Verdict};
use crate::http::head::Head;
use crate::http::listener::{Door, Event, Interest};
use crate::http::pauses;
use crate::http::response::{self, Answer, Wire};
use crate::http::socket::Connection;
use crate::logging::FRONT;
use crate::memory;

mod ending;

use ending::stopping;

/// Requests that wait for a slot; each holds its connection and its body.
const MAX_BACKLOG: usize = 1024;
/// The rest of a body that was refused is read over if it is not longer; else the connection ends.
const MAX_SKIPPED_BYTES: usize = 1 << 20;
/// File descriptors for everything but connections: the log, children, downloads.
const OTHER_FILES: usize = 256;
/// File descriptors a slot may need: a connection to TensorFlow Serving, and an idle one.
const FILES_A_SLOT: usize = 2;
/// File descriptors for a channel to a Python worker: our end, and one more while the worker restarts: the new process's
/// end, or our end to the old process, which calls hold until they notice its end.
const FILES_A_CHANNEL: usize = 2;
/// Without anything to go by, memory for bodies.
const DEFAULT_BODY_MEMORY: u64 = 1 << 30;
/// The part of all memory that bodies may take when nothing is set. TensorFlow Serving needs some for each of them, too.
const BODY_MEMORY_PART: u64 = 4;

/// File descriptors for all channels to Python workers.
fn channel_files(config: &Config, mode: &Mode) -> usize {
    // In multi-model mode models that come later may bring scripts.
    let scripts = match mode {
        Mode::Fixed(served) => usize::from(served.handlers.is_some()),
        Mode::Registry(_) => config::MODELS_AT_WORK,
    };
    FILES_A_CHANNEL * scripts * worker::workers(config) * worker::channels(config)
}

/// The running front. The threads end with the process.
pub struct Front {
    shared: Arc<Shared>,
}

struct Shared {
    door: Door,
    budget: Arc<Budget>,
    slots: Slots<Work>,
    service: Service,
    deadline: Duration,
    /// Requests that would need a model are refused from now on: the models are about to end.
    is_refusing: AtomicBool,
}

/// A request and whose it is.
struct Work {
    connection: Arc<Connection>,
    request: Request,
}

impl Front {
    /// Opens the port and starts the workers. `announce` gets the front before the first request is taken: the
    /// watchdog must have it by then, or a signal would end the program without draining it.
    ///
    /// # Errors
    /// When the port cannot be opened or a thread not be started.
    pub fn start(
        config: &Config,
        mode: Mode,
        announce: impl FnOnce(Self),
    ) -> Result<(), StartError> {
        let slots = config.slots();
        let memory = config.body_memory.unwrap_or_else(|| {
            memory::total().map_or(DEFAULT_BODY_MEMORY, |total| total / BODY_MEMORY_PART)
        });
        let budget = Budget::new(usize::try_from(memory).unwrap_or(usize::MAX));
        let files = raise_file_limit();
        let door = Door::open(
            config.listen,
            config.port,
            files - channel_files(config, &mode).min(files / 2),
            OTHER_FILES + FILES_A_SLOT * slots,
            &budget,
            response::prepare(
                &RequestError::busy("There are too many connections; try again.").into(),
            ),
        )?;
        pauses::tick();
        let shared = Arc::new(Shared {
            door,
            budget,
            slots: Slots::new(slots, MAX_BACKLOG),
            service: Service::new(config, mode),
            deadline: config.deadline,
            is_refusing: AtomicBool::new(false),
        });
        announce(Self {
            shared: Arc::clone(&shared),
        });
        // One more than there are slots: however slow the work, somebody is left to look after the door.
        for index in 0..=slots {
            let shared = Arc::clone(&shared);
            start_thread(format!("worker-{index}"), move || {
                loop {
                    shared.serve_one();
                }
            })?;
        }
        Ok(())
    }
}

impl Shared {
    /// Waits for one event and does what it asks for.
    fn serve_one(self: &Arc<Self>) {
        match self.door.wait() {
            Event::Nothing => {}
            Event::Tick => {
                if catch_unwind(AssertUnwindSafe(|| self.look_for_slow_ones())).is_err() {
                    log::error!("a worker panicked while it looked for slow connections");
                }
                self.door.rearm_tick();
            }
            Event::Connection(connection) => self.guarded(&connection, || {
                let step = self.advance(&connection, &mut connection.exchange());
                self.follow(&connection, step);
            }),
        }
    }

    /// A mistake in our code costs one connection, not a worker.
    fn guarded(&self, connection: &Arc<Connection>, run: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            log::error!("a worker panicked; its connection is closed");
            self.door.end(connection);
        }
    }

    /// Does what a connection needs to go on.
    fn follow(self: &Arc<Self>, connection: &Arc<Connection>, step: Step) {
        match step {
            Step::Read => self.door.await_event(connection, Interest::Read),
            Step::Write => self.door.await_event(connection, Interest::Write),
            Step::Again => self.door.await_event(connection, Interest::Turn),
            Step::Busy => {}
            Step::Close => self.door.end(connection),
            Step::Refused(head, error) => {
                let (head, now) = (head.as_deref(), Instant::now());
                self.send(connection, head, error.into(), now);
            }
            Step::Request(request) => self.take(Work {
                connection: Arc::clone(connection),
                request: *request,
            }),
        }
    }

    /// Decides whether a request may come, by its head and by what has arrived behind it.
    fn admit(&self, head: &Head, arrived: &[u8]) -> Verdict {
        let wanted = self.service.wanted_body(head);
        let limit = body::limit(&self.budget).min(wanted.unwrap_or(usize::MAX));
        let announced = match body::announced(head, limit) {
            Ok(announced) => announced,
            Err(error) => return Verdict::Refused { error, rest: None },
        };
        let body = |is_kept| Incoming::new(announced, is_kept, limit, &self.budget);
        let to_come = match announced {
            Announced::Length(length) => length.saturating_sub(arrived.len()),
            Announced::Chunked => 1, // at least
        };
        let expects_nothing = head.expectations().next().is_none();
        let mut others = head.expectations();
        let error = if others.any(|name| !name.eq_ignore_ascii_case("100-continue")) {
            RequestError::new(417, "The only expectation met is: 100-continue")
        } else if wanted.is_some() && to_come > 0 && self.slots.is_full() {
            RequestError::busy(TOO_MANY_REQUESTS)
        } else if wanted.is_some() && !self.budget.has_room(to_come) {
            NoRoom::Now.into()
        } else {
            return Verdict::Admitted {
                body: body(wanted.is_some()),
                limit: self.deadline,
            };
        };
        // A client that waits for a word may send its body then, or the next request instead.
        let can_go_on = expects_nothing && to_come <= MAX_SKIPPED_BYTES;
        Verdict::Refused {
            error: RequestError {
                ends_connection: !can_go_on,
                ..error
            },
            rest: can_go_on.then(|| body(false)),
        }
    }

    /// Takes a request that has arrived.
    fn take(self: &Arc<Self>, mut work: Work) {
        if let Some(answer) = self.service.quick_answer(&work.request.head) {
            return self.reply(work, answer);
        }
        if self.is_refusing.load(Ordering::SeqCst) {
            return self.reply(work, stopping().into());
        }
        if self.service.is_management(&work.request.head) {
            return self.manage(work);
        }
        // Its body may have been there all the time that we were not.
        let last_pause = pauses::last_end();
        work.request.received = work.request.received.max(last_pause);
        match self.slots.admit(work) {
            Admission::Run(first) => work = first,
            Admission::Queued => return,
            Admission::Refused(work) => return self.turn_away(work),
        }
        loop {
            self.answer(work);
            match self.slots.next() {
                Some(next) => work = next,
                None => return,
            }
        }
    }

    /// Loads or unloads a model on a thread of its own: that takes long, and inference is not to wait for it.
    fn manage(self: &Arc<Self>, work: Work) {
        let shared = Arc::clone(self);
        // Where it can be had back from when there is no thread.
        let (give, take) = crossbeam_channel::bounded(1);
        let taken = take.clone();
        let run = move || taken.try_iter().for_each(|work| shared.answer(work));
        give.send(work).expect("there is room for one");
        let Err(e) = thread::Builder::new().name("manage".into()).spawn(run) else {
            return;
        };
        log::error!("no thread to load or unload a model: {e}");
        for work in take.try_iter() {
            if work.request.head.method() == "DELETE" {
                // What it frees is needed, so whoever waits for this worker waits.
                self.answer(work);
            } else {
                let text = format!("Memory exhausted: no thread to load the model: {e}");
                self.reply(work, RequestError::new(507, text).into());
            }
        }
    }

    /// Answers a request, however long it takes.
    fn answer(self: &Arc<Self>, mut work: Work) {
        let answer = catch_unwind(AssertUnwindSafe(|| {
            self.service.slow_answer(&mut work.request)
        }));
        let answer = match answer {
            Ok(answer) => answer.unwrap_or_else(Answer::from),
            // A mistake in our code costs one request.
            Err(_) => {
                log::error!("a worker panicked; its request gets 500");
                RequestError::new(500, "The server made a mistake with this request.").into()
            }
        };
        self.reply(work, answer);
    }

    fn reply(self: &Arc<Self>, work: Work, answer: Answer) {
        let Work {
            connection,
            request,
        } = work;
        let Request {
            head,
            body,
            received,
        } = request;
        drop(body);
        self.guarded(&connection, || {
            self.send(&connection, Some(&head), answer, received);
        });
    }

    /// Answers that there is no room, in as little time as possible.
    fn turn_away(self: &Arc<Self>, work: Work) {
        static BUSY: LazyLock<Vec<u8>> =
            LazyLock::new(|| response::prepare(&RequestError::busy(TOO_MANY_REQUESTS).into()));
        let head = &work.request.head;
        if head.is_http_1_0 || head.method() == "HEAD" || !self.keeps(&work.connection, head) {
            return self.reply(work, RequestError::busy(TOO_MANY_REQUESTS).into());
        }
        let connection = &work.connection;
        self.log_access(
            connection,
            Some(head),
            503,
            BUSY.len(),
            work.request.received,
        );
        self.guarded(connection, || {
            self.go_on(connection, Wire::prepared(&BUSY), true);
        });
    }

    /// Sends an answer, as much of it as the client takes now.
    fn send(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        head: Option<&Head>,
        answer: Answer,
        received: Instant,
    ) {
        let keep = !answer.ends_connection && head.is_some_and(|head| self.keeps(connection, head));
        self.log_access(connection, head, answer.status, answer.body.len(), received);
        self.go_on(connection, Wire::new(answer, head, keep), keep);
    }

    fn go_on(self: &Arc<Self>, connection: &Arc<Connection>, wire: Wire, keep: bool) {
        let mut exchange = connection.exchange();
        exchange.answer(wire, keep);
        let step = self.advance(connection, &mut exchange);
        drop(exchange);
        self.follow(connection, step);
    }

    fn advance(&self, connection: &Arc<Connection>, exchange: &mut Exchange) -> Step {
        exchange.advance(&**connection, &|head, arrived| self.admit(head, arrived))
    }

    /// Whether another request may follow on this one's connection. While the server stops: one that is there already.
    fn keeps(&self, connection: &Connection, head: &Head) -> bool {
        head.keeps_connection()
            && (!self.door.is_closed() || connection.exchange().has_more(connection))
    }

    /// Gives up what takes too long.
    fn look_for_slow_ones(self: &Arc<Self>) {
        let now = Instant::now();
        pauses::tick();
        let last_pause = pauses::last_end();
        let is_too_late =
            |work: &Work| work.request.received.max(last_pause) + self.deadline <= now;
        for work in self.slots.take_from_backlog(is_too_late) {
            let error = self.service.waited_too_long();
            self.reply(work, error.into());
        }
        for connection in self.door.all() {
            self.guarded(&connection, || {
                let step = connection.try_exchange().and_then(|mut exchange| {
                    exchange.overdue(&*connection, now, last_pause, self.door.is_closed())
                });
                if let Some(step) = step {
                    self.follow(&connection, step);
                }
            });
        }
    }

    fn log_access(
        &self,
        connection: &Connection,
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
            connection.peer,
            target.escape_default(),
            received.elapsed().as_secs_f64() * 1000.0
        );
    }
}

const TOO_MANY_REQUESTS: &str = "Too many requests are waiting; try again.";

fn start_thread(name: String, run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    thread::Builder::new()
        .name(name)
        .spawn(run)
        .map(drop)
        .map_err(|e| StartError::failed(format!("cannot start a thread: {e}")))
}

/// Raises the number of file descriptors that this process may have: the usual soft limit of 1,024 is for programs that
/// use `select`. Says what it is then.
fn raise_file_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(e) => {
            log::warn!("cannot raise the limit of open files: {e}");
            limit.current
        }
    };
    current.map_or(usize::MAX, |files| files.try_into().unwrap_or(usize::MAX))
}
