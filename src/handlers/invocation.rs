//! Takes a request through handlers: `input_handler`, TensorFlow Serving and `output_handler` in turn, or `handler`
//! alone.
//!
//! It decides what a lost worker or call means for the request: another attempt, or an error. Channels and workers are
//! left to the rest of this module, and calling TensorFlow Serving to `tfs/backend.rs`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::StatusCode;

use crate::budget::Buffer;
use crate::config::{FormatConfig, HandlerErrors};
use crate::convert::request::{Rows, Target};
use crate::convert::settings::Settings;
use crate::dispatch::quarantine::{ConcurrencyLimit, Losses};
use crate::error::RequestError;
use crate::handlers::answer::{self, Answer};
use crate::handlers::channels::{Fate, Outcome, Reply};
use crate::handlers::lease::Lease;
use crate::handlers::pool::Pool;
use crate::tfs::backend::Backend;
use crate::tfs::checked_body::CheckedBody;
use crate::tfs::message::{Method, TfsRequest, TfsResponse};
use crate::wait::WaitError;
use crate::worker_protocol::frame::{Call, Context, Headers, Response, Shape};

/// A handler script with its workers, and the model that it serves.
#[derive(Debug)]
pub struct Handlers {
    /// The workers.
    pub pool: Arc<Pool>,
    /// The model's TensorFlow Serving instances.
    pub backend: Arc<Backend>,
    /// The deadline of a whole request, for messages.
    pub limit: Duration,
    /// Time limit of one call, for messages.
    pub timeout: Duration,
    /// Value of `context.timeout`, seconds.
    pub context_timeout: u64,
    /// The model for requests that name none.
    pub default_model: String,
    /// The formats of requests and responses.
    pub formats: FormatConfig,
    /// The most memory that a conversion in a Python worker may use, bytes.
    pub memory: usize,
    /// What a pair does with an error of TensorFlow Serving.
    pub errors: HandlerErrors,
}

/// A client's request, with the parts that handlers see.
#[derive(Debug)]
pub struct Request<'a> {
    /// The model that the request names.
    pub model_name: Option<&'a str>,
    /// The version that the request names.
    pub model_version: Option<&'a str>,
    /// TensorFlow Serving's method that the request names.
    pub method: Option<&'static str>,
    /// Where that method expects rows.
    pub rows: Rows,
    /// The signature that the request names.
    pub signature_name: Option<&'a str>,
    /// The header `X-Amzn-SageMaker-Custom-Attributes`.
    pub custom_attributes: Option<&'a str>,
    /// Path of the model in TensorFlow Serving's REST API.
    pub path: &'a str,
    /// The header `Content-Type`.
    pub content_type: Option<&'a str>,
    /// The header `Accept`.
    pub accept: Option<&'a str>,
    /// Length of the body, bytes.
    pub content_length: u64,
    /// Other headers that scripts see.
    pub headers: &'a [(Cow<'a, str>, Cow<'a, str>)],
    /// The body.
    pub body: &'a Buffer,
}

/// Value of `Content-Type` and `Accept` for a request without them.
const DEFAULT_TYPE: &str = "application/json";

/// Why an attempt to take a request through a worker failed.
enum Failure {
    /// The worker ended before or between the calls. No client has seen a result, so another worker can run the
    /// request.
    WorkerLost(String),
    /// Bytes other than an answer arrived on the channel before the call began, so another channel can run the request.
    ChannelLost(String),
    /// The request fails.
    Final(RequestError),
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self::Final(error)
    }
}

impl Handlers {
    /// Takes a request through the handlers.
    ///
    /// # Errors
    /// 500 for an exception and for a worker that ended during a call, 503 when workers keep failing, 504 at the
    /// deadline and for a call that took too long, 499 when the client hung up; and the errors of
    /// [`Backend::call_chosen`].
    pub fn invoke(&self, request: &Request, deadline: Instant) -> Result<Answer, RequestError> {
        let mut losses = Losses::default();
        loop {
            // Waits before it leases a channel: a request that waits for the model server must not keep a worker from
            // requests for other models.
            let serves = self.backend.pool.wait_until_serving(deadline);
            serves.map_err(|why| why.into_error(self.limit))?;
            let mut lease = Lease::acquire(&self.pool, losses.concurrency_limit(), deadline)
                .map_err(|why| why.into_error(self.limit))?;
            let how = match self.run(&mut lease, request, deadline) {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::WorkerLost(how)) => {
                    losses.add();
                    how
                }
                // Counts no loss: the request did not cause this.
                Err(Failure::ChannelLost(how)) => how,
            };
            if losses.is_poison() {
                let text = format!(
                    "The Python worker was restarted {} times before or between its calls for this request, the last \
                     time with no other request in it: {how}",
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

    fn run(
        &self,
        lease: &mut Lease,
        request: &Request,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        match lease.shape() {
            Shape::Single => self.single(lease, request, deadline),
            Shape::Pair => self.pair(lease, request, deadline),
        }
    }

    /// Runs `handler`, which calls TensorFlow Serving itself. The request holds a place at the instance named in the
    /// context, like a request without a handler.
    fn single(
        &self,
        lease: &mut Lease,
        request: &Request,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let instance = (self.backend.pool)
            .acquire(ConcurrencyLimit::ANY, None, deadline)
            .map_err(|why| why.into_error(self.limit))?;
        let context = self.context(lease, request, instance.index())?;
        let call = |number| Call::Request { number, context };
        let reply = self.call(lease, "handler", call, request.body, request.body, deadline)?;
        Ok(Answer::of(reply)?)
    }

    /// Runs `input_handler`, calls TensorFlow Serving, and runs `output_handler`. The instance named in the context of
    /// `input_handler` gets the request, unless that instance ends in between. Until then the pool counts the request
    /// for that instance, but the request holds no place there.
    fn pair(
        &self,
        lease: &mut Lease,
        request: &Request,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let choice = self.backend.pool.choose();
        let context = self.context(lease, request, choice.index())?;
        let call = |number| Call::Request { number, context };
        let memory = request.body;
        let reply = self.call(lease, "input_handler", call, memory, memory, deadline)?;
        let (content_type, body) = match reply {
            Reply::ForModelServer { content_type, body } => (content_type, body),
            Reply::ForClient { .. } => return Err(answer::unexpected().into()),
            raised => return Ok(Answer::of(raised)?),
        };
        let body = CheckedBody::check(body)?;
        let tfs_request = TfsRequest {
            method: Method::Post,
            path: request.path,
            content_type: Some(&content_type),
            body: &body,
        };
        let answer = (self.backend).call_chosen(Some(choice), &tfs_request, memory, deadline)?;
        drop(body);
        let is_error = answer.status != 200;
        if is_error && self.errors == HandlerErrors::Pass {
            return Ok(Answer::OfModel(answer));
        }
        let response = response(&answer);
        let call = |number| Call::Response { number, response };
        let (name, passes) = ("output_handler", self.errors == HandlerErrors::CallOrPass);
        match self.call(lease, name, call, &answer.body, memory, deadline)? {
            Reply::Raised(_, None) if is_error && passes => Ok(Answer::OfModel(answer)),
            reply @ Reply::ForClient { .. } if is_error && passes => Ok(Answer::of(reply)
                .unwrap_or_else(|why| {
                    let (status, text) = (answer.status, why.text);
                    log::warn!("the client gets the model's error, status {status}: {text}");
                    Answer::OfModel(answer)
                })),
            reply => Ok(Answer::of(reply)?),
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
    ) -> Result<Reply, Failure> {
        let (number, outcome) = lease.call(head, body, memory, deadline);
        let error = match outcome {
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
                Fate::NotBegun => return Err(Failure::ChannelLost(why)),
                Fate::Running | Fate::Overdue => {
                    let text = format!("The result of {function} was lost: {why}");
                    RequestError::new(500, text)
                }
            },
            Outcome::Lost => {
                let how = lease.wait_for_end(deadline);
                let how = how.map_err(|_| RequestError::hung_up())?;
                match lease.fate(number) {
                    Fate::NotBegun => return Err(Failure::WorkerLost(how)),
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
        Err(Failure::Final(error))
    }

    fn context<'a>(
        &self,
        lease: &Lease,
        request: &Request<'a>,
        instance: usize,
    ) -> Result<Context<'a>, RequestError> {
        let conversion = match lease.converts() {
            true => Some(self.conversion(request)?.into()),
            false => None,
        };
        let ports = self.backend.ports[instance];
        let default_accept = self.formats.default_accept.unwrap_or(DEFAULT_TYPE);
        Ok(Context {
            model_name: request.model_name.map(Cow::Borrowed),
            model_version: request.model_version.map(Cow::Borrowed),
            method: request.method.map(Cow::Borrowed),
            rest_uri: format!("http://localhost:{}{}", ports.rest, request.path).into(),
            grpc_port: ports.grpc,
            custom_attributes: request.custom_attributes.map(Cow::Borrowed),
            request_content_type: request.content_type.unwrap_or(DEFAULT_TYPE).into(),
            accept_header: request.accept.unwrap_or(default_accept).into(),
            content_length: request.content_length,
            timeout: self.context_timeout,
            conversion,
            headers: borrowed(request.headers),
        })
    }

    /// What the script's conversions need to know.
    fn conversion(&self, request: &Request) -> Result<String, RequestError> {
        let choice = self.backend.signatures.choose(
            request.model_name.unwrap_or(&self.default_model),
            request.model_version,
            request.signature_name,
        )?;
        let target = Target::new(&self.formats, request.rows, Some(choice));
        Ok(Settings::new(&target, self.formats.default_accept, self.memory).to_text())
    }
}

fn borrowed<'a>(headers: &'a [(Cow<'a, str>, Cow<'a, str>)]) -> Headers<'a> {
    let pairs = headers.iter();
    pairs
        .map(|(name, value)| (Cow::Borrowed(&**name), Cow::Borrowed(&**value)))
        .collect()
}

fn response(answer: &TfsResponse) -> Response<'_> {
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
