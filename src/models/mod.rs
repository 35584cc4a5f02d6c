//! Models: finding them on disk, and in multi-model mode loading and unloading them while the server runs.

pub mod discovery;
pub mod memory;
pub mod ports;
pub mod registry;
pub mod served;

pub use discovery::{Model, discover};
