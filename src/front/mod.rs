//! The HTTP front: from the listening socket to the answer on the wire.

mod answer;
mod body;
mod door;
mod drain;
mod headers;
mod route;
mod service;
mod slots;
mod usher;
mod workers;

pub use service::Serving;
pub use workers::{Front, model_slots, slots};
