//! Declares every setting as one entry: variable, command-line option, accepted values, default, meaning.
//!
//! The entries are the only source: the configuration is read through them, with their defaults; messages about wrong
//! values quote them; `--help` and `docs/SETTINGS.md` are generated from them. Each group has a file with its entries,
//! the structure that they fill (if the group has one), and their tests. Dependencies between settings are left to
//! [`Config::read`](crate::config::Config::read).
//!
//! To add a setting, add an entry to a group, and read it there or in `Config::read`; tests fail if nothing reads it.

use std::fmt;
use std::ops::Deref;

use self::format::Format;

/// Declares the entries of a group. The doc comment of an entry is also its text in `docs/SETTINGS.md` and `--help`.
macro_rules! settings {
    ($title:literal: $($(#[doc = $doc:literal])+ $name:ident: $type:ty = $setting:expr;)+) => {
        /// The group of the settings in this file.
        pub static GROUP: Group = Group {
            title: $title,
            settings: &[$(&$name.setting),+],
        };
        $(
            $(#[doc = $doc])+
            pub static $name: TypedSetting<$type> = $setting.documented(concat!($($doc),+));
        )+
    };
}

pub mod aws;
pub mod batch_transform;
pub mod batching;
mod format;
pub mod formats;
pub mod handlers;
pub mod model_server;
pub mod multi_model;
pub(super) mod reader;
pub mod server;
pub mod tuning;

/// All groups, in the order of `docs/SETTINGS.md`.
static GROUPS: [&Group; 9] = [
    &server::GROUP,
    &model_server::GROUP,
    &batching::GROUP,
    &tuning::GROUP,
    &formats::GROUP,
    &batch_transform::GROUP,
    &handlers::GROUP,
    &multi_model::GROUP,
    &aws::GROUP,
];

/// Settings under one heading.
#[derive(Debug)]
pub struct Group {
    title: &'static str,
    settings: &'static [&'static Setting],
}

/// A setting without its parser, so independent of the type of its value.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Environment variable.
    pub name: &'static str,
    /// Long option of `serve` that overrides the variable, without the dashes.
    pub flag: Option<&'static str>,
    /// Value when none is given.
    pub default: DefaultValue,
    /// Accepted values, as a noun phrase: "a port number from 1 to 65535".
    pub accepts: &'static str,
    /// Meaning, in a few sentences.
    pub doc: &'static str,
}

impl Setting {
    /// All settings, in the order of `docs/SETTINGS.md`.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        GROUPS.iter().flat_map(|group| group.settings).copied()
    }

    /// Whether the command-line option is a switch, which takes no value.
    pub fn is_switch(&self) -> bool {
        self.accepts == format::BOOL.accepts
    }
}

/// A default: a text that is parsed like a given value. Batch transform jobs and multi-model mode may have others.
#[derive(Debug, Clone, Copy)]
pub struct DefaultValue {
    usual: Usual,
    batch_transform: Option<&'static str>,
    multi_model: Option<&'static str>,
}

#[derive(Debug, Clone, Copy)]
enum Usual {
    /// No value. The text says in the documentation what that means.
    Unset(&'static str),
    Text(&'static str),
    /// The number of CPUs, at most this many.
    Cpus(u32),
}

/// The facts on which defaults depend.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances {
    /// CPUs that this process may use.
    pub cpus: u32,
    /// Whether this is a batch transform job.
    pub batch_transform: bool,
    /// Whether multi-model mode is on.
    pub multi_model: bool,
}

impl Circumstances {
    /// A machine with `cpus` CPUs, no batch transform job, single-model mode.
    pub fn new(cpus: u32) -> Self {
        Self {
            cpus,
            batch_transform: false,
            multi_model: false,
        }
    }
}

impl DefaultValue {
    fn text(&self, circumstances: &Circumstances) -> Option<String> {
        let in_mode = |is_on: bool, text: Option<&'static str>| text.filter(|_| is_on);
        let special = in_mode(circumstances.batch_transform, self.batch_transform)
            .or(in_mode(circumstances.multi_model, self.multi_model));
        if let Some(text) = special {
            return Some(text.to_owned());
        }
        match self.usual {
            Usual::Unset(_) => None,
            Usual::Text(text) => Some(text.to_owned()),
            Usual::Cpus(most) => Some(circumstances.cpus.clamp(1, most).to_string()),
        }
    }
}

/// The default as `--help` and `docs/SETTINGS.md` show it.
impl fmt::Display for DefaultValue {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.usual {
            Usual::Unset(text) | Usual::Text(text) => f.write_str(text)?,
            Usual::Cpus(u32::MAX) => f.write_str("number of CPUs")?,
            Usual::Cpus(most) => write!(f, "number of CPUs, at most {most}")?,
        }
        if let Some(text) = self.batch_transform {
            write!(f, "; {text} with {}", batch_transform::BATCH.name)?;
        }
        if let Some(text) = self.multi_model {
            write!(f, "; {text} in multi-model mode")?;
        }
        Ok(())
    }
}

/// A setting with its parser.
pub struct TypedSetting<T> {
    /// The setting without its parser.
    pub setting: Setting,
    parse: fn(&str) -> Option<T>,
}

impl<T> Deref for TypedSetting<T> {
    type Target = Setting;

    fn deref(&self) -> &Setting {
        &self.setting
    }
}

impl<T> TypedSetting<T> {
    /// Parses a trimmed text; `None` when the setting does not accept it.
    pub fn parse(&self, text: &str) -> Option<T> {
        (self.parse)(text)
    }

    /// Parses the default, if the setting has one in these circumstances.
    pub fn parse_default(&self, circumstances: &Circumstances) -> Option<T> {
        let text = self.setting.default.text(circumstances)?;
        let value = self.parse(&text);
        debug_assert!(value.is_some(), "{}'s own default {text:?}", self.name);
        value
    }

    /// Sets the default.
    const fn default(self, text: &'static str) -> Self {
        self.usually(Usual::Text(text))
    }

    /// Leaves the setting without a default; `text` says what that means.
    const fn unset_means(self, text: &'static str) -> Self {
        self.usually(Usual::Unset(text))
    }

    /// Makes the number of CPUs the default, at most `most`.
    const fn default_cpus(self, most: u32) -> Self {
        self.usually(Usual::Cpus(most))
    }

    /// Sets the default of batch transform jobs.
    const fn in_batch_transform(mut self, text: &'static str) -> Self {
        self.setting.default.batch_transform = Some(text);
        self
    }

    /// Sets the default of multi-model mode.
    const fn in_multi_model(mut self, text: &'static str) -> Self {
        self.setting.default.multi_model = Some(text);
        self
    }

    /// Adds an option of `serve` that overrides the variable.
    const fn flag(mut self, flag: &'static str) -> Self {
        self.setting.flag = Some(flag);
        self
    }

    const fn usually(mut self, usual: Usual) -> Self {
        self.setting.default.usual = usual;
        self
    }

    const fn documented(mut self, doc: &'static str) -> Self {
        self.setting.doc = doc.trim_ascii();
        self
    }
}

/// A setting that is read from the variable `name` and has no default.
const fn setting<T>(name: &'static str, format: Format<T>) -> TypedSetting<T> {
    TypedSetting {
        setting: Setting {
            name,
            flag: None,
            default: DefaultValue {
                usual: Usual::Unset("unset"),
                batch_transform: None,
                multi_model: None,
            },
            accepts: format.accepts,
            doc: "",
        },
        parse: format.parse,
    }
}

/// Generates the text of `docs/SETTINGS.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Settings\n\n\
         Generated from `src/config/settings/` by `SAGEMAKER_TFS_UPDATE_DOCS=1 cargo test settings`.\n\n\
         Settings are environment variables, which the server reads once, when it starts. An empty value counts as\n\
         unset. Some settings also have a command-line option of `sagemaker-tfs serve`, which overrides the variable.\n\
         If a value is wrong, the server lists all wrong values, one per line, and exits with code 2.\n",
    );
    for group in GROUPS {
        text += &format!(
            "\n## {}\n\n| variable | default | accepts | meaning |\n|---|---|---|---|\n",
            group.title
        );
        for setting in group.settings {
            let flag = match setting.flag {
                Some(flag) => format!(" or `--{flag}`"),
                None => String::new(),
            };
            text += &format!(
                "| `{}`{flag} | {} | {} | {} |\n",
                setting.name, setting.default, setting.accepts, setting.doc
            );
        }
    }
    text += "\n## Variables that handlers can read\n\n\
        The server sets `TFS_GRPC_PORTS`, `TFS_REST_PORTS` (lists separated by commas, with one port per instance of\n\
        TensorFlow Serving), `TFS_GRPC_PORT`, `TFS_REST_PORT` (the ports of the first) and `TFS_DEFAULT_MODEL_NAME`.\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_document_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/SETTINGS.md");
        if std::env::var_os("SAGEMAKER_TFS_UPDATE_DOCS").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        let on_disk = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            on_disk == markdown(),
            "docs/SETTINGS.md is out of date; run: SAGEMAKER_TFS_UPDATE_DOCS=1 cargo test settings"
        );
    }

    #[test]
    fn names_and_flags_are_unique() {
        let mut names: Vec<_> = Setting::all().map(|s| s.name).collect();
        names.extend(Setting::all().filter_map(|s| s.flag));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_entry_states_accepted_values_and_meaning() {
        for setting in Setting::all() {
            assert!(!setting.accepts.is_empty(), "{}", setting.name);
            assert!(
                setting.doc.ends_with('.'),
                "{}: {}",
                setting.name,
                setting.doc
            );
        }
    }

    #[test]
    fn default_depends_on_the_circumstances() {
        let usual = Circumstances::new(4);
        let batch_transform = Circumstances {
            batch_transform: true,
            ..usual
        };
        let multi_model = Circumstances {
            multi_model: true,
            ..usual
        };
        let format = || format::UP_TO_1000;
        let entry = setting("A", format())
            .default("1")
            .in_batch_transform("2")
            .in_multi_model("3");
        assert_eq!(entry.parse_default(&usual), Some(1));
        assert_eq!(entry.parse_default(&batch_transform), Some(2));
        assert_eq!(entry.parse_default(&multi_model), Some(3));
        assert_eq!(
            entry.default.to_string(),
            "1; 2 with SAGEMAKER_BATCH; 3 in multi-model mode"
        );

        let entry = setting("A", format()).default_cpus(3);
        assert_eq!(entry.parse_default(&usual), Some(3));
        assert_eq!(entry.parse_default(&Circumstances::new(2)), Some(2));
        assert_eq!(entry.parse_default(&Circumstances::new(0)), Some(1));
        assert_eq!(entry.default.to_string(), "number of CPUs, at most 3");

        let entry = setting("A", format()).unset_means("all");
        assert_eq!(entry.parse_default(&usual), None);
        assert_eq!(entry.default.to_string(), "all");
    }
}
