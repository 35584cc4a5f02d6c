//! TensorFlow Serving (TFS): its command line and files, its processes, and requests to its REST API.
//!
//! `command.rs`, `files.rs`, `flags.rs` and `gpu.rs` prepare a process; `instance.rs`, `probe.rs` and `status.rs` watch
//! it for the supervisor. `backend.rs` sends a request to one of several instances, through `client.rs` and the modules
//! below that. Converting requests is left to `convert`, and finding models to `models`.

pub mod backend;
pub mod buffers;
pub mod checked_body;
pub mod client;
pub mod command;
mod connection;
pub mod error_body;
pub mod files;
pub mod flags;
mod framing;
pub mod gpu;
mod idle;
pub mod instance;
pub mod message;
pub mod model;
pub mod outgoing;
pub mod probe;
mod query;
mod signature_reader;
pub mod signatures;
pub mod status;
mod transport;
