//! What to tell the owner of a model directory about parts of it that have no effect, and where they belong.
//!
//! `search.rs` notes what there is. These functions return sentences, so that tests need no log.

use std::path::{Path, PathBuf};

use crate::handlers;
use crate::models::Model;
use crate::models::formats::Mistaken;
use crate::models::search::{CODE, SAVED_MODELS, Search};

/// The most sentences about one directory; more would hide those that matter.
const MOST: usize = 20;
/// The most files of a folder `code` that are looked at, and the most that a sentence lists.
const MOST_FILES: usize = 1000;
const MOST_LISTED: usize = 5;

/// Writes the sentences to the log as warnings.
pub fn warn(sentences: Vec<String>) {
    for sentence in shortened(sentences) {
        log::warn!("{sentence}");
    }
}

/// The first sentences, and the number of the others.
pub fn shortened(mut sentences: Vec<String>) -> Vec<String> {
    let more = sentences.len().saturating_sub(MOST);
    if more > 0 {
        sentences.truncate(MOST);
        sentences.push(format!("and {more} more"));
    }
    sentences
}

/// About what is not served beside these models, and about names that they have towards TFS.
pub fn about_models(search: &Search, models: &[Model]) -> Vec<String> {
    let mut all = Vec::new();
    for model in models {
        if let Some(folder) = &model.other_name {
            all.push(format!(
                "the model {folder:?} is served as {:?}, because not all versions of TensorFlow Serving take its name \
                 in a path; HTTP clients may use either name, gRPC clients only the second",
                model.name
            ));
        }
    }
    for path in search
        .lone
        .iter()
        .filter(|path| !models.iter().any(|m| m.path == **path))
    {
        all.push(format!(
            "the model in {} is not served: the name of its folder is not a version number",
            path.display()
        ));
    }
    for path in &search.numbered {
        if models
            .iter()
            .any(|model| path.parent() == Some(&model.path))
        {
            all.push(format!(
                "{} is not served: it holds no {}",
                path.display(),
                SAVED_MODELS[0]
            ));
        }
    }
    let mistaken = search
        .mistaken
        .iter()
        .filter(|mistaken| !mistaken.is_common);
    let sentences = Mistaken::sentences(mistaken).into_iter();
    all.extend(sentences.map(|sentence| format!("not served: {sentence}")));
    let skipped = search.skipped.iter();
    all.extend(skipped.map(|why| format!("not searched for models: {why}")));
    all
}

/// About scripts and packages that have no effect. The script `program` is looked for in the subfolder `code` of these
/// folders, in their order.
pub fn about_scripts(search: &Search, folders: &[&Path], program: &str) -> Vec<String> {
    let used: Vec<_> = folders.iter().map(|folder| folder.join(CODE)).collect();
    let Some(place) = used.last() else {
        return Vec::new();
    };
    let script = handlers::find_in(folders.iter().copied(), program);
    let mut all = Vec::new();
    for code in &search.code {
        match &script {
            Some(script) if script.code == *code => {}
            None if used.contains(code) => all.extend(about_code(code, program)),
            _ if Content::of(code).is_empty() => {}
            Some(script) => all.push(format!(
                "{} has no effect: the handler script is {}",
                code.display(),
                script.path.display()
            )),
            None => all.push(format!(
                "{} has no effect: the folder for the handler script is {}",
                code.display(),
                place.display()
            )),
        }
    }
    let file_name = Path::new(program).file_name().unwrap_or_default();
    for path in &search.loose {
        let name = path.file_name().unwrap_or_default();
        if name == "requirements.txt" {
            all.push(format!(
                "{} has no effect: it belongs into the folder of the handler script, {}",
                path.display(),
                place.display()
            ));
        } else if name.eq_ignore_ascii_case(file_name) || name.eq_ignore_ascii_case("inference.py")
        {
            all.push(format!(
                "{} has no effect: the place of the handler script is {}",
                path.display(),
                place.join(program).display()
            ));
        }
    }
    all
}

/// About a folder `code` without the script `program`: why its content has no effect.
pub fn about_code(code: &Path, program: &str) -> Option<String> {
    let content = Content::of(code);
    let is_similar = |name: &&String| {
        name.eq_ignore_ascii_case(program) || name.eq_ignore_ascii_case(&format!("{program}.txt"))
    };
    if let Some(name) = content.files.iter().find(is_similar) {
        let path = code.join(name);
        return Some(format!(
            "{} has no effect: rename it to {program}",
            path.display()
        ));
    }
    let code = code.display();
    match content.scripts().as_slice() {
        [] => {
            let other = content.for_scripts.first()?;
            let path = other.display();
            Some(format!(
                "{path} has no effect, because there is no handler script {code}/{program}"
            ))
        }
        [name] => Some(format!(
            "{code}/{name} has no effect: rename it to {program}, or set SAGEMAKER_PROGRAM={name}"
        )),
        names => {
            let more = if names.len() > MOST_LISTED {
                ", ..."
            } else {
                ""
            };
            let names = names[..names.len().min(MOST_LISTED)].join(", ");
            Some(format!(
                "the scripts in {code} have no effect ({names}{more}): rename one to {program}, or set \
                 SAGEMAKER_PROGRAM to its name"
            ))
        }
    }
}

/// What a folder `code` holds.
#[derive(Debug, Default)]
struct Content {
    /// The names of its files, sorted.
    files: Vec<String>,
    /// What only scripts need: `requirements.txt` and `lib`.
    for_scripts: Vec<PathBuf>,
}

impl Content {
    /// Looks at the folder. One that cannot be read counts as empty; the search has noted it.
    fn of(code: &Path) -> Self {
        let mut content = Self::default();
        let entries = std::fs::read_dir(code).into_iter().flatten().flatten();
        for entry in entries.take(MOST_FILES) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            let path = entry.path();
            if name == "requirements.txt" || (name == "lib" && path.is_dir()) {
                content.for_scripts.push(path);
            } else if path.is_file() {
                content.files.push(name);
            }
        }
        content.files.sort();
        content.for_scripts.sort();
        content
    }

    fn scripts(&self) -> Vec<&str> {
        let names = self.files.iter().map(String::as_str);
        names
            .filter(|name| name.ends_with(".py") && *name != "__init__.py")
            .collect()
    }

    fn is_empty(&self) -> bool {
        self.scripts().is_empty() && self.for_scripts.is_empty()
    }
}
