//! The routes of the server and their work: [`Api`] is the [`Service`] that the HTTP server runs.
//!
//! `route.rs` finds a request's route, once, by method and path. `invoke.rs` and `predict.rs` do inference,
//! `passthrough.rs` forwards TensorFlow Serving's own API, and `models.rs` manages models in multi-model mode.
//! Converting bodies, calling TensorFlow Serving and running handlers belong to the modules below.
//!
//! A new route is a variant of `Route`, found in `route.rs`, with an arm in `Api::plan` and in `Api::run`.

pub mod attributes;
mod content_encoding;
mod execution_parameters;
mod invoke;
mod model_bodies;
mod models;
mod passthrough;
mod predict;
mod route;

use std::ops::Deref;
use std::time::Instant;

use crate::config::Config;
use crate::error::{RequestError, StartError};
use crate::http::head::Head;
use crate::http::response::Response;
use crate::http::{Lane, Planned, Request, Service};
use crate::models::backend::ModelBackend;
use crate::models::registry::{ModelLease, Registry};
use crate::tfs::message::Method;

use predict::Formats;
use route::{Route, route};

/// The models that the server serves, by the mode it runs in.
pub enum Mode {
    /// Single-model mode: the models found at the start.
    Fixed(Box<ModelBackend>),
    /// Multi-model mode: the models loaded through `/models`.
    Registry(Box<Registry>),
}

/// The backend for one request. In multi-model mode it keeps the model loaded while the request runs.
enum Backend<'a> {
    Fixed(&'a ModelBackend),
    Leased(ModelLease<'a>),
}

impl Deref for Backend<'_> {
    type Target = ModelBackend;

    fn deref(&self) -> &ModelBackend {
        match self {
            Self::Fixed(backend) => backend,
            Self::Leased(lease) => lease.backend(),
        }
    }
}

/// The service behind the HTTP server.
pub struct Api {
    mode: Mode,
    formats: Formats,
    execution_parameters: Vec<u8>,
}

/// The decision about a request.
#[derive(Debug)]
pub enum Plan {
    /// Do the route's work.
    Run(Route),
    /// Respond with this error: the route does not exist or does not accept the request.
    Refuse(RequestError),
}

impl Service for Api {
    type Plan = Plan;

    fn plan(&self, head: &Head) -> Planned<Plan> {
        let multi_model = matches!(self.mode, Mode::Registry(_));
        let route = route(head.method(), head.target(), multi_model);
        let route = route.and_then(|route| match route {
            // TensorFlow Serving would read the body as the next request.
            Route::Tfs(Method::Get, _) if announces_body(head) => Err(RequestError::bad_request(
                "Requests to TensorFlow Serving's own API may have a body only with POST.",
            )),
            route => Ok(route),
        });
        let (lane, max_body) = match &route {
            Ok(Route::Ping | Route::Live | Route::Ready | Route::ExecutionParameters)
            | Ok(Route::ListModels(_))
            | Err(_) => (Lane::Immediate, None),
            Ok(Route::Invocations | Route::InvokeModel(_) | Route::Tfs(Method::Post, _)) => {
                (Lane::Request, Some(usize::MAX))
            }
            Ok(Route::Tfs(Method::Get, _) | Route::DescribeModel(_)) => (Lane::Request, None),
            Ok(Route::LoadModel) => (Lane::Thread, Some(models::MAX_LOAD_BYTES)),
            Ok(Route::UnloadModel(_)) => (Lane::Thread, None),
        };
        Planned {
            plan: route.map_or_else(Plan::Refuse, Plan::Run),
            lane,
            max_body,
        }
    }

    fn respond(&self, plan: Plan, request: &mut Request) -> Response {
        let response = match plan {
            Plan::Run(route) => self.run(route, request),
            Plan::Refuse(error) => Err(error),
        };
        response.unwrap_or_else(Response::from)
    }

    fn without_thread(&self, plan: &Plan, error: &StartError) -> Option<Response> {
        match plan {
            // Unloading frees resources, so it has to happen anyway.
            Plan::Run(Route::UnloadModel(_)) => None,
            _ => {
                let text = format!("Memory exhausted: no thread to load the model: {error}");
                Some(RequestError::new(507, text).into())
            }
        }
    }
}

impl Api {
    /// A service for the models of `mode`.
    pub fn new(config: &Config, mode: Mode) -> Self {
        Self {
            mode,
            formats: Formats::new(&config.formats),
            execution_parameters: execution_parameters::of(config),
        }
    }

    fn run(&self, route: Route, request: &mut Request) -> Result<Response, RequestError> {
        match route {
            Route::Ping => self.health(502),
            Route::Live => Ok(Response::empty()),
            Route::Ready => self.health(503),
            Route::ExecutionParameters => {
                Ok(Response::json(200, self.execution_parameters.clone()))
            }
            Route::Invocations => self.invoke(request, None),
            Route::InvokeModel(name) => self.invoke(request, Some(&name)),
            Route::Tfs(method, path) => self.pass_through(request, method, &path),
            Route::ListModels(query) => self.list_models(&query),
            Route::LoadModel => self.load_model(request),
            Route::UnloadModel(name) => self.unload_model(request, &name),
            Route::DescribeModel(name) => self.describe_model(request, &name),
        }
    }

    /// The backend for a request. In multi-model mode, `model` returns the name of the model that the request asks for,
    /// and the call waits for one of that model's permits, up to `deadline`.
    fn backend<'m>(
        &self,
        model: impl FnOnce() -> Result<&'m str, RequestError>,
        deadline: Instant,
    ) -> Result<Backend<'_>, RequestError> {
        match &self.mode {
            Mode::Fixed(backend) => Ok(Backend::Fixed(backend)),
            Mode::Registry(registry) => {
                let mut lease = registry.get(model()?)?;
                lease.wait_for_turn(deadline)?;
                Ok(Backend::Leased(lease))
            }
        }
    }

    /// The name towards TensorFlow Serving of the model in the folder of this name. In multi-model mode, folders do not
    /// count.
    fn name_of(&self, folder: &str) -> Option<&str> {
        match &self.mode {
            Mode::Fixed(backend) => backend.name_of(folder),
            Mode::Registry(_) => None,
        }
    }

    /// 200 while models can be used, otherwise `unhealthy` with the reason.
    fn health(&self, unhealthy: u16) -> Result<Response, RequestError> {
        let health = match &self.mode {
            Mode::Fixed(backend) => backend.check(),
            Mode::Registry(registry) => registry.check(),
        };
        match health {
            Ok(()) => Ok(Response::empty()),
            Err(why) => Err(RequestError::new(unhealthy, why)),
        }
    }
}

/// Whether the head announces a body. The server has validated its lengths already.
fn announces_body(head: &Head) -> bool {
    let length = head.first("Content-Length").unwrap_or_default();
    length.bytes().any(|digit| digit != b'0') || head.first("Transfer-Encoding").is_some()
}
