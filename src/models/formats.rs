//! Recognizes files that people take for models that TensorFlow Serving can serve, and says how to make one of them.

use std::path::{Path, PathBuf};

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
const LOST_MODEL: &str = "belongs to a SavedModel whose saved_model.pb is missing: copy the whole folder that \
                          model.export or tf.saved_model.save wrote";

impl Mistaken {
    /// What a file is, if it is known and no SavedModel.
    pub fn file(dir: &Path, name: &str) -> Option<Self> {
        let lower = name.to_ascii_lowercase();
        let (what, is_common) = match lower.as_str() {
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
        let mut kinds: Vec<(&Self, usize)> = Vec::new();
        for mistaken in all {
            match kinds
                .iter_mut()
                .find(|(first, _)| first.what == mistaken.what)
            {
                Some((_, count)) => *count += 1,
                None => kinds.push((mistaken, 1)),
            }
        }
        let sentence = |(first, count): (&Self, usize)| {
            let path = first.path.display();
            let name = first.path.file_name().unwrap_or_default().to_string_lossy();
            let what = first.what.replace("FILE", &name);
            match count {
                1 => format!("{path} {what}"),
                _ => format!("{path} (and {} more) {what}", count - 1),
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
}
