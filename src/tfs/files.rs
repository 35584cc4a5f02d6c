//! The config files of a TFS instance, for models and for batching, in a private directory.
//!
//! They are text protobufs: `tensorflow.serving.ModelServerConfig` and `tensorflow.serving.BatchingParameters`.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::config::{Batching, Config};
use crate::error::StartError;
use crate::tfs::model::{Labels, Model};

/// The files and their directory, which are removed when this is dropped.
#[derive(Debug)]
pub struct Files {
    directory: TempDir,
    /// The path for `--model_config_file`.
    pub models: PathBuf,
    /// The path for `--batching_parameters_file`, when batching is on.
    pub batching: Option<PathBuf>,
}

impl Files {
    /// The directory of the files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Checks that TensorFlow can load the model, from its own path or through a link in `tmp_dir`.
    ///
    /// # Errors
    /// When the model needs a link, but TensorFlow takes the path of `tmp_dir` for a pattern.
    pub fn check_path(model: &Model, tmp_dir: &Path) -> Result<(), StartError> {
        if !needs_link(model) || !is_pattern(tmp_dir) {
            return Ok(());
        }
        Err(StartError::failed(format!(
            "the model in {} needs a link in {}, but TensorFlow cannot load models from a path with one of the \
             characters {PATTERN}; set TMPDIR to another directory",
            model.path.display(),
            tmp_dir.display()
        )))
    }

    /// Writes the files for these models, with names for some of their versions, into a new directory that only this
    /// user can enter.
    ///
    /// # Errors
    /// When the directory or a file cannot be created in `config.tmp_dir`, and those of [`Files::check_path`].
    pub fn write(config: &Config, models: &[Model], labels: &Labels) -> Result<Self, StartError> {
        let failed = |path: &Path, e: std::io::Error| {
            StartError::failed(format!(
                "cannot write {}: {e}; set TMPDIR to a writable directory",
                path.display()
            ))
        };
        let directory = tempfile::Builder::new()
            .prefix("sagemaker-tfs-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&config.tmp_dir)
            .map_err(|e| failed(&config.tmp_dir, e))?;

        for model in models {
            Self::check_path(model, directory.path())?;
        }
        let mut served = models.to_vec();
        for model in served.iter_mut() {
            if let Some(base) = linked(model, directory.path()) {
                model.path = base.map_err(|(base, e)| failed(&base, e))?;
            }
        }

        let write = |name: &str, text: String| {
            let path = directory.path().join(name);
            match std::fs::write(&path, text) {
                Ok(()) => Ok(path),
                Err(e) => Err(failed(&path, e)),
            }
        };
        Ok(Self {
            models: write("models.config", model_config(&served, labels))?,
            batching: match &config.batching {
                Some(batching) => Some(write("batching.config", batching_parameters(batching))?),
                None => None,
            },
            directory,
        })
    }
}

/// The characters that make a path a pattern for TensorFlow, which then finds no variables below it.
const PATTERN: &str = "* ? [ ] { } \\";

fn is_pattern(path: &Path) -> bool {
    let path = path.as_os_str().as_bytes();
    path.iter().any(|byte| b"*?[]{}\\".contains(byte))
}

/// Whether TFS cannot serve a model from its own path.
fn needs_link(model: &Model) -> bool {
    model.lone || model.other_name.is_some() || is_pattern(&model.path)
}

/// Makes a base path with links to a model that TFS cannot serve from its own path. Returns the base path, or where it
/// failed; `None` if the model needs none.
fn linked(model: &Model, directory: &Path) -> Option<Result<PathBuf, (PathBuf, std::io::Error)>> {
    let (base, link) = if model.lone {
        // TFS requires a version folder.
        let base = directory.join("lone").join(&model.name);
        (base.clone(), base.join("1"))
    } else if needs_link(model) {
        let base = directory.join("named").join(&model.name);
        (base.clone(), base)
    } else {
        return None;
    };
    let made = std::fs::create_dir_all(link.parent().unwrap_or(directory))
        .and_then(|()| std::os::unix::fs::symlink(&model.path, link));
    Some(made.map(|()| base.clone()).map_err(|e| (base, e)))
}

/// The text of a `ModelServerConfig` for these models, with names for some of their versions.
pub fn model_config(models: &[Model], labels: &Labels) -> String {
    let mut text = String::from("model_config_list {\n");
    for model in models {
        let versions: Vec<_> = model
            .versions
            .iter()
            .map(|v| format!("versions: {v}"))
            .collect();
        let of_model = labels.get(&model.name).into_iter().flatten();
        let labels = of_model.map(|(label, version)| {
            let label = quoted(label.as_bytes());
            format!("    version_labels {{ key: {label} value: {version} }}\n")
        });
        writeln!(
            text,
            "  config {{\n    name: {}\n    base_path: {}\n    model_platform: 'tensorflow'\n    \
             model_version_policy {{ specific {{ {} }} }}\n{}  }}",
            quoted(model.name.as_bytes()),
            quoted(model.path.as_os_str().as_bytes()),
            versions.join(" "),
            labels.collect::<String>()
        )
        .expect("writing to memory does not fail");
    }
    text + "}\n"
}

/// The text of `BatchingParameters`.
pub fn batching_parameters(batching: &Batching) -> String {
    let mut text = format!(
        "max_batch_size {{ value: {} }}\nbatch_timeout_micros {{ value: {} }}\nnum_batch_threads {{ value: {} }}\n\
         max_enqueued_batches {{ value: {} }}\n",
        batching.max_batch_size,
        batching.batch_timeout_micros,
        batching.num_batch_threads,
        batching.max_enqueued_batches
    );
    // Only if they are set, because old versions do not know all of them.
    for size in &batching.allowed_batch_sizes {
        text += &format!("allowed_batch_sizes: {size}\n");
    }
    if batching.pad_variable_length_inputs {
        text += "pad_variable_length_inputs: true\n";
    }
    if let Some(most) = batching.splitting {
        text += "enable_large_batch_splitting { value: true }\n";
        if let Some(most) = most {
            text += &format!("max_execution_batch_size {{ value: {most} }}\n");
        }
    }
    text
}

/// A string literal of the text protobuf format. It must be able to hold any byte, as names of folders can.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("'");
    for &byte in bytes {
        match byte {
            b'\'' | b'\\' => {
                text.push('\\');
                text.push(byte.into());
            }
            b' '..=b'~' => text.push(byte.into()),
            _ => write!(text, "\\{byte:03o}").expect("writing to memory does not fail"),
        }
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_quotes_backslashes_and_bytes_beyond_printable_ascii() {
        assert_eq!(quoted(b"plain/path"), "'plain/path'");
        assert_eq!(
            quoted("it's \\ \u{e9}\n".as_bytes()),
            r"'it\'s \\ \303\251\012'"
        );
    }

    #[test]
    fn files_and_links_to_lone_models_are_in_a_private_directory() {
        let temp = tempfile::tempdir().unwrap();
        let mut config = Config::read(&crate::config::Vars::default(), 1).unwrap();
        config.tmp_dir = temp.path().into();
        let model = Model {
            name: "m".into(),
            other_name: None,
            path: "/somewhere/m".into(),
            versions: vec![1],
            lone: true,
        };
        let files = Files::write(&config, &[model], &Labels::new()).unwrap();
        assert_eq!(files.batching, None);
        let directory = files.models.parent().unwrap().to_path_buf();
        let mode = std::fs::metadata(&directory).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let target = std::fs::read_link(directory.join("lone/m/1")).unwrap();
        assert_eq!(target, Path::new("/somewhere/m"));
        let text = std::fs::read_to_string(&files.models).unwrap();
        assert!(text.contains(&format!(
            "base_path: '{}'",
            directory.join("lone/m").display()
        )));
        drop(files);
        assert!(!directory.exists());
    }

    #[test]
    fn a_model_with_another_name_than_its_folder_gets_a_plain_path() {
        let temp = tempfile::tempdir().unwrap();
        let mut config = Config::read(&crate::config::Vars::default(), 1).unwrap();
        config.tmp_dir = temp.path().into();
        let model = Model {
            name: "a_b_".into(),
            other_name: Some("a[b]".into()),
            path: "/somewhere/a[b]".into(),
            versions: vec![1],
            lone: false,
        };
        let files = Files::write(&config, &[model], &Labels::new()).unwrap();
        let base = files.directory().join("named/a_b_");
        assert_eq!(
            std::fs::read_link(&base).unwrap(),
            Path::new("/somewhere/a[b]")
        );
        let text = std::fs::read_to_string(&files.models).unwrap();
        assert!(
            text.contains(&format!("base_path: '{}'", base.display())),
            "{text}"
        );
    }

    #[test]
    fn a_model_below_a_path_that_is_a_pattern_gets_a_plain_path_unless_tmpdir_is_one() {
        let temp = tempfile::tempdir().unwrap();
        let mut config = Config::read(&crate::config::Vars::default(), 1).unwrap();
        let mut model = Model {
            name: "m".into(),
            other_name: None,
            path: "/plain/m".into(),
            versions: vec![1],
            lone: false,
        };
        for odd in ["a*b", "a?", "[a", "a]", "{a", "a}", "a\\b"] {
            model.path = Path::new("/some").join(odd).join("m");
            config.tmp_dir = temp.path().into();
            let files = Files::write(&config, &[model.clone()], &Labels::new()).unwrap();
            let base = files.directory().join("named/m");
            assert_eq!(std::fs::read_link(&base).unwrap(), model.path);
            config.tmp_dir = temp.path().join(odd);
            std::fs::create_dir(&config.tmp_dir).unwrap();
            let error = Files::write(&config, &[model.clone()], &Labels::new()).unwrap_err();
            assert!(error.to_string().contains("set TMPDIR"), "{error}");
            model.path = "/plain/m".into();
            Files::write(&config, &[model.clone()], &Labels::new()).unwrap();
        }
    }

    #[test]
    fn an_error_names_the_directory_and_tmpdir() {
        let mut config = Config::read(&crate::config::Vars::default(), 1).unwrap();
        config.tmp_dir = "/absent".into();
        let error = Files::write(&config, &[], &Labels::new())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/absent") && error.contains("TMPDIR"),
            "{error}"
        );
    }
}
