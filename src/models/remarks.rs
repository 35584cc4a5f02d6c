//! What to tell the owner of a model directory about parts of it that have no effect, and where they belong.
//!
//! `search.rs` notes what there is. These functions return sentences, so that tests need no log.

use std::path::{Path, PathBuf};

use crate::handlers::{self, CODE};
use crate::models::Model;
use crate::models::formats::{Mistaken, SAVED_MODELS};
use crate::models::names::MAX_NAME;
use crate::models::search::Search;

/// The most sentences about one directory; more would hide those that matter.
const MOST: usize = 20;
/// The most files of a folder `code` that are looked at, and the most that a sentence lists.
const MOST_FILES: usize = 1000;
const MOST_LISTED: usize = 5;

/// Writes the sentences to the log as warnings, each after `prefix`, and as one line whatever names are in it.
pub fn warn(prefix: &str, sentences: Vec<String>) {
    for sentence in sentences {
        let sentence = sentence.replace('\n', "\\n");
        log::warn!("{prefix}{sentence}");
    }
}

/// The first sentences, and the number of the others. `is_cut`: there would be more than these.
pub fn shortened(mut sentences: Vec<String>, is_cut: bool) -> Vec<String> {
    let more = sentences.len().saturating_sub(MOST);
    if more > 0 {
        sentences.truncate(MOST);
        let at_least = if is_cut { "at least " } else { "" };
        sentences.push(format!("and {at_least}{more} more"));
    }
    sentences
}

/// About names that models have towards TensorFlow Serving.
pub fn about_names(models: &[Model]) -> Vec<String> {
    let renamed = models.iter().filter_map(|model| {
        let folder = model.other_name.as_ref()?;
        let why = match folder.len() > MAX_NAME {
            true => format!("its name is longer than {MAX_NAME} bytes"),
            false => {
                "not all versions of TensorFlow Serving take its name in a path".to_owned()
            }
        };
        Some(format!(
            "the model {folder:?} is served as {:?}, because {why}; HTTP clients may use either name, gRPC clients \
             only the second",
            model.name
        ))
    });
    shortened(renamed.collect(), false)
}

/// About what is not served beside these models: `problems` and what the search noted.
pub fn about_models(search: &Search, models: &[Model], problems: Vec<String>) -> Vec<String> {
    let mut all = Vec::new();
    let skipped = search.skipped.iter();
    // First, because the limit of files may be the reason of what follows.
    all.extend(skipped.map(|why| format!("not searched for models: {why}")));
    all.extend(problems);
    let lone = search.lone.iter();
    for path in lone.filter(|path| !models.iter().any(|m| m.path == **path)) {
        all.push(format!(
            "the model in {} is not served: the name of its folder is not a version number",
            path.display()
        ));
    }
    all.extend(about_nested(search));
    // A number may also be the name of a folder with models in it.
    let holds_models = |path: &Path| models.iter().any(|model| model.path.starts_with(path));
    for path in search.numbered.iter().filter(|path| !holds_models(path)) {
        all.push(format!(
            "{} is not served: it holds no {}",
            path.display(),
            SAVED_MODELS[0]
        ));
    }
    let mistaken = search.mistaken.iter();
    let mistaken = mistaken.filter(|mistaken| !mistaken.is_common);
    let sentences = Mistaken::sentences(mistaken).into_iter();
    all.extend(sentences.map(|sentence| format!("not served: {sentence}")));
    shortened(all, search.is_cut)
}

/// About SavedModels in places where none is served.
pub fn about_nested(search: &Search) -> impl Iterator<Item = String> {
    let places = [
        (&search.in_code, "a folder for handler scripts"),
        (&search.in_models, "another SavedModel"),
    ];
    places.into_iter().flat_map(|(paths, place)| {
        let paths = paths.iter().map(|path| path.display());
        paths.map(move |path| format!("the model in {path} is not served: it is part of {place}"))
    })
}

/// About scripts and packages that have no effect. The script `program` is looked for in the subfolder `code` of these
/// folders, in their order. Says nothing if it cannot be used, because then nothing is served.
pub fn about_scripts(search: &Search, folders: &[&Path], program: &str) -> Vec<String> {
    let Ok(script) = handlers::find_in(folders.iter().copied(), program) else {
        return Vec::new();
    };
    let used: Vec<_> = folders.iter().map(|folder| folder.join(CODE)).collect();
    let Some(place) = used.last() else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for code in &search.code {
        match &script {
            Some(script) if script.code == *code => all.extend(about_case(code)),
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
    let is_script = |name: &std::ffi::OsStr| {
        name.eq_ignore_ascii_case(file_name) || name.eq_ignore_ascii_case("inference.py")
    };
    for path in &search.loose {
        let name = path.file_name().unwrap_or_default();
        if name == "requirements.txt" {
            all.push(format!(
                "{} has no effect: it belongs into the folder of the handler script, {}",
                path.display(),
                place.display()
            ));
        } else if is_script(name) {
            all.push(about_place(path, place, program));
        }
    }
    // A script may have modules of any name in its own folder.
    let is_used = |path: &Path| {
        let code = script.as_ref().map(|script| &script.code);
        code.is_some_and(|code| path.starts_with(code))
    };
    let buried = search.buried.iter().filter(|path| !is_used(path));
    all.extend(buried.map(|path| about_place(path, place, program)));
    shortened(all, search.is_cut)
}

/// About a script elsewhere than in the folder `code` at `place`.
fn about_place(script: &Path, code: &Path, program: &str) -> String {
    let (script, place) = (script.display(), code.join(program));
    let place = place.display();
    format!("{script} has no effect: the place of the handler script is {place}")
}

/// About files of the script in this folder `code` that would have an effect under names in small letters.
fn about_case(code: &Path) -> Vec<String> {
    let content = Content::of(code);
    let names = content.files.iter().chain(&content.folders);
    let wrong = names.filter_map(|name| {
        let right = ["requirements.txt", "lib"]
            .into_iter()
            .find(|right| name.eq_ignore_ascii_case(right))?;
        let path = code.join(right);
        // With both, the one in capitals is a file or a package of the script's own.
        (!path.exists()).then(|| {
            let path = code.join(name);
            format!("{} has no effect: rename it to {right}", path.display())
        })
    });
    wrong.collect()
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
    /// The names of its folders, sorted.
    folders: Vec<String>,
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
            } else if path.is_dir() {
                content.folders.push(name);
            }
        }
        content.files.sort();
        content.folders.sort();
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
