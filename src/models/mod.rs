//! Models: finds them on disk and, in multi-model mode, loads and unloads them while the server runs.
//!
//! `discovery.rs` finds the models in a folder, `labels.rs` the versions with names, and `backend.rs` starts the processes that serve a model. For
//! multi-model mode `registry.rs` keeps the table of models, `load.rs` loads one step by step and undoes the steps on
//! failure, and `location.rs` checks a model's folder. Routes and JSON are left to `api`, TFS processes to `tfs`.

pub mod backend;
pub mod discovery;
pub mod exhaustion;
pub mod labels;
pub mod load;
mod location;
pub mod ports;
pub mod registry;
mod semaphore;

pub use crate::tfs::model::Model;
pub use discovery::discover;
