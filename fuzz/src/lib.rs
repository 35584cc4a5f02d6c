//! Checks that must pass for any input: one for each parser of untrusted bytes.
//!
//! The libFuzzer targets in `fuzz/targets` call the checks with generated inputs. `tests/fuzz_corpus.rs` of the main
//! package includes this file and calls them with the committed inputs.

pub mod accept;
pub mod attributes;
mod checksum;
pub mod config;
pub mod csv;
pub mod csv_by_signature;
pub mod frame;
pub mod gzip;
pub mod http;
pub mod json;
pub mod model_config;
pub mod npy;
pub mod npz;
pub mod records;
pub mod response;
pub mod s3;
pub mod status;

/// Panics if the input breaks a rule.
pub type Check = fn(&[u8]);

/// All checks, by the names of their targets and input folders.
pub const ALL: &[(&str, Check)] = &[
    ("accept", accept::check),
    ("attributes", attributes::check),
    ("config", config::check),
    ("csv", csv::check),
    ("csv_by_signature", csv_by_signature::check),
    ("frame", frame::check),
    ("gzip", gzip::check),
    ("http", http::check),
    ("json", json::check),
    ("model_config", model_config::check),
    ("npy", npy::check),
    ("npz", npz::check),
    ("records", records::check),
    ("response", response::check),
    ("s3", s3::check),
    ("status", status::check),
];
