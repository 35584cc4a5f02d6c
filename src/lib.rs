//! `sagemaker-tfs`: serves TensorFlow models on Amazon SageMaker, in front of TensorFlow Serving.
//!
//! ARCHITECTURE.md tells how the parts fit. Not a library for others: the executable and the tests use it.

pub mod allocator;
pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod convert;
pub mod dispatch;
pub mod error;
pub mod handlers;
pub mod http;
pub mod logging;
pub mod memory;
pub mod models;
#[cfg(feature = "s3")]
pub mod s3;
pub mod supervisor;
pub mod tfs;
pub mod wait;
pub mod worker_protocol;
