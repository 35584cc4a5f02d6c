//! What each route answers, once a request has its turn.

pub mod attributes;
mod model_bodies;
mod route;

use std::borrow::Cow;
use std::time::{Duration, Instant};

use serde_json::Value;

use self::attributes::Attributes;
use crate::api::route::{Route, route};
use crate::config::Config;
use crate::convert::{Format, accept};
use crate::error::RequestError;
use crate::handlers;
use crate::http::budget::Buffer;
use crate::http::connection::Request;
use crate::http::head::Head;
use crate::http::response::Answer;
use crate::models::backend::ModelBackend;
use crate::models::exhaustion;
use crate::models::registry::Registry;
use crate::tfs::client::{Method, TfsAnswer, TfsRequest};

/// What `/execution-parameters` says when the job does not: SageMaker's default payload, and enough concurrency
/// to keep a model server busy.
const DEFAULT_MAX_CONCURRENT_TRANSFORMS: u32 = 8;
const DEFAULT_MAX_PAYLOAD_MB: u32 = 6;
/// The body of `POST /models` is a name and a path.
const MAX_LOAD_BYTES: usize = 64 << 10;

/// What the service serves, by the mode it runs in.
pub enum Mode {
    /// What was there at the start.
    Fixed(Box<ModelBackend>),
    /// Multi-model mode: what is loaded.
    Registry(Box<Registry>),
}

/// Answers requests.
pub struct Service {
    mode: Mode,
    deadline: Duration,
    execution_parameters: Vec<u8>,
}

impl Service {
    pub fn new(config: &Config, mode: Mode) -> Self {
        Self {
            mode,
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
                let list = self
                    .registry()
                    .and_then(|registry| model_bodies::list(registry, query));
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
        if matches!(self.mode, Mode::Fixed(_)) {
            return false; // asked for each request
        }
        matches!(
            self.route(head),
            Ok(Route::LoadModel | Route::UnloadModel(_))
        )
    }

    /// How many bytes a request's body may have, if it is of any use.
    pub fn wanted_body(&self, head: &Head) -> Option<usize> {
        match self.route(head) {
            Ok(Route::Invocations | Route::InvokeModel(_) | Route::Tfs(Method::Post, _)) => {
                Some(usize::MAX)
            }
            Ok(Route::LoadModel) => Some(MAX_LOAD_BYTES),
            _ => None,
        }
    }

    /// 504 for a request whose turn did not come before its deadline.
    pub fn waited_too_long(&self) -> RequestError {
        RequestError::deadline(self.deadline, "it waited for others to finish")
    }

    fn route<'a>(&self, head: &'a Head) -> Result<Route<'a>, RequestError> {
        let multi_model = matches!(self.mode, Mode::Registry(_));
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
        match &self.mode {
            Mode::Registry(registry) => Ok(registry),
            // There are no routes to it then.
            Mode::Fixed(_) => Err(RequestError::new(404, "Not Found")),
        }
    }

    fn ping(&self) -> Answer {
        let health = match &self.mode {
            Mode::Fixed(served) => served.check(),
            Mode::Registry(registry) => registry.check(),
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
        let Request { head, body, .. } = request;
        match self.route(head)? {
            Route::Invocations => self.invocations(head, body, None, deadline),
            Route::InvokeModel(name) => self.invocations(head, body, Some(name), deadline),
            Route::Tfs(method, path) => {
                let request = TfsRequest {
                    method,
                    path,
                    content_type: head.first("Content-Type"),
                    body,
                };
                self.pass_through(&request, body, deadline)
            }
            Route::LoadModel => {
                check_not_from_a_page(head)?;
                Ok(success(&model_bodies::load(self.registry()?, body)?))
            }
            Route::UnloadModel(name) => {
                check_origin(head)?;
                Ok(success(&model_bodies::unload(self.registry()?, name)?))
            }
            Route::DescribeModel(name) => Ok(json_answer(&model_bodies::describe(
                self.registry()?,
                name,
                deadline,
            )?)),
            Route::Ping | Route::ExecutionParameters | Route::ListModels(_) => {
                Ok(self.quick_answer(head).unwrap_or_else(Answer::empty))
            }
        }
    }

    /// Inference; `named` is the model of the path, where the path names one.
    fn invocations(
        &self,
        head: &Head,
        body: &mut Buffer,
        named: Option<&str>,
        deadline: Instant,
    ) -> Result<Answer, RequestError> {
        let custom_attributes = head.list("X-Amzn-SageMaker-Custom-Attributes");
        let mut attributes = attributes::parse(custom_attributes.as_deref().unwrap_or_default())?;
        let mut in_use;
        let served = match &self.mode {
            Mode::Fixed(served) => served,
            Mode::Registry(registry) => {
                let target = head.first("X-Amzn-SageMaker-Target-Model");
                let name = named.or(target).or(attributes.model_name).ok_or_else(|| {
                    RequestError::bad_request(
                        "The request names no model: X-Amzn-SageMaker-Target-Model or tfs-model-name is needed.",
                    )
                })?;
                attributes.model_name = Some(name);
                in_use = registry.get(name)?;
                in_use.wait_for_turn(deadline)?;
                in_use.backend()
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
                body,
            };
            let answer = handlers.invoke(&request, deadline)?;
            return Ok(Answer {
                content_type: Some(answer.content_type.into()),
                ..Answer::json(200, answer.body)
            });
        }
        Format::of(content_type)?.to_tfs(body)?;
        let sent = TfsRequest {
            method: Method::Post,
            path: &path,
            content_type: Some("application/json"),
            body,
        };
        let answer = served.backend.call(&sent, body, deadline);
        let TfsAnswer {
            status, mut body, ..
        } = match self.mode {
            Mode::Fixed(_) => answer?,
            Mode::Registry(_) => exhaustion::as_507(answer)?,
        };
        let content_type = accept::lay_out(status, body.bytes_mut(), accept.as_deref());
        Ok(Answer {
            content_type: Some(content_type.into()),
            ..Answer::json(status, body)
        })
    }

    /// `/tfs/...`: TensorFlow Serving's own API; body, status and content type pass unchanged.
    fn pass_through(
        &self,
        request: &TfsRequest,
        memory: &Buffer,
        deadline: Instant,
    ) -> Result<Answer, RequestError> {
        let mut in_use;
        let served = match &self.mode {
            Mode::Fixed(served) => served,
            Mode::Registry(registry) => {
                in_use = registry.get(model_in(request.path))?;
                in_use.wait_for_turn(deadline)?;
                in_use.backend()
            }
        };
        let answer = served.backend.call(request, memory, deadline)?;
        Ok(Answer {
            content_type: answer.content_type().map(|t| Cow::Owned(t.to_owned())),
            ..Answer::json(answer.status, answer.body)
        })
    }
}

/// A page in somebody's browser can send requests to this computer. Models, which bring scripts along, are not loaded
/// for it: what a page can send without the browser asking us first is refused, and so is what a browser says comes
/// from elsewhere.
fn check_not_from_a_page(head: &Head) -> Result<(), RequestError> {
    let simple = [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ];
    for content_type in head.values("Content-Type") {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        if simple.iter().any(|name| essence.eq_ignore_ascii_case(name)) {
            let text = format!("Unsupported Media Type: {essence}; send application/json");
            return Err(RequestError::new(415, text));
        }
    }
    check_origin(head)
}

/// Refuses requests of pages that are not from this computer's own address.
fn check_origin(head: &Head) -> Result<(), RequestError> {
    let is_ours = |origin: &str| {
        let host = head.first("Host").unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        ["localhost", "127.0.0.1", "[::1]"].contains(&name)
            && origin.strip_prefix("http://") == Some(host)
    };
    match head.values("Origin").all(is_ours) {
        true => Ok(()),
        false => Err(RequestError::new(
            403,
            "Forbidden: models are not managed for pages of other origins",
        )),
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
