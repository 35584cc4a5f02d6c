//! Models: finds them on disk and, in multi-model mode, loads and unloads them while the server runs.
//!
//! `search.rs` walks through a folder; `discovery.rs` decides which models it holds, `names.rs` how they are named,
//! `labels.rs` which versions have names, and `remarks.rs` and `formats.rs` what to say about the rest. `backend.rs`
//! starts the processes that serve a model. For
//! multi-model mode `registry.rs` keeps the table of models, `load.rs` loads one step by step and undoes the steps on
//! failure, and `location.rs` checks a model's folder. Routes and JSON are left to `api`, TFS processes to `tfs`.

pub mod backend;
pub mod discovery;
pub mod exhaustion;
mod formats;
pub mod labels;
pub mod load;
mod location;
mod names;
pub mod ports;
pub mod registry;
pub mod remarks;
mod search;
mod semaphore;

pub use crate::tfs::model::Model;
pub use discovery::{Found, discover};
