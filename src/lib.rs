//! `sagemaker-tfs`: serves TensorFlow models on Amazon SageMaker, in front of TensorFlow Serving.
//!
//! ARCHITECTURE.md tells how the parts fit. Not a library for others: the executable and the tests use it.

// What threads of tests may do is looked at where it is called, above all in the program itself.
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
    reason = "it is a thread, and talks to threads"
)]
pub mod supervisor;
pub mod tfs;
#[allow(clippy::disallowed_types, reason = "they are made usable here")]
pub mod wait;
pub mod worker_protocol;
