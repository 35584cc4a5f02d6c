//! Models: finding them on disk, and in multi-model mode loading and unloading them while the server runs.

pub mod backend;
pub mod discovery;
pub mod ports;
pub mod registry;

pub use discovery::{Model, discover};
