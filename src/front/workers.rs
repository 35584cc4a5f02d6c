//! The worker threads: receive requests, answer them, and always leave one free to receive the next.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tiny_http::Request;

use crate::attributes::{self, Attributes};
use crate::config::Config;
use crate::convert::{Format, accept};
use crate::error::{RequestError, StartError};
use crate::front::answer::{self, Answer};
use crate::front::body::{self, Announced};
use crate::front::door::{Door, Received};
use crate::front::route::{Route, route};
use crate::front::slots::{Admission, Slots};
use crate::front::turn_away::TurnAway;
use crate::logging::FRONT;
use crate::tfs::backend::Backend;
use crate::tfs::client::{TfsAnswer, TfsRequest};

/// Requests worked on at once, when nothing asks for more. Most wait for TensorFlow Serving, so the number has
/// little to do with CPUs; a waiting thread costs some 10 KB.
const DEFAULT_SLOTS: usize = 64;
/// Requests that wait for a slot; each holds its connection and its head, not yet its body.
const MAX_BACKLOG: usize = 1024;
/// What `/execution-parameters` says when the job does not: SageMaker's default payload, and enough concurrency
/// to keep a model server busy.
const DEFAULT_MAX_CONCURRENT_TRANSFORMS: u32 = 8;
const DEFAULT_MAX_PAYLOAD_MB: u32 = 6;

/// Requests worked on at once.
pub fn slots(config: &Config) -> usize {
    let asked = config.max_concurrent_transforms.unwrap_or(0) as usize;
    asked.max(DEFAULT_SLOTS)
}

/// The running front. The threads end with the process.
pub struct Front {
    shared: Arc<Shared>,
}

struct Shared {
    door: Arc<Door>,
    slots: Slots<Work>,
    turn_away: TurnAway,
    backend: Arc<Backend>,
    default_model: String,
    deadline: Duration,
    execution_parameters: Vec<u8>,
}

/// A request and what is known about it.
struct Work {
    request: Request,
    announced: Announced,
    received: Instant,
}

impl Front {
    /// Opens the port and starts the workers.
    ///
    /// # Errors
    /// When the port cannot be opened or a thread not be started.
    pub fn start(
        config: &Config,
        backend: Arc<Backend>,
        default_model: String,
    ) -> Result<Self, StartError> {
        raise_file_limit();
        let slots = slots(config);
        // One more than there are slots: however slow the work, somebody is left to receive.
        let workers = slots + 1;
        let shared = Arc::new(Shared {
            door: Arc::new(Door::open(config.listen, config.port, workers)?),
            slots: Slots::new(slots, MAX_BACKLOG),
            turn_away: TurnAway::start()?,
            backend,
            default_model,
            deadline: config.deadline,
            execution_parameters: format!(
                "{{\"MaxConcurrentTransforms\": {}, \"MaxPayloadInMB\": {}}}",
                config
                    .max_concurrent_transforms
                    .unwrap_or(DEFAULT_MAX_CONCURRENT_TRANSFORMS),
                config.max_payload_mb.unwrap_or(DEFAULT_MAX_PAYLOAD_MB),
            )
            .into_bytes(),
        });
        for index in 0..workers {
            let shared = Arc::clone(&shared);
            start_thread(format!("worker-{index}"), move || {
                let stray = shared.stray();
                loop {
                    match shared.door.receive(&stray) {
                        Received::Request(request) => shared.take(request, Shared::work),
                        Received::Woken => {
                            if let Some(work) = shared.slots.take_queued() {
                                shared.work(work);
                            }
                        }
                    }
                }
            })?;
        }
        let checked = Arc::clone(&shared);
        start_thread("door-check".into(), move || {
            checked.door.check_forever(&checked.stray());
        })?;
        Ok(Self { shared })
    }

    /// Refuses new connections; open ones are served on and told that they end.
    pub fn stop_accepting(&self) {
        self.shared.door.close();
    }

    /// Requests being answered or waiting.
    pub fn in_flight(&self) -> usize {
        self.shared.slots.in_flight()
    }
}

impl Shared {
    /// Takes a request that was just received. `run` is called with work that may be slow and has a slot.
    fn take(&self, request: Request, run: impl FnOnce(&Self, Work)) {
        let received = Instant::now();
        let announced = match body::announced(&request) {
            Ok(announced) => announced,
            Err(error) if error.status == 413 => {
                self.log_access(&request, error.status, 0, received);
                body::refuse_untouched(request, &error);
                return;
            }
            Err(error) => {
                self.send(request, &error.into(), received);
                return;
            }
        };
        let at_hand = body::is_at_hand(&request, announced);
        if at_hand && let Some(answer) = self.quick_answer(&request) {
            self.send(request, &answer, received);
            return;
        }
        let work = Work {
            request,
            announced,
            received,
        };
        match self.slots.admit(work) {
            Admission::Run(work) => run(self, work),
            Admission::Queued => {}
            Admission::Refused(work) => {
                self.log_access(&work.request, 503, 0, received);
                self.turn_away.turn_away(work.request, at_hand);
            }
        }
    }

    /// What can be answered without waiting for anybody.
    fn quick_answer(&self, request: &Request) -> Option<Answer> {
        match route(request.method(), request.url()) {
            Ok(Route::Ping) => Some(self.ping()),
            Ok(Route::ExecutionParameters) => {
                Some(Answer::json(200, self.execution_parameters.clone()))
            }
            Ok(Route::Invocations | Route::Tfs(_)) => None,
            Err(error) => Some(error.into()),
        }
    }

    fn ping(&self) -> Answer {
        match self.backend.pool.check() {
            Ok(()) => Answer::empty(),
            Err(why) => RequestError::new(502, why).into(),
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
        let answer = self
            .slow_answer(&mut work)
            .unwrap_or_else(|error| error.into());
        self.send(work.request, &answer, work.received);
    }

    fn slow_answer(&self, work: &mut Work) -> Result<Answer, RequestError> {
        let deadline = work.received + self.deadline;
        if Instant::now() >= deadline {
            return Err(RequestError::deadline(
                self.deadline,
                "it waited for others to finish",
            ));
        }
        let (request, announced) = (&mut work.request, work.announced);
        let url = request.url().to_owned();
        match route(request.method(), &url) {
            Ok(Route::Invocations) => self.invocations(request, announced, deadline),
            Ok(Route::Tfs(path)) => self.pass_through(request, announced, path, deadline),
            // These come with a body that is still to come, and that nobody wants.
            Ok(Route::Ping | Route::ExecutionParameters) | Err(_) => {
                body::discard(request, announced, deadline)?;
                Ok(self.quick_answer(request).unwrap_or_else(Answer::empty))
            }
        }
    }

    fn invocations(
        &self,
        request: &mut Request,
        announced: Announced,
        deadline: Instant,
    ) -> Result<Answer, RequestError> {
        // The body is read before anything is refused: an answer before its end could break the connection.
        let body = body::read(request, announced, deadline)?;
        let format = Format::of(header(request, "Content-Type"))?;
        let attributes = header(request, "X-Amzn-SageMaker-Custom-Attributes").unwrap_or_default();
        let path = self.model_path(&attributes::parse(attributes)?);
        let body = format.to_tfs(body)?;
        let sent = TfsRequest {
            method: "POST",
            path: &path,
            content_type: Some("application/json"),
            body: &body,
        };
        let TfsAnswer {
            status, mut body, ..
        } = self.backend.call(&sent, deadline)?;
        let content_type = accept::lay_out(status, &mut body, header(request, "Accept"));
        Ok(Answer {
            content_type: Some(content_type.into()),
            ..Answer::json(status, body)
        })
    }

    fn model_path(&self, attributes: &Attributes) -> String {
        let name = attributes.model_name.unwrap_or(&self.default_model);
        let method = attributes.method.unwrap_or_default().as_str();
        match attributes.model_version {
            Some(version) => format!("/v1/models/{name}/versions/{version}:{method}"),
            None => format!("/v1/models/{name}:{method}"),
        }
    }

    /// `/tfs/...`: TensorFlow Serving's own API, unchanged in both directions.
    fn pass_through(
        &self,
        request: &mut Request,
        announced: Announced,
        path: &str,
        deadline: Instant,
    ) -> Result<Answer, RequestError> {
        let body = body::read(request, announced, deadline)?;
        let answer = self.backend.call(
            &TfsRequest {
                method: request.method().as_str(),
                path,
                content_type: header(request, "Content-Type"),
                body: &body,
            },
            deadline,
        )?;
        Ok(Answer {
            status: answer.status,
            content_type: answer.content_type.map(Cow::Owned),
            body: answer.body,
            header: None,
        })
    }

    fn send(&self, request: Request, answer: &Answer, received: Instant) {
        self.log_access(&request, answer.status, answer.body.len(), received);
        if let Err(e) = answer::send(request, answer, self.door.is_closed()) {
            log::warn!(target: FRONT, "an answer could not be sent: {e}");
        }
    }

    fn log_access(&self, request: &Request, status: u16, bytes: usize, received: Instant) {
        if !log::log_enabled!(target: FRONT, log::Level::Info) {
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

fn header<'a>(request: &'a Request, name: &'static str) -> Option<&'a str> {
    request
        .headers()
        .iter()
        .find(|h| h.field.equiv(name))
        .map(|h| h.value.as_str())
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
