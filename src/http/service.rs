//! What the server asks the application. It knows nothing else of it.

use std::time::Instant;

use crate::budget::Buffer;
use crate::error::StartError;
use crate::http::head::Head;
use crate::http::response::Response;

/// The application.
pub trait Service: Send + Sync + 'static {
    /// What is to be done for one request.
    type Plan: Send + 'static;

    /// Decides, by the head alone, what is to be done for a request. Every request is routed here, and only here.
    fn plan(&self, head: &Head) -> Planned<Self::Plan>;

    /// Does it. In [`Lane::Request`] it may wait, by `crate::wait` only.
    fn respond(&self, plan: Self::Plan, request: &mut Request) -> Response;

    /// The response when a thread for [`Lane::Thread`] cannot be started. `None`: what is planned frees resources and is
    /// to be done all the same, where it may hold up others.
    fn without_thread(&self, plan: &Self::Plan, error: &StartError) -> Option<Response>;
}

/// A plan, and what the server has to know of it.
#[derive(Debug)]
pub struct Planned<P> {
    /// For [`Service::respond`].
    pub plan: P,
    /// Where it is done.
    pub lane: Lane,
    /// The most bytes that the body may have; `None`: a body is of no use and is read over.
    pub max_body: Option<usize>,
}

/// Where the answer to a request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Right away, on the worker: it neither waits nor computes for long.
    Immediate,
    /// Among the limited number of requests at work; it may wait.
    Request,
    /// On a thread of its own: it blocks, or takes so long that requests must not wait for it.
    Thread,
}

/// A request that has arrived as a whole.
#[derive(Debug)]
pub struct Request {
    /// Its head.
    pub head: Head,
    /// Its body; empty when nobody wants it.
    pub body: Buffer,
    /// When its head was there.
    pub received: Instant,
    /// The answer must be there by then.
    pub deadline: Instant,
}
