//! A model for TFS to serve. `models` finds the models on disk.

use std::path::PathBuf;

/// A model and the versions of it that TFS serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// The name in URLs.
    pub name: String,
    /// The folder that holds the version folders; for a [lone](Model::lone) model, the folder with `saved_model.pb`.
    pub path: PathBuf,
    /// The version numbers, ascending.
    pub versions: Vec<u64>,
    /// Whether the model has no version folder. TFS needs one, so `files.rs` creates it.
    pub lone: bool,
}
