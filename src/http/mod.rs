//! An HTTP/1.1 server that knows nothing of models: from the listening socket to the response on the wire.
//!
//! A few worker threads (`server.rs`, `worker.rs`) each run an event loop and share the listening socket (`listener.rs`). A connection
//! (`socket.rs`, `connection.rs`) stays with one worker. What a request is about is for the [`Service`] to say (`service.rs`).

mod access_log;
mod admission;
pub mod body;
pub mod connection;
mod eviction;
mod executor;
pub mod head;
mod listener;
pub mod response;
mod server;
mod service;
mod shared;
mod slots;
mod socket;
mod table;
mod worker;

pub use server::{Server, Settings, Workers};
pub use service::{Lane, Planned, Request, Service};
