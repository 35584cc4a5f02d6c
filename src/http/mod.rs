//! The HTTP front: from the listening socket to the answer on the wire.

mod admission;
pub mod body;
pub mod budget;
pub mod connection;
pub mod head;
mod listener;
pub mod pauses;
pub mod response;
mod server;
mod socket;

pub use server::Front;
