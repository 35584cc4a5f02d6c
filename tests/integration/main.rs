//! Tests of the real executable: each starts `sagemaker-tfs serve` in front of the fake model server and looks at
//! it from outside, as clients, operators and the platform do.
//!
//! `support` starts, watches and ends the processes; the other modules are named by the feature they pin.

#![forbid(unsafe_code)]
// Tests have threads of their own, and of processes that they start no other program knows.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod formats;
#[cfg(feature = "python")]
mod handlers;
mod http;
mod logs;
mod model_server;
mod multi_model;
mod processes;
mod start;
