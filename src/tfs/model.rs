//! A model for TFS to serve. `models` finds the models on disk.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The names of versions, by model: pairs of a name and a version.
pub type Labels = BTreeMap<String, Vec<(String, u64)>>;

/// A model and the versions of it that TFS serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// The name towards TFS, which needs no escape in a URL.
    pub name: String,
    /// The name of its folder, if TFS serves the model under another one.
    pub other_name: Option<String>,
    /// The folder that holds the version folders; for a [lone](Model::lone) model, the folder with `saved_model.pb`.
    pub path: PathBuf,
    /// The version numbers, ascending.
    pub versions: Vec<u64>,
    /// Whether the model has no version folder. TFS needs one, so `files.rs` creates it.
    pub lone: bool,
}

impl Model {
    /// The name of its folder.
    pub fn folder_name(&self) -> &str {
        self.other_name.as_ref().unwrap_or(&self.name)
    }

    /// Whether clients may use this name for it.
    pub fn is_named(&self, name: &str) -> bool {
        name == self.name || name == self.folder_name()
    }
}
