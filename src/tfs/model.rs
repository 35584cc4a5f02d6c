//! A model as TensorFlow Serving is asked to serve it. How models are found is the work of `models`.

use std::path::PathBuf;

/// A model to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Name in URLs.
    pub name: String,
    /// The folder that holds the version folders; for a [lone](Model::lone) model, the folder with `saved_model.pb`.
    pub path: PathBuf,
    /// Versions found, ascending.
    pub versions: Vec<u64>,
    /// Whether there is no version folder: TensorFlow Serving then needs one made for it.
    pub lone: bool,
}
