//! Models: finding them on disk, and in multi-model mode loading and unloading them while the server runs.

pub mod backend;
pub mod discovery;
#[allow(clippy::disallowed_types, reason = "held for an instant")]
pub mod ports;
#[allow(
    clippy::disallowed_types,
    reason = "models are loaded and unloaded on threads of their own"
)]
pub mod registry;

pub use discovery::{Model, discover};
