//! The names of versions that the settings give, by model.

use crate::config::VersionLabel;
use crate::config::settings::tuning::VERSION_LABELS;
use crate::error::StartError;
use crate::tfs::model::{Labels, Model};

/// Finds the models and versions of these labels. Those without a model are for `default_model`.
///
/// # Errors
/// When a model or version does not exist, or a label is given to two versions of a model.
pub fn by_model(
    labels: &[VersionLabel],
    models: &[Model],
    default_model: &str,
) -> Result<Labels, StartError> {
    let mut found = Labels::new();
    for VersionLabel {
        model,
        label,
        version,
    } in labels
    {
        let name = model.as_deref().unwrap_or(default_model);
        let failed = |why| StartError::failed(format!("{}: {why}", VERSION_LABELS.name));
        let Some(model) = models.iter().find(|model| model.is_named(name)) else {
            let names: Vec<_> = models.iter().map(Model::folder_name).collect();
            let names = names.join(", ");
            return Err(failed(format!(
                "there is no model {name}; the models found are: {names}"
            )));
        };
        if !model.versions.contains(version) {
            let versions = &model.versions;
            return Err(failed(format!(
                "model {name} has no version {version} for the label {label}; it has {versions:?}"
            )));
        }
        let of_model = found.entry(model.name.clone()).or_default();
        if of_model.iter().any(|(known, _)| known == label) {
            return Err(failed(format!(
                "the label {label} of model {name} is given twice"
            )));
        }
        of_model.push((label.clone(), *version));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::tuning::VERSION_LABELS;

    #[test]
    fn labels_without_a_model_are_for_the_default_model() {
        let model = |name: &str, versions: &[u64]| Model {
            name: name.to_owned(),
            other_name: None,
            path: "/m".into(),
            versions: versions.to_vec(),
            lone: false,
        };
        let models = [model("a", &[1, 2]), model("b", &[7])];
        let find = |text| by_model(&VERSION_LABELS.parse(text).unwrap(), &models, "a");
        let found = find("new=2,b:new=7,old=1").unwrap();
        let pairs = |name| {
            found[name]
                .iter()
                .map(|(l, v)| (l.as_str(), *v))
                .collect::<Vec<_>>()
        };
        assert_eq!(pairs("a"), [("new", 2), ("old", 1)]);
        assert_eq!(pairs("b"), [("new", 7)]);
        for (text, expected) in [
            ("c:x=1", "there is no model c; the models found are: a, b"),
            (
                "x=3",
                "model a has no version 3 for the label x; it has [1, 2]",
            ),
            ("x=1,a:x=2", "the label x of model a is given twice"),
        ] {
            let error = find(text).unwrap_err().to_string();
            assert_eq!(error, format!("SAGEMAKER_TFS_VERSION_LABELS: {expected}"));
        }
    }
}
