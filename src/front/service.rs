//! What each route answers, once a request has its turn.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tiny_http::Request;

use crate::attributes::{self, Attributes};
use crate::config::Config;
use crate::convert::{Format, accept};
use crate::error::RequestError;
use crate::front::answer::Answer;
use crate::front::body::{self, Announced};
use crate::front::headers;
use crate::front::route::{Route, route};
use crate::handlers;
use crate::handlers::invocation::Handlers;
use crate::tfs::backend::Backend;
use crate::tfs::client::{TfsAnswer, TfsRequest};

/// What `/execution-parameters` says when the job does not: SageMaker's default payload, and enough concurrency
/// to keep a model server busy.
const DEFAULT_MAX_CONCURRENT_TRANSFORMS: u32 = 8;
const DEFAULT_MAX_PAYLOAD_MB: u32 = 6;

/// A request and what is known about it.
pub struct Work {
    pub request: Request,
    pub announced: Announced,
    /// Whether the whole body has been read.
    pub body_is_read: bool,
    /// When a worker first saw it; the deadline counts from here.
    pub received: Instant,
}

/// Answers requests.
pub struct Service {
    backend: Arc<Backend>,
    /// When the model has a handler script.
    handlers: Option<Handlers>,
    default_model: String,
    deadline: Duration,
    execution_parameters: Vec<u8>,
}

impl Service {
    pub fn new(
        config: &Config,
        backend: Arc<Backend>,
        handlers: Option<Handlers>,
        default_model: String,
    ) -> Self {
        Self {
            backend,
            handlers,
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
        }
    }

    /// What can be answered without waiting for anybody.
    pub fn quick_answer(&self, request: &Request) -> Option<Answer> {
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
        let handlers = self.handlers.iter().map(|handlers| handlers.pool.check());
        match handlers.fold(self.backend.pool.check(), Result::and) {
            Ok(()) => Answer::empty(),
            Err(why) => RequestError::new(502, why).into(),
        }
    }

    /// What takes a while: reads the body, converts it and asks TensorFlow Serving.
    pub fn slow_answer(&self, work: &mut Work) -> Result<Answer, RequestError> {
        let deadline = work.received + self.deadline;
        if Instant::now() >= deadline {
            return Err(RequestError::deadline(
                self.deadline,
                "it waited for others to finish",
            ));
        }
        let url = work.request.url().to_owned();
        match route(work.request.method(), &url) {
            Ok(Route::Invocations) => self.invocations(work, deadline),
            Ok(Route::Tfs(path)) => self.pass_through(work, path, deadline),
            // These come with a body that is still to come, and that nobody wants.
            Ok(Route::Ping | Route::ExecutionParameters) | Err(_) => {
                body::discard(&mut work.request, work.announced, deadline)?;
                work.body_is_read = true;
                let answer = self.quick_answer(&work.request);
                Ok(answer.unwrap_or_else(Answer::empty))
            }
        }
    }

    fn invocations(&self, work: &mut Work, deadline: Instant) -> Result<Answer, RequestError> {
        // The body is read before anything is refused: an answer before its end could break the connection.
        let body = work.read_body(deadline)?;
        let request = &work.request;
        let content_type = headers::first(request, "Content-Type");
        let accept = headers::list(request, "Accept");
        let custom_attributes = headers::list(request, "X-Amzn-SageMaker-Custom-Attributes");
        let attributes = attributes::parse(custom_attributes.as_deref().unwrap_or_default())?;
        let path = self.model_path(&attributes);
        if let Some(handlers) = &self.handlers {
            let request = handlers::invocation::Request {
                attributes,
                custom_attributes: custom_attributes.as_deref(),
                path: &path,
                content_type,
                accept: accept.as_deref(),
                content_length: headers::first(request, "Content-Length")
                    .and_then(|length| length.parse().ok()),
                body: &body,
            };
            let answer = handlers.invoke(&request, deadline)?;
            return Ok(Answer {
                content_type: Some(answer.content_type.into()),
                ..Answer::json(200, answer.body)
            });
        }
        let body = Format::of(content_type)?.to_tfs(body)?;
        let sent = TfsRequest {
            method: "POST",
            path: &path,
            content_type: Some("application/json"),
            body: &body,
        };
        let TfsAnswer {
            status, mut body, ..
        } = self.backend.call(&sent, deadline)?;
        let content_type = accept::lay_out(status, &mut body, accept.as_deref());
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
        work: &mut Work,
        path: &str,
        deadline: Instant,
    ) -> Result<Answer, RequestError> {
        let body = work.read_body(deadline)?;
        let answer = self.backend.call(
            &TfsRequest {
                method: work.request.method().as_str(),
                path,
                content_type: headers::first(&work.request, "Content-Type"),
                body: &body,
            },
            deadline,
        )?;
        Ok(Answer {
            content_type: answer.content_type().map(|t| Cow::Owned(t.to_owned())),
            ..Answer::json(answer.status, answer.body)
        })
    }
}

impl Work {
    fn read_body(&mut self, deadline: Instant) -> Result<Vec<u8>, RequestError> {
        let body = body::read(&mut self.request, self.announced, deadline)?;
        self.body_is_read = true;
        Ok(body)
    }
}
