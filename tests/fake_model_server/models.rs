//! The models of the config file, and the status answer about one of them.

use std::fmt::Write;

pub struct Models(Vec<Model>);

struct Model {
    name: String,
    versions: Vec<String>,
}

impl Models {
    /// Takes every `name: "x"` of the config text, and the `versions: n` between it and the next name. A model
    /// without listed versions has version 1.
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

    /// The status of one or all versions of a model, laid out as the real server does it.
    pub fn status(&self, name: &str, version: Option<&str>, state: &str) -> Option<String> {
        let model = self.0.iter().find(|model| model.name == name)?;
        let mut entries = String::new();
        for served in model
            .versions
            .iter()
            .filter(|served| version.is_none_or(|v| v == *served))
        {
            let comma = if entries.is_empty() { "" } else { ",\n" };
            let _ = write!(
                entries,
                "{comma}  {{\n   \"version\": \"{served}\",\n   \"state\": \"{state}\",\n   \"status\": {{\n    \
                 \"error_code\": \"OK\",\n    \"error_message\": \"\"\n   }}\n  }}"
            );
        }
        (!entries.is_empty())
            .then(|| format!("{{\n \"model_version_status\": [\n{entries}\n ]\n}}\n"))
    }
}

impl Model {
    /// `section` starts right behind `name:`.
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
        Some(Self { name, versions })
    }
}
