//! Models: finding them on disk, and in multi-model mode loading and unloading them while the server runs.
//!
//! `discovery.rs` finds the models of a folder; `backend.rs` is what serves one. In multi-model mode `registry.rs` has the
//! table of models, `load.rs` the steps of a load and how they are undone, `location.rs` the check of a model's folder.

pub mod backend;
pub mod discovery;
pub mod exhaustion;
pub mod load;
mod location;
pub mod ports;
pub mod registry;
mod semaphore;

pub use crate::tfs::model::Model;
pub use discovery::discover;
