//! What each route answers, once a request has its turn.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use serde_json::Value;
use tiny_http::{Method, Request};

use crate::attributes::{self, Attributes};
use crate::config::Config;
use crate::convert::{Format, accept};
use crate::error::RequestError;
use crate::front::answer::Answer;
use crate::front::body::{self, Announced};
use crate::front::headers;
use crate::front::route::{Route, route};
use crate::handlers;
use crate::models::memory;
use crate::models::registry::Registry;
use crate::models::served::Served;
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

/// What the service serves.
pub enum Serving {
    /// What was there at the start.
    Fixed(Box<Served>),
    /// Multi-model mode: what is loaded.
    Registry(Box<Registry>),
}

/// Answers requests.
pub struct Service {
    serving: Serving,
    deadline: Duration,
    execution_parameters: Vec<u8>,
}

impl Service {
    pub fn new(config: &Config, serving: Serving) -> Self {
        Self {
            serving,
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
        match self.route(request.method(), request.url()) {
            Ok(Route::Ping) => Some(self.ping()),
            Ok(Route::ExecutionParameters) => {
                Some(Answer::json(200, self.execution_parameters.clone()))
            }
            Ok(Route::ListModels(query)) => {
                let list = self.registry().and_then(|registry| registry.list(query));
                Some(list.map_or_else(Answer::from, |list| json_answer(&list)))
            }
            Ok(
                Route::Invocations
                | Route::Tfs(_)
                | Route::LoadModel
                | Route::DescribeModel(_)
                | Route::UnloadModel(_)
                | Route::InvokeModel(_),
            ) => None,
            Err(error) => Some(error.into()),
        }
    }

    /// Whether a request manages models. It may take as long as a model loads, so it gets a thread of its own.
    pub fn is_management(&self, request: &Request) -> bool {
        if matches!(self.serving, Serving::Fixed(_)) {
            return false; // asked for each request
        }
        let route = self.route(request.method(), request.url());
        matches!(route, Ok(Route::LoadModel | Route::UnloadModel(_)))
    }

    fn route<'a>(&self, method: &Method, url: &'a str) -> Result<Route<'a>, RequestError> {
        route(method, url, matches!(self.serving, Serving::Registry(_)))
    }

    fn registry(&self) -> Result<&Registry, RequestError> {
        match &self.serving {
            Serving::Registry(registry) => Ok(registry),
            // There are no routes to it then.
            Serving::Fixed(_) => Err(RequestError::new(404, "Not Found")),
        }
    }

    fn ping(&self) -> Answer {
        let health = match &self.serving {
            Serving::Fixed(served) => served.check(),
            Serving::Registry(registry) => registry.check(),
        };
        match health {
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
        match self.route(work.request.method(), &url) {
            Ok(Route::Invocations) => self.invocations(work, None, deadline),
            Ok(Route::InvokeModel(name)) => self.invocations(work, Some(name), deadline),
            Ok(Route::Tfs(path)) => self.pass_through(work, path, deadline),
            Ok(Route::LoadModel) => {
                let body = work.read_body(deadline)?;
                Ok(success(&self.registry()?.load(&body)?))
            }
            Ok(Route::UnloadModel(name)) => {
                work.read_body(deadline)?;
                Ok(success(&self.registry()?.unload(name)?))
            }
            Ok(Route::DescribeModel(name)) => {
                work.read_body(deadline)?;
                Ok(json_answer(&self.registry()?.describe(name, deadline)?))
            }
            // These come with a body that is still to come, and that nobody wants.
            Ok(Route::Ping | Route::ExecutionParameters | Route::ListModels(_)) | Err(_) => {
                body::discard(&mut work.request, work.announced, deadline)?;
                work.body_is_read = true;
                let answer = self.quick_answer(&work.request);
                Ok(answer.unwrap_or_else(Answer::empty))
            }
        }
    }

    /// Inference; `named` is the model of the path, where the path names one.
    fn invocations(
        &self,
        work: &mut Work,
        named: Option<&str>,
        deadline: Instant,
    ) -> Result<Answer, RequestError> {
        // The body is read before anything is refused: an answer before its end could break the connection.
        let body = work.read_body(deadline)?;
        let request = &work.request;
        let custom_attributes = headers::list(request, "X-Amzn-SageMaker-Custom-Attributes");
        let mut attributes = attributes::parse(custom_attributes.as_deref().unwrap_or_default())?;
        let mut in_use;
        let served = match &self.serving {
            Serving::Fixed(served) => served,
            Serving::Registry(registry) => {
                let target = headers::first(request, "X-Amzn-SageMaker-Target-Model");
                let name = named.or(target).or(attributes.model_name).ok_or_else(|| {
                    RequestError::bad_request(
                        "The request names no model: X-Amzn-SageMaker-Target-Model or tfs-model-name is needed.",
                    )
                })?;
                attributes.model_name = Some(name);
                in_use = registry.get(name)?;
                in_use.wait_for_turn(deadline)?;
                in_use.served()
            }
        };
        let content_type = headers::first(request, "Content-Type");
        let accept = headers::list(request, "Accept");
        let path = model_path(&attributes, &served.default_model);
        if let Some(handlers) = &served.handlers {
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
        let answer = served.backend.call(&sent, deadline);
        let TfsAnswer {
            status, mut body, ..
        } = match self.serving {
            Serving::Fixed(_) => answer?,
            Serving::Registry(_) => memory::judge(answer)?,
        };
        let content_type = accept::lay_out(status, &mut body, accept.as_deref());
        Ok(Answer {
            content_type: Some(content_type.into()),
            ..Answer::json(status, body)
        })
    }

    /// `/tfs/...`: TensorFlow Serving's own API, unchanged in both directions.
    fn pass_through(
        &self,
        work: &mut Work,
        path: &str,
        deadline: Instant,
    ) -> Result<Answer, RequestError> {
        let body = work.read_body(deadline)?;
        let mut in_use;
        let served = match &self.serving {
            Serving::Fixed(served) => served,
            Serving::Registry(registry) => {
                in_use = registry.get(model_in(path))?;
                in_use.wait_for_turn(deadline)?;
                in_use.served()
            }
        };
        let answer = served.backend.call(
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

fn model_path(attributes: &Attributes, default_model: &str) -> String {
    let name = attributes.model_name.unwrap_or(default_model);
    let method = attributes.method.unwrap_or_default().as_str();
    match attributes.model_version {
        Some(version) => format!("/v1/models/{name}/versions/{version}:{method}"),
        None => format!("/v1/models/{name}:{method}"),
    }
}

/// The model's name in a path of TensorFlow Serving's API.
fn model_in(path: &str) -> &str {
    let rest = path.strip_prefix("/v1/models/").unwrap_or_default();
    rest.split(['/', ':', '?']).next().unwrap_or_default()
}

fn json_answer(value: &Value) -> Answer {
    Answer::json(200, value.to_string().into_bytes())
}

/// Written as users of the older container match it: with a space after the colon.
fn success(text: &str) -> Answer {
    let body = format!("{{\"success\": {}}}", Value::from(text));
    Answer::json(200, body.into_bytes())
}

impl Work {
    fn read_body(&mut self, deadline: Instant) -> Result<Vec<u8>, RequestError> {
        let body = body::read(&mut self.request, self.announced, deadline)?;
        self.body_is_read = true;
        Ok(body)
    }
}
