//! The worker threads: receive requests, have them answered, and always leave one free to receive the next.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use tiny_http::{Method, Request};

use crate::config::Config;
use crate::error::{RequestError, StartError};
use crate::front::answer::{self, Answer};
use crate::front::body::{self, Rest};
use crate::front::door::{Door, Received};
use crate::front::drain::Drain;
use crate::front::headers;
use crate::front::service::{Service, Serving, Work};
use crate::front::slots::{Admission, Slots};
use crate::front::usher::Usher;
use crate::logging::FRONT;

/// Requests worked on at once, when nothing asks for more. Most wait for TensorFlow Serving, so the number has
/// little to do with CPUs; a waiting thread costs some 10 KB.
const DEFAULT_SLOTS: usize = 64;
/// In multi-model mode there are slots for so many models with all the work they can have: requests that wait for one
/// which is down must not keep the others' out.
const MODELS_AT_WORK: usize = 8;
/// Requests that wait for a slot; each holds its connection and its head, not yet its body.
const MAX_BACKLOG: usize = 1024;
/// Bytes of a request's headers, names and values; nginx takes 32 KB.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// Requests worked on at once.
pub fn slots(config: &Config) -> usize {
    if config.single_threaded {
        return 1;
    }
    match config.multi_model {
        Some(_) => model_slots(config) * MODELS_AT_WORK,
        None => model_slots(config),
    }
}

/// Requests of one model worked on at once.
pub fn model_slots(config: &Config) -> usize {
    if config.single_threaded {
        return 1;
    }
    let asked = config.max_concurrent_transforms.unwrap_or(0) as usize;
    asked.max(DEFAULT_SLOTS)
}

/// The running front. The threads end with the process.
pub struct Front {
    shared: Arc<Shared>,
}

struct Shared {
    door: Arc<Door>,
    usher: Usher,
    slots: Slots<Work>,
    /// Requests that load or unload a model now.
    managing: AtomicUsize,
    drain: Drain,
    /// The whole answer to a request there is no room for.
    busy: Vec<u8>,
    service: Service,
}

impl Front {
    /// Opens the port and starts the workers.
    ///
    /// # Errors
    /// When the port cannot be opened or a thread not be started.
    pub fn start(config: &Config, serving: Serving) -> Result<Self, StartError> {
        raise_file_limit();
        let slots = slots(config);
        // One more than there are slots: however slow the work, somebody is left to receive.
        let workers = slots + 1;
        let shared = Arc::new(Shared {
            door: Arc::new(Door::open(
                config.listen,
                config.port,
                config.deadline,
                workers,
            )?),
            usher: Usher::new(),
            slots: Slots::new(slots, MAX_BACKLOG),
            managing: AtomicUsize::new(0),
            drain: Drain::default(),
            busy: answer::prepare(&busy().into()),
            service: Service::new(config, serving),
        });
        for index in 0..workers {
            let shared = Arc::clone(&shared);
            start_thread(format!("worker-{index}"), move || {
                let stray = shared.stray();
                loop {
                    let step = || match shared.door.receive(&stray) {
                        Received::Request(request) => shared.take(request, Shared::work),
                        Received::Woken => {
                            if let Some(work) = shared.slots.take_queued() {
                                shared.work(work);
                            }
                        }
                    };
                    // A mistake in our code or in tiny_http must not cost a worker.
                    if catch_unwind(AssertUnwindSafe(step)).is_err() {
                        log::error!("a worker panicked while receiving");
                    }
                }
            })?;
        }
        let ushered = Arc::clone(&shared);
        start_thread("usher".into(), move || {
            ushered.usher.run(&ushered.door, &ushered.stray());
        })?;
        Ok(Self { shared })
    }

    /// Refuses new connections; open ones are served on and told that they end.
    pub fn stop_accepting(&self) {
        self.shared.door.close();
    }

    /// Requests being answered or waiting.
    pub fn in_flight(&self) -> usize {
        self.shared.slots.in_flight() + self.shared.managing.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Takes a request that was just received. `run` is called with work that may be slow and has a slot.
    fn take(self: &Arc<Self>, request: Request, run: impl FnOnce(&Self, Work)) {
        if !self.door.is_our_own(&request) {
            self.usher.note(&request);
        }
        let received = Instant::now();
        if headers::size(&request) > MAX_HEADER_BYTES {
            let error = RequestError::new(
                431,
                format!("The headers have more than {MAX_HEADER_BYTES} bytes."),
            );
            return self.refuse(request, error, received);
        }
        let announced = match body::announced(&request) {
            Ok(announced) => announced,
            Err(error) => return self.refuse(request, error, received),
        };
        let at_hand = body::is_at_hand(&request, announced);
        if at_hand && let Some(answer) = self.service.quick_answer(&request) {
            self.send(request, &answer, received);
            return;
        }
        let work = Work {
            request,
            announced,
            body_is_read: false,
            received,
        };
        if self.service.is_management(&work.request) {
            return self.manage(work);
        }
        match self.slots.admit(work) {
            Admission::Run(work) => run(self, work),
            Admission::Queued => {}
            Admission::Refused(work) if at_hand => {
                self.log_access(&work.request, busy().status, 0, received);
                report(answer::send_prepared(work.request, &self.busy));
            }
            Admission::Refused(work) => self.refuse(work.request, busy(), received),
        }
    }

    /// Loads or unloads a model on a thread of its own: that takes long, and inference is not to wait for it.
    fn manage(self: &Arc<Self>, work: Work) {
        let shared = Arc::clone(self);
        shared.managing.fetch_add(1, Ordering::Relaxed);
        // Where it can be had back from when there is no thread.
        let (give, take) = crossbeam_channel::bounded(1);
        let taken = take.clone();
        let run = move || {
            let answer = || taken.try_iter().for_each(|work| shared.answer(work));
            if catch_unwind(AssertUnwindSafe(answer)).is_err() {
                log::error!("loading or unloading a model panicked; its request got 500");
            }
            shared.managing.fetch_sub(1, Ordering::Relaxed);
        };
        give.send(work).expect("there is room for one");
        let Err(e) = thread::Builder::new().name("manage".into()).spawn(run) else {
            return;
        };
        log::error!("no thread to load or unload a model: {e}");
        for work in take.try_iter() {
            if *work.request.method() == Method::Delete {
                // What it frees is needed, so whoever waits for this worker waits.
                self.answer(work);
            } else {
                let text = format!("Memory exhausted: no thread to load the model: {e}");
                self.refuse(work.request, RequestError::new(507, text), work.received);
            }
        }
        self.managing.fetch_sub(1, Ordering::Relaxed);
    }

    /// Answers a request whose body has not been read.
    fn refuse(&self, request: Request, error: RequestError, received: Instant) {
        match body::rest(&request) {
            // Chunks are not drained: what follows would be taken for the next request.
            Rest::None => self.send(request, &body::broken_off(error).into(), received),
            Rest::Drained => {
                self.log_access(&request, error.status, 0, received);
                self.drain.answer(request, error);
            }
            Rest::Untouchable => {
                self.log_access(&request, error.status, 0, received);
                body::refuse_untouched(request, &error);
            }
        }
    }

    /// Answers `work`, which has a slot, and then what waits in the backlog.
    fn work(&self, work: Work) {
        let mut next = Some(work);
        while let Some(work) = next {
            // A mistake in our code costs one request: dropped in a panic, it is answered with 500 by tiny_http.
            if catch_unwind(AssertUnwindSafe(|| self.answer(work))).is_err() {
                log::error!("a worker panicked; its request got 500");
            }
            next = self.slots.next();
        }
    }

    fn answer(&self, mut work: Work) {
        match self.service.slow_answer(&mut work) {
            Ok(answer) => self.send(work.request, &answer, work.received),
            Err(error) if work.body_is_read => {
                self.send(work.request, &error.into(), work.received);
            }
            Err(error) => self.refuse(work.request, error, work.received),
        }
    }

    fn send(&self, request: Request, answer: &Answer, received: Instant) {
        self.log_access(&request, answer.status, answer.body.len(), received);
        report(answer::send(request, answer, self.door.is_closed()));
    }

    fn log_access(&self, request: &Request, status: u16, bytes: usize, received: Instant) {
        if !log::log_enabled!(target: FRONT, log::Level::Info) || self.door.is_our_own(request) {
            return; // what follows costs
        }
        log::info!(
            target: FRONT,
            "{} \"{} {}\" {status} {bytes} {:.1} ms",
            request.remote_addr().map(|a| a.ip().to_string()).unwrap_or_default(),
            request.method(),
            request.url().escape_default(),
            received.elapsed().as_secs_f64() * 1000.0
        );
    }

    /// For requests that arrive where no worker waits: queued, and a worker is woken.
    fn stray(self: &Arc<Self>) -> impl Fn(Request) + Clone + Send + 'static {
        let shared = Arc::clone(self);
        move |request| {
            shared.take(request, |shared, work| {
                shared.slots.give_back(work);
                shared.door.wake_one();
            });
        }
    }
}

/// 503: slots and backlog are full.
fn busy() -> RequestError {
    RequestError {
        header: Some(("Retry-After", "1")),
        ..RequestError::new(503, "Too many requests are waiting; try again.")
    }
}

fn report(sent: io::Result<()>) {
    if let Err(e) = sent {
        log::warn!(target: FRONT, "an answer could not be sent: {e}");
    }
}

fn start_thread(name: String, run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    thread::Builder::new()
        .name(name)
        .spawn(run)
        .map(drop)
        .map_err(|e| StartError::failed(format!("cannot start a thread: {e}")))
}

/// A connection takes two file descriptors; the usual soft limit of 1,024 is for programs that use `select`.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(e) = setrlimit(Resource::Nofile, raised) {
        log::warn!("cannot raise the limit of open files: {e}");
    }
}
