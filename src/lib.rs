//! `sagemaker-tfs`: serves TensorFlow models on Amazon SageMaker, in front of TensorFlow Serving.
//!
//! ARCHITECTURE.md tells how the parts fit. Not a library for others: the executable and the tests use it.

#![forbid(unsafe_code)]

pub mod allocator;
pub mod attributes;
pub mod cli;
pub mod config;
pub mod convert;
pub mod error;
pub mod front;
pub mod handlers;
pub mod logging;
pub mod models;
pub mod s3;
pub mod serve;
pub mod settings;
pub mod supervise;
pub mod tfs;
