//! `sagemaker-tfs` serves TensorFlow models on Amazon SageMaker through TensorFlow Serving (TFS). The program finds the
//! models, starts and watches `tensorflow_model_server`, converts clients' requests into TFS's REST API, and passes the
//! responses back. Users' Python handlers run in child processes of their own (`sagemaker-tfs-python`).
//!
//! This page is a tour of the code; ARCHITECTURE.md gives the reasons. The crate is no library for other programs: only
//! its executables, tests and fuzz targets use it.
//!
//! # The life of a request
//!
//! 1. **Accept.** [`http::Server`] has a few worker threads, which share the listening socket. The worker that accepts
//!    a connection gives it to the worker with the fewest connections, where it stays.
//! 2. **Receive.** The worker passes events to the state machine [`http::connection::Connection`], which parses the
//!    [head](http::head::Head) and the [body](http::body) as they arrive. [`budget`] counts their memory.
//! 3. **Plan.** As soon as the head is complete, [`Service::plan`](http::Service::plan) decides what to do. The service
//!    is [`api::Api`]: it finds the route and says in which [`Lane`](http::Lane) the request runs and how long its body
//!    may be. Refused requests get their error here.
//! 4. **Wait for a slot.** A request in [`Lane::Request`](http::Lane::Request) needs one of [`Config::slots`]; without
//!    a free slot it waits in the backlog. [`Lane::Immediate`](http::Lane::Immediate) needs no slot, and
//!    [`Lane::Thread`](http::Lane::Thread) gets a thread.
//! 5. **Run.** [`Service::respond`](http::Service::respond) runs as a coroutine on the connection's worker. All of its
//!    waiting goes through [`wait`], which suspends it while other requests run.
//! 6. **Convert.** [`convert::request::Format`] turns the body into one that TFS accepts. Large bodies are converted on
//!    computing threads ([`wait::compute_large`]).
//! 7. **Call TFS.** [`tfs::backend::Backend`] leases a place at an instance of TFS from its
//!    [`Pool`](dispatch::pool::Pool), sends the request through [`tfs::client`], and sends it again if the connection
//!    or the process is lost. With a handler script, [`handlers::invocation::Handlers`] runs the script's functions
//!    before and after, or in place of this call.
//! 8. **Respond.** [`convert::response`] converts the body to what the client accepts, and the connection writes the
//!    [`Response`](http::response::Response) as fast as the client reads it. The slot passes to the next request.
//!
//! # The modules by layer
//!
//! A module imports only modules of layers below its own; `tests/structure/` checks this.
//!
//! | module | task |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`app`] | the start, step by step; the end; wires all modules together |
//! | [`api`] | the routes: inference, TFS's own API, loading and unloading models |
//! | [`http`] | the HTTP server, which knows nothing of models |
//! | [`models`] | finds models; loads and unloads them in multi-model mode |
//! | [`handlers`] | Python handlers: the script, its packages, its workers, calls to them |
//! | [`tfs`] | TFS: command line, files, instances, probes, HTTP client |
//! | [`convert`] | conversion of bodies by the model's signature: JSON, CSV, numpy, records, both ways |
//! | [`dispatch`] | distributes requests among processes; finds the requests that crash a process |
//! | [`supervisor`] | child processes: starts, watches, restarts and stops them |
//! | `s3` | downloads from S3 (feature `s3`) |
//! | [`worker_protocol`] | frames and the record of calls, between server and Python workers |
//! | [`config`] | settings, parsed and checked |
//! | [`wait`] | coroutines, the event loop, locks, conditions, computing threads |
//! | [`budget`] | the memory of requests |
//! | [`error`], [`logging`] | error types; the log |
//! | [`memory`], [`pauses`], [`descriptors`], [`allocator`] | the machine and this process |
//!
//! The second executable, `src/python/`, embeds Python. It uses [`worker_protocol`], [`config::WorkerClass`] and [`convert`].
//!
//! # Where to add …
//!
//! - **A content type:** a variant of [`convert::request::Format`], and a file in
//!   `src/convert/request/` with a function from bytes to bytes.
//! - **A route:** a variant of `Route` in `src/api/route.rs`; its lane and body limit in `Api::plan`, and its work in
//!   `Api::run`, both in [`api`].
//! - **A setting:** an entry in a group of [`config::settings`], which also documents it, and a field of [`Config`].
//!
//! The last section of ARCHITECTURE.md lists the tests and documents that go with each, and more places to extend.
//!
//! [`Config`]: config::Config
//! [`Config::slots`]: config::Config::slots

#![warn(missing_docs)]
// clippy.toml forbids calls that block in the program. Tests may block.
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod allocator;
pub mod api;
pub mod app;
pub mod budget;
pub mod cli;
pub mod config;
pub mod convert;
pub mod descriptors;
pub mod dispatch;
pub mod error;
pub mod handlers;
pub mod http;
pub mod logging;
pub mod memory;
pub mod models;
pub mod pauses;
#[cfg(feature = "s3")]
pub mod s3;
#[allow(
    clippy::disallowed_types,
    reason = "the supervisor runs on its own thread and never in a request"
)]
pub mod supervisor;
pub mod tfs;
#[allow(
    clippy::disallowed_types,
    reason = "builds its own on those of the standard library"
)]
pub mod wait;
pub mod worker_protocol;
