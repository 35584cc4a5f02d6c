//! The HTTP front: from the listening socket to the answer on the wire.

mod answer;
mod body;
mod door;
mod route;
mod service;
mod slots;
mod turn_away;
mod usher;
mod workers;

pub use workers::{Front, slots};
