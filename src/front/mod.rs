//! The HTTP front: from the listening socket to the answer on the wire.

pub mod answer;
pub mod body;
pub mod budget;
mod connection;
mod door;
pub mod exchange;
pub mod head;
pub mod pauses;
mod route;
mod service;
mod slots;
mod workers;

pub use service::Serving;
pub use workers::{Front, model_slots, slots};
