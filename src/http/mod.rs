//! An HTTP/1.1 server, from the listening socket to the bytes of the response. It knows nothing about models.
//!
//! A few worker threads (`server.rs`, `worker.rs`) share the listening socket (`listener.rs`), and each runs its own
//! event loop. A connection (`socket.rs`, `connection.rs`) stays with one worker. The application implements
//! [`Service`] (`service.rs`), which routes requests and makes the responses.

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
