//! The models of the config file, and the status of each.
//!
//! The file `fake_status` in a model's folder overrides the states of single versions; the control route sets the
//! state of all others. The file is read for every status request:
//!
//! ```json
//! {"123": {"state": "END", "error_code": "NOT_FOUND", "error_message": "..."}, "124": null, "7": {"state": "END"}}
//! ```
//!
//! `null` removes a version from the list. Versions that are not in the config file are added.
//!
//! The file `metadata-V.json` in a model's folder is the response about the signatures of version V. Without it, the
//! response is that of a model server too old to know the route.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

pub struct Models(Vec<Model>);

struct Model {
    name: String,
    folder: PathBuf,
    versions: Vec<String>,
}

impl Models {
    /// Takes every `name: "x"` of the config text, and each `versions: n` up to the next name. A model without listed
    /// versions has version 1.
    pub fn parse(config: &str) -> Self {
        let sections = config.split("name:").skip(1);
        Self(sections.filter_map(Model::parse).collect())
    }

    pub fn has(&self, name: &str, version: Option<&str>) -> bool {
        let served =
            |model: &Model| version.is_none_or(|v| model.versions.iter().any(|served| served == v));
        self.0
            .iter()
            .any(|model| model.name == name && served(model))
    }

    /// The metadata of a version of a model, the newest if none is named.
    pub fn metadata(&self, name: &str, version: Option<&str>) -> Option<Vec<u8>> {
        let model = self.0.iter().find(|model| model.name == name)?;
        let version = version.or(model.versions.last().map(String::as_str))?;
        fs::read(model.folder.join(format!("metadata-{version}.json"))).ok()
    }

    /// The status of one or all versions of a model, in the layout of the real server.
    pub fn status(&self, name: &str, version: Option<&str>, state: &str) -> Option<String> {
        let model = self.0.iter().find(|model| model.name == name)?;
        let mut entries = String::new();
        for (listed, status) in model.statuses(state) {
            if version.is_some_and(|v| v != listed) {
                continue;
            }
            let comma = if entries.is_empty() { "" } else { ",\n" };
            let field = |name: &str, usual: &str| {
                let value = status.get(name).cloned();
                value.unwrap_or_else(|| json!(usual))
            };
            let (state, code) = (field("state", state), field("error_code", "OK"));
            let message = field("error_message", "");
            let _ = write!(
                entries,
                "{comma}  {{\n   \"version\": \"{listed}\",\n   \"state\": {state},\n   \"status\": {{\n    \
                 \"error_code\": {code},\n    \"error_message\": {message}\n   }}\n  }}"
            );
        }
        (!entries.is_empty())
            .then(|| format!("{{\n \"model_version_status\": [\n{entries}\n ]\n}}\n"))
    }
}

impl Model {
    /// All listed versions with their states.
    fn statuses(&self, state: &str) -> BTreeMap<String, Value> {
        let configured = self.versions.iter().cloned();
        let mut statuses: BTreeMap<_, _> =
            configured.map(|v| (v, json!({ "state": state }))).collect();
        let special = fs::read_to_string(self.folder.join("fake_status")).unwrap_or_default();
        let special: BTreeMap<String, Value> = serde_json::from_str(&special).unwrap_or_default();
        for (version, status) in special {
            match status {
                Value::Null => statuses.remove(&version),
                status => statuses.insert(version, status),
            };
        }
        statuses
    }

    /// `section` starts right after `name:`.
    fn parse(section: &str) -> Option<Self> {
        let name = section.split(['"', '\'']).nth(1)?.to_owned();
        let digits = |text: &str| {
            text.trim_start()
                .split(|c: char| !c.is_ascii_digit())
                .next()
                .unwrap_or("")
                .to_owned()
        };
        let mut versions: Vec<_> = section.split("versions:").skip(1).map(digits).collect();
        if versions.is_empty() {
            versions.push("1".to_owned());
        }
        let folder = section.split("base_path:").nth(1).unwrap_or("");
        let folder = folder.split('\'').nth(1).unwrap_or("").into();
        Some(Self {
            name,
            folder,
            versions,
        })
    }
}
