//! TensorFlow Serving: its command line and files, its processes, and requests to it.

pub mod backend;
pub mod client;
pub mod command;
pub mod error_body;
pub mod files;
mod framing;
pub mod gpu;
pub mod instance;
pub mod outgoing;
pub mod pool;
pub mod probe;
mod transport;
