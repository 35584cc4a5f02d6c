//! A request on its way through handlers: `input_handler`, TensorFlow Serving, `output_handler`; or `handler` alone.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::StatusCode;

use crate::budget::Buffer;
use crate::dispatch::quarantine::{ConcurrencyLimit, Losses};
use crate::error::RequestError;
use crate::handlers::channels::{Fate, Outcome, Reply};
use crate::handlers::lease::Lease;
use crate::handlers::pool::Pool;
use crate::tfs::backend::Backend;
use crate::tfs::checked_body::CheckedBody;
use crate::tfs::message::{Method, TfsAnswer, TfsRequest};
use crate::wait::WaitError;
use crate::worker_protocol::frame::{Call, Context, Response, Shape};

/// Runs requests through handlers.
#[derive(Debug)]
pub struct Handlers {
    /// The workers.
    pub pool: Arc<Pool>,
    /// TensorFlow Serving.
    pub backend: Arc<Backend>,
    /// The deadline of a whole request, for messages.
    pub limit: Duration,
    /// Longest time of one call, for messages.
    pub timeout: Duration,
    /// What `context.timeout` says, seconds.
    pub context_timeout: u64,
}

/// A request as handlers see it.
#[derive(Debug)]
pub struct Request<'a> {
    /// The model it names.
    pub model_name: Option<&'a str>,
    /// The version it names.
    pub model_version: Option<&'a str>,
    /// TensorFlow Serving's method that it names.
    pub method: Option<&'static str>,
    /// The header `X-Amzn-SageMaker-Custom-Attributes`.
    pub custom_attributes: Option<&'a str>,
    /// Path of the model in TensorFlow Serving's API.
    pub path: &'a str,
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
    /// `Accept`.
    pub accept: Option<&'a str>,
    /// `Content-Length`.
    pub content_length: Option<u64>,
    /// The body.
    pub body: &'a Buffer,
}

/// What a handler answers.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The body's type.
    pub content_type: String,
    /// The body.
    pub body: Buffer,
}

/// What a header says when the request has none.
const DEFAULT_TYPE: &str = "application/json";

/// Why a try to get a request through one worker came to nothing.
enum Miss {
    /// The worker ended before or between calls, so: nobody has seen a result, another worker can have the request.
    TryAgain(String),
    /// Something other than an answer arrived on the channel and the call had not begun: another channel can have the
    /// request.
    TryOtherChannel(String),
    Failed(RequestError),
}

impl From<RequestError> for Miss {
    fn from(error: RequestError) -> Self {
        Self::Failed(error)
    }
}

impl Handlers {
    /// Takes a request through the handlers.
    ///
    /// # Errors
    /// 500 for an exception and for a worker that ended during a call, 503 when workers keep failing, 504 at the
    /// deadline and for a call that took too long, 499 when the client has hung up; what TensorFlow Serving's client says.
    pub fn invoke(&self, request: &Request, deadline: Instant) -> Result<Answer, RequestError> {
        let mut losses = Losses::default();
        loop {
            // A request that waits for the model server must not keep a worker from requests of other models meanwhile.
            let serves = self.backend.pool.wait_until_serving(deadline);
            serves.map_err(|why| why.into_error(self.limit))?;
            let mut lease = Lease::acquire(&self.pool, losses.concurrency_limit(), deadline)
                .map_err(|why| why.into_error(self.limit))?;
            let how = match self.run(&mut lease, request, deadline) {
                Ok(answer) => return Ok(answer),
                Err(Miss::Failed(error)) => return Err(error),
                Err(Miss::TryAgain(how)) => {
                    losses.add();
                    how
                }
                // Not the request's fault.
                Err(Miss::TryOtherChannel(how)) => how,
            };
            if losses.is_poison() {
                let text = format!(
                    "The Python worker was restarted {} times before or between its calls for this request, at last \
                     with no other request in it: {how}",
                    losses.count()
                );
                return Err(RequestError::new(500, text));
            }
            if Instant::now() >= deadline {
                let why = format!("its Python worker was lost: {how}");
                return Err(RequestError::deadline(self.limit, &why));
            }
            log::warn!("a request is given to another Python worker or channel: {how}");
        }
    }

    fn run(&self, lease: &mut Lease, request: &Request, deadline: Instant) -> Result<Answer, Miss> {
        match lease.shape() {
            Shape::Single => self.single(lease, request, deadline),
            Shape::Pair => self.pair(lease, request, deadline),
        }
    }

    /// `handler` asks TensorFlow Serving itself. It is given an instance that serves, as any other request is.
    fn single(
        &self,
        lease: &mut Lease,
        request: &Request,
        deadline: Instant,
    ) -> Result<Answer, Miss> {
        let instance = (self.backend.pool)
            .acquire(ConcurrencyLimit::ANY, None, deadline)
            .map_err(|why| why.into_error(self.limit))?;
        let context = self.context(request, instance.index());
        let call = |number| Call::Request { number, context };
        match self.call(lease, "handler", call, request.body, request.body, deadline)? {
            Reply::ForClient { content_type, body } => checked(content_type, body),
            _ => Err(confused()),
        }
    }

    /// TensorFlow Serving is asked between the two calls, at the instance that `input_handler` was told, unless that is
    /// lost meanwhile. Until then the instance expects the request, but does not have it.
    fn pair(
        &self,
        lease: &mut Lease,
        request: &Request,
        deadline: Instant,
    ) -> Result<Answer, Miss> {
        let choice = self.backend.pool.choose();
        let context = self.context(request, choice.index());
        let call = |number| Call::Request { number, context };
        let memory = request.body;
        let reply = self.call(lease, "input_handler", call, memory, memory, deadline)?;
        let Reply::ForModelServer { content_type, body } = reply else {
            return Err(confused());
        };
        let body = CheckedBody::check(body)?;
        let sent = TfsRequest {
            method: Method::Post,
            path: request.path,
            content_type: Some(&content_type),
            body: &body,
        };
        let answer = (self.backend).call_chosen(Some(choice), &sent, memory, deadline)?;
        drop(body);
        let response = response(&answer);
        let call = |number| Call::Response { number, response };
        match self.call(
            lease,
            "output_handler",
            call,
            &answer.body,
            memory,
            deadline,
        )? {
            Reply::ForClient { content_type, body } => checked(content_type, body),
            _ => Err(confused()),
        }
    }

    fn call<'c>(
        &self,
        lease: &mut Lease,
        function: &str,
        head: impl FnOnce(u64) -> Call<'c>,
        body: &[u8],
        memory: &Buffer,
        deadline: Instant,
    ) -> Result<Reply, Miss> {
        let (number, outcome) = lease.call(head, body, memory, deadline);
        let error = match outcome {
            Outcome::Answered(Reply::Raised(text)) => RequestError::new(500, text),
            Outcome::Answered(reply) => return Ok(reply),
            Outcome::Abandoned(WaitError::Cancelled) => RequestError::hung_up(),
            Outcome::Abandoned(WaitError::TimedOut) => {
                RequestError::deadline(self.limit, &format!("{function} did not return in time"))
            }
            Outcome::NoRoom(why) => why.for_response(),
            Outcome::Broken(why) => {
                let text = format!("The Python worker cannot run {function}: {why}");
                RequestError::new(500, text)
            }
            Outcome::Garbled(why) => match lease.fate(number) {
                Fate::NotBegun => return Err(Miss::TryOtherChannel(why)),
                Fate::Running | Fate::Overdue => {
                    let text = format!("The answer of {function} is lost: {why}");
                    RequestError::new(500, text)
                }
            },
            Outcome::Lost => {
                let how = lease.wait_for_end(deadline);
                let how = how.map_err(|_| RequestError::hung_up())?;
                match lease.fate(number) {
                    Fate::NotBegun => return Err(Miss::TryAgain(how)),
                    Fate::Running => RequestError::new(
                        500,
                        format!("The Python worker was restarted while it ran {function}: {how}"),
                    ),
                    Fate::Overdue => RequestError::new(
                        504,
                        format!(
                            "{function} did not return within {} s (SAGEMAKER_GUNICORN_TIMEOUT_SECONDS); its Python \
                             worker was restarted",
                            self.timeout.as_secs()
                        ),
                    ),
                }
            }
        };
        Err(Miss::Failed(error))
    }

    fn context<'a>(&self, request: &Request<'a>, instance: usize) -> Context<'a> {
        let ports = self.backend.ports[instance];
        Context {
            model_name: request.model_name.map(Cow::Borrowed),
            model_version: request.model_version.map(Cow::Borrowed),
            method: request.method.map(Cow::Borrowed),
            rest_uri: format!("http://localhost:{}{}", ports.rest, request.path).into(),
            grpc_port: ports.grpc,
            custom_attributes: request.custom_attributes.map(Cow::Borrowed),
            request_content_type: request.content_type.unwrap_or(DEFAULT_TYPE).into(),
            accept_header: request.accept.unwrap_or(DEFAULT_TYPE).into(),
            content_length: request.content_length,
            timeout: self.context_timeout,
        }
    }
}

fn response(answer: &TfsAnswer) -> Response<'_> {
    let reason = StatusCode::from_u16(answer.status).ok();
    let headers = answer.headers.iter();
    Response {
        status: answer.status,
        reason: reason
            .and_then(|status| status.canonical_reason())
            .unwrap_or_default()
            .into(),
        headers: headers
            .map(|(name, value)| {
                (
                    name.as_str().into(),
                    String::from_utf8_lossy(value.as_bytes()),
                )
            })
            .collect(),
    }
}

/// A content type goes into the answer's head, where it must not make lines of its own.
fn checked(content_type: String, body: Buffer) -> Result<Answer, Miss> {
    if content_type.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return Ok(Answer { content_type, body });
    }
    let text = format!("The handler returned {content_type:?}, which is no content type.");
    Err(RequestError::new(500, text).into())
}

fn confused() -> Miss {
    RequestError::new(
        500,
        "The Python worker answered something else than was asked.",
    )
    .into()
}
