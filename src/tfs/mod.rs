//! TensorFlow Serving: its command line and files, its processes, and requests to it.

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
pub mod status;
mod transport;
