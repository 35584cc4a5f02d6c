//! The HTTP front: from the listening socket to the answer on the wire.

mod answer;
mod body;
mod budget;
mod connection;
mod door;
mod exchange;
mod head;
mod route;
mod service;
mod slots;
mod workers;

pub use service::Serving;
pub use workers::{Front, model_slots, slots};
