//! TensorFlow Serving: its command line and files, its processes, and requests to it.

pub mod backend;
pub mod client;
pub mod command;
pub mod files;
pub mod flags;
pub mod gpu;
pub mod instance;
pub mod pool;
pub mod probe;
pub mod status;
mod transport;
