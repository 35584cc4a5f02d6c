//! What must hold for any input: one `check` for each parser that reads what others wrote.
//!
//! The libFuzzer targets in `fuzz/targets` call these with inputs they make up, and `tests/fuzz_corpus.rs` of the main
//! package, which includes this file, with those that are committed. A check panics when something does not hold.

pub mod accept;
pub mod attributes;
pub mod config;
pub mod csv;
pub mod frame;
pub mod http;
pub mod json;
pub mod model_config;
pub mod s3;
pub mod status;

/// Panics when something does not hold for this input.
pub type Check = fn(&[u8]);

/// All checks by the names of their targets, which are also those of the folders with their inputs.
pub const ALL: &[(&str, Check)] = &[
    ("accept", accept::check),
    ("attributes", attributes::check),
    ("config", config::check),
    ("csv", csv::check),
    ("frame", frame::check),
    ("http", http::check),
    ("json", json::check),
    ("model_config", model_config::check),
    ("s3", s3::check),
    ("status", status::check),
];
