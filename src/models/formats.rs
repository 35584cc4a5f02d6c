//! Recognizes files that people take for models that TensorFlow Serving can serve, and says how to make one of them.

use std::path::{Path, PathBuf};

/// The files that make a folder a SavedModel. TensorFlow writes the first one; the second one is its text, and the
/// third one, with parts in other files, exists from TensorFlow 2.15 on (`SaveOptions.experimental_image_format`).
pub const SAVED_MODELS: [&str; 3] = ["saved_model.pb", "saved_model.pbtxt", "saved_model.cpb"];
/// The most files of a kind that a sentence lists.
const MOST_LISTED: usize = 5;

/// A file or folder that is no SavedModel, although somebody may think so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistaken {
    /// Where it is.
    pub path: PathBuf,
    /// What it is, and what to do: a sentence without its subject, in which FILE stands for the name.
    what: &'static str,
    /// Whether it may as well be data that belongs there.
    pub is_common: bool,
}

/// Endings of names, what such a file is, and whether such names are common for other data, too.
const ENDINGS: &[(&str, &str, bool)] = &[
    (".keras", KERAS, false),
    (".h5", KERAS, false),
    (".hdf5", KERAS, false),
    (
        ".tflite",
        "is a model for TensorFlow Lite, which TensorFlow Serving cannot serve: export the original model as a \
         SavedModel",
        false,
    ),
    (".ckpt", CHECKPOINT, false),
    (".index", CHECKPOINT, true),
    (
        ".onnx",
        "is an ONNX model: make a SavedModel of it with onnx-tf (`onnx-tf convert -i FILE -o export/1`)",
        false,
    ),
    (".pt", TORCH, true),
    (".pth", TORCH, true),
    (".tar.gz", PACKED, false),
    (".tgz", PACKED, false),
    (".zip", PACKED, true),
    (".pb", FROZEN, false),
];
const KERAS: &str = "is a Keras file: make a SavedModel of it with \
                     tf.keras.models.load_model(\"FILE\").export(\"export/1\")";
const CHECKPOINT: &str = "is part of a checkpoint: build the model, restore it with \
                          tf.train.Checkpoint(model=model).restore(PATH), and save it with \
                          tf.saved_model.save(model, \"export/1\")";
const TORCH: &str = "is a PyTorch file, which TensorFlow Serving cannot serve";
const PACKED: &str = "is still packed: unpack it, and pack its content";
const FROZEN: &str = "is a graph without a SavedModel around it: import it with tf.compat.v1.import_graph_def, and \
                      write it with tf.compat.v1.saved_model.simple_save(session, \"export/1\", inputs, outputs)";
const WRONG_CASE: &str = "is not found under this name: write it in small letters";
const UNUSABLE: &str = "is no file that can be read, so its folder is no SavedModel";
const LOST_MODEL: &str = "belongs to a SavedModel whose saved_model.pb is missing: copy the whole folder that \
                          model.export or tf.saved_model.save wrote";

impl Mistaken {
    /// What a file is, if it is known and no SavedModel.
    pub fn file(dir: &Path, name: &str) -> Option<Self> {
        let lower = name.to_ascii_lowercase();
        let (what, is_common) = match lower.as_str() {
            _ if SAVED_MODELS.contains(&name) => return None,
            lower if SAVED_MODELS.contains(&lower) => (WRONG_CASE, false),
            "keras_metadata.pb" | "fingerprint.pb" => (LOST_MODEL, false),
            "checkpoint" => (CHECKPOINT, false),
            "model.json" => (
                "may be a model for TensorFlow.js, which TensorFlow Serving cannot serve: export the original model \
                 as a SavedModel",
                true,
            ),
            _ if lower.contains(".ckpt-") || lower.contains(".ckpt.") => (CHECKPOINT, false),
            _ => {
                let mut known = ENDINGS.iter();
                let (_, what, is_common) = known.find(|(ending, ..)| lower.ends_with(ending))?;
                (*what, *is_common)
            }
        };
        Some(Self {
            path: dir.join(name),
            what,
            is_common,
        })
    }

    /// What has the name of a SavedModel's main file, but is a folder, a pipe or the like, or cannot be read.
    pub fn unusable(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            what: UNUSABLE,
            is_common: false,
        }
    }

    /// A folder `variables` without a SavedModel beside it.
    pub fn variables(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            what: LOST_MODEL,
            is_common: false,
        }
    }

    /// The sentences about these, one for all of a kind.
    pub fn sentences<'a>(all: impl Iterator<Item = &'a Self>) -> Vec<String> {
        let mut kinds: Vec<(&str, Vec<&Path>)> = Vec::new();
        for mistaken in all {
            let known = kinds.iter_mut().find(|(what, _)| *what == mistaken.what);
            match known {
                Some((_, paths)) => paths.push(&mistaken.path),
                None => kinds.push((mistaken.what, vec![&mistaken.path])),
            }
        }
        let sentence = |(what, paths): (&str, Vec<&Path>)| {
            let name = paths[0].file_name().unwrap_or_default().to_string_lossy();
            let what = what.replace("FILE", &name);
            let listed = paths.iter().take(MOST_LISTED);
            let listed = Vec::from_iter(listed.map(|path| path.display().to_string())).join(", ");
            match paths.len() {
                1 => format!("{listed} {what}"),
                2..=MOST_LISTED => format!("{listed}: each {what}"),
                count => format!("{listed} and {} more: each {what}", count - MOST_LISTED),
            }
        };
        kinds.into_iter().map(sentence).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_people_take_for_models() {
        for (name, text) in [
            ("model.keras", "Keras file"),
            ("weights.H5", "Keras file"),
            ("frozen_inference_graph.pb", "graph without a SavedModel"),
            ("keras_metadata.pb", "saved_model.pb is missing"),
            ("m.tflite", "TensorFlow Lite"),
            ("checkpoint", "part of a checkpoint"),
            ("model.ckpt-100.data-00000-of-00001", "part of a checkpoint"),
            ("ckpt-1.index", "part of a checkpoint"),
            ("m.onnx", "onnx-tf"),
            ("m.pth", "PyTorch"),
            ("model.json", "TensorFlow.js"),
            ("model.tar.gz", "still packed"),
            ("Saved_Model.pb", "small letters"),
        ] {
            let found = Mistaken::file(Path::new("/m"), name).expect(name);
            let found = Mistaken::sentences([found].iter()).remove(0);
            assert!(found.starts_with(&format!("/m/{name} ")), "{found}");
            assert!(found.contains(text), "{found}");
        }
        for name in ["README.md", "labels.txt", "pb", "x.json", ".pbtxt"] {
            assert_eq!(Mistaken::file(Path::new("/m"), name), None, "{name}");
        }
    }

    #[test]
    fn several_files_of_a_kind_share_a_sentence_that_lists_some() {
        let names = ["a.pt", "b.pt", "c.pt", "d.pt", "e.pt", "f.pth", "g.pth"];
        let found = names.map(|name| Mistaken::file(Path::new("/m"), name).unwrap());
        let sentences = |count: usize| Mistaken::sentences(found[..count].iter());
        let kind = "each is a PyTorch file, which TensorFlow Serving cannot serve";
        assert_eq!(sentences(2), [format!("/m/a.pt, /m/b.pt: {kind}")]);
        let listed = "/m/a.pt, /m/b.pt, /m/c.pt, /m/d.pt, /m/e.pt";
        assert_eq!(sentences(5), [format!("{listed}: {kind}")]);
        assert_eq!(sentences(7), [format!("{listed} and 2 more: {kind}")]);
    }
}
