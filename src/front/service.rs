//! What each route answers, once a request has its turn.

use std::borrow::Cow;
use std::mem;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::attributes::{self, Attributes};
use crate::config::Config;
use crate::convert::{Format, accept};
use crate::error::RequestError;
use crate::front::answer::Answer;
use crate::front::budget::Share;
use crate::front::exchange::Request;
use crate::front::head::Head;
use crate::front::route::{Route, route};
use crate::handlers;
use crate::models::memory;
use crate::models::registry::Registry;
use crate::models::served::Served;
use crate::tfs::client::{Method, TfsAnswer, TfsRequest};

/// What `/execution-parameters` says when the job does not: SageMaker's default payload, and enough concurrency
/// to keep a model server busy.
const DEFAULT_MAX_CONCURRENT_TRANSFORMS: u32 = 8;
const DEFAULT_MAX_PAYLOAD_MB: u32 = 6;

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
    pub fn quick_answer(&self, head: &Head) -> Option<Answer> {
        match self.route(head) {
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
                | Route::Tfs(..)
                | Route::LoadModel
                | Route::DescribeModel(_)
                | Route::UnloadModel(_)
                | Route::InvokeModel(_),
            ) => None,
            Err(error) => Some(error.into()),
        }
    }

    /// Whether a request manages models. It may take as long as a model loads, so it gets a thread of its own.
    pub fn is_management(&self, head: &Head) -> bool {
        if matches!(self.serving, Serving::Fixed(_)) {
            return false; // asked for each request
        }
        matches!(
            self.route(head),
            Ok(Route::LoadModel | Route::UnloadModel(_))
        )
    }

    /// Whether a request's body is of any use.
    pub fn wants_body(&self, head: &Head) -> bool {
        matches!(
            self.route(head),
            Ok(Route::Invocations
                | Route::InvokeModel(_)
                | Route::Tfs(Method::Post, _)
                | Route::LoadModel)
        )
    }

    /// 504 for a request whose turn did not come before its deadline.
    pub fn waited_too_long(&self) -> RequestError {
        RequestError::deadline(self.deadline, "it waited for others to finish")
    }

    fn route<'a>(&self, head: &'a Head) -> Result<Route<'a>, RequestError> {
        let multi_model = matches!(self.serving, Serving::Registry(_));
        let route = route(head.method(), head.target(), multi_model)?;
        match route {
            // TensorFlow Serving would take the body for the next request.
            Route::Tfs(Method::Get, _) if announces_body(head) => Err(RequestError::bad_request(
                "A body is taken with POST only below /tfs/.",
            )),
            route => Ok(route),
        }
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

    /// What takes a while: converts the body and asks TensorFlow Serving.
    pub fn slow_answer(&self, request: &mut Request) -> Result<Answer, RequestError> {
        let deadline = request.received + self.deadline;
        if Instant::now() >= deadline {
            return Err(self.waited_too_long());
        }
        let body = mem::take(&mut request.body);
        let Request { head, share, .. } = request;
        match self.route(head)? {
            Route::Invocations => self.invocations(head, body, share, None, deadline),
            Route::InvokeModel(name) => self.invocations(head, body, share, Some(name), deadline),
            Route::Tfs(method, path) => {
                let request = TfsRequest {
                    method,
                    path,
                    content_type: head.first("Content-Type"),
                    body: &body,
                };
                self.pass_through(&request, share, deadline)
            }
            Route::LoadModel => Ok(success(&self.registry()?.load(&body)?)),
            Route::UnloadModel(name) => Ok(success(&self.registry()?.unload(name)?)),
            Route::DescribeModel(name) => {
                Ok(json_answer(&self.registry()?.describe(name, deadline)?))
            }
            Route::Ping | Route::ExecutionParameters | Route::ListModels(_) => {
                Ok(self.quick_answer(head).unwrap_or_else(Answer::empty))
            }
        }
    }

    /// Inference; `named` is the model of the path, where the path names one.
    fn invocations(
        &self,
        head: &Head,
        body: Vec<u8>,
        share: &mut Share,
        named: Option<&str>,
        deadline: Instant,
    ) -> Result<Answer, RequestError> {
        let custom_attributes = head.list("X-Amzn-SageMaker-Custom-Attributes");
        let mut attributes = attributes::parse(custom_attributes.as_deref().unwrap_or_default())?;
        let mut in_use;
        let served = match &self.serving {
            Serving::Fixed(served) => served,
            Serving::Registry(registry) => {
                let target = head.first("X-Amzn-SageMaker-Target-Model");
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
        let content_type = head.first("Content-Type");
        let accept = head.list("Accept");
        let path = model_path(&attributes, &served.default_model);
        if let Some(handlers) = &served.handlers {
            let request = handlers::invocation::Request {
                attributes,
                custom_attributes: custom_attributes.as_deref(),
                path: &path,
                content_type,
                accept: accept.as_deref(),
                content_length: head
                    .first("Content-Length")
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
        share.set(body.len());
        let sent = TfsRequest {
            method: Method::Post,
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
        share.set(sent.body.len() + body.len());
        let content_type = accept::lay_out(status, &mut body, accept.as_deref());
        Ok(Answer {
            content_type: Some(content_type.into()),
            ..Answer::json(status, body)
        })
    }

    /// `/tfs/...`: TensorFlow Serving's own API; body, status and content type pass unchanged.
    fn pass_through(
        &self,
        request: &TfsRequest,
        share: &mut Share,
        deadline: Instant,
    ) -> Result<Answer, RequestError> {
        let mut in_use;
        let served = match &self.serving {
            Serving::Fixed(served) => served,
            Serving::Registry(registry) => {
                in_use = registry.get(model_in(request.path))?;
                in_use.wait_for_turn(deadline)?;
                in_use.served()
            }
        };
        let answer = served.backend.call(request, deadline)?;
        share.set(request.body.len() + answer.body.len());
        Ok(Answer {
            content_type: answer.content_type().map(|t| Cow::Owned(t.to_owned())),
            ..Answer::json(answer.status, answer.body)
        })
    }
}

/// Whether a head, whose lengths have been checked, says that a body follows.
fn announces_body(head: &Head) -> bool {
    let length = head.first("Content-Length").unwrap_or_default();
    length.bytes().any(|digit| digit != b'0') || head.first("Transfer-Encoding").is_some()
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
