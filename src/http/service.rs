//! The interface between the server and the application: the server knows nothing else about the application.

use std::time::Instant;

use crate::budget::Buffer;
use crate::error::StartError;
use crate::http::head::Head;
use crate::http::response::Response;

/// The application behind the server. It makes one decision and one response for each request.
pub trait Service: Send + Sync + 'static {
    /// What to do for one request.
    type Plan: Send + 'static;

    /// Decides, by the head alone, what to do for a request. Each request is routed exactly once, here.
    fn plan(&self, head: &Head) -> Planned<Self::Plan>;

    /// Carries out the plan and returns the response. In [`Lane::Request`] it may wait, but only through `crate::wait`.
    fn respond(&self, plan: Self::Plan, request: &mut Request) -> Response;

    /// The response when a thread for [`Lane::Thread`] cannot be started. `None`: run the plan nevertheless, on a
    /// worker, although it may delay other requests. Plans that free resources need this.
    fn without_thread(&self, plan: &Self::Plan, error: &StartError) -> Option<Response>;
}

/// A plan, and what the server has to know about it.
#[derive(Debug)]
pub struct Planned<P> {
    /// The plan, for [`Service::respond`].
    pub plan: P,
    /// Where the plan runs.
    pub lane: Lane,
    /// The largest body in bytes. `None`: the server discards the body.
    pub max_body: Option<usize>,
}

/// Where a request runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// At once, on the worker. The plan neither waits nor computes for long.
    Immediate,
    /// In one of the slots. The plan may wait.
    Request,
    /// On a thread of its own. The plan blocks, or takes so long that it must not use a slot.
    Thread,
}

/// A request that has arrived completely.
#[derive(Debug)]
pub struct Request {
    /// The head.
    pub head: Head,
    /// The body; empty if the plan does not want it.
    pub body: Buffer,
    /// When the head was complete.
    pub received: Instant,
    /// When the response has to be ready.
    pub deadline: Instant,
}
