//! The signatures of the models that a backend serves, and the choice of one for a request.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::convert::signature::{self, Choice, Signatures};
use crate::error::{RequestError, shown};
use crate::wait::Mutex;

/// Signatures by model and version. All instances of a backend serve the same models, so they share the table.
#[derive(Debug, Default)]
pub struct SignatureTable {
    /// The signature for requests that name none, if it is not TFS's own default.
    default_name: Option<String>,
    models: Mutex<HashMap<String, Versions>>,
}

type Versions = BTreeMap<u64, Option<Arc<Signatures>>>;

impl SignatureTable {
    /// An empty table. `default_name` is for requests that name no signature.
    pub fn new(default_name: Option<String>) -> Self {
        Self {
            default_name,
            models: Mutex::default(),
        }
    }

    /// Stores the signatures of a version of a model, or `None` if TFS lists none. Logs what users should know, once:
    /// several instances, and each new process of one, report the same.
    pub fn set(&self, model: &str, version: u64, signatures: Option<Signatures>) {
        let mut models = self.models.lock();
        let versions = models.entry(model.to_owned()).or_default();
        let signatures = signatures.map(Arc::new);
        match versions.get(&version) {
            Some(known) if *known == signatures => return,
            // All processes serve the same files, so what one does not tell is still true.
            Some(Some(_)) if signatures.is_none() => return,
            _ => {}
        }
        let problem = match (&signatures, &self.default_name) {
            (None, _) => Some(format!(
                "TensorFlow Serving lists no signatures for version {version} of model {model}; bodies are converted \
                 without them"
            )),
            (Some(known), Some(name)) if known.get(name).is_none() => Some(format!(
                "SAGEMAKER_TFS_DEFAULT_SIGNATURE is {name:?}, which version {version} of model {model} does not have; \
                 it has {}. Requests that name no signature get 400",
                listed(known)
            )),
            _ => None,
        };
        versions.insert(version, signatures);
        drop(models);
        if let Some(problem) = problem {
            log::warn!("{problem}");
        }
    }

    /// Whether a request that names no signature needs the table because a setting names one.
    pub fn has_default_name(&self) -> bool {
        self.default_name.is_some()
    }

    /// Chooses the signature `name`, or the default one, of this version of a model. Without a version, TFS takes the
    /// newest.
    ///
    /// # Errors
    /// 400 if the model has no signature of this name, with those that it has.
    pub fn choose(
        &self,
        model: &str,
        version: Option<&str>,
        name: Option<&str>,
    ) -> Result<Choice, RequestError> {
        let name = name.or(self.default_name.as_deref());
        let known = self.get(model, version);
        let wanted = name.unwrap_or(signature::DEFAULT_NAME);
        let signature = known.as_ref().and_then(|known| known.get(wanted)).cloned();
        if let (Some(name), Some(known), None) = (name, &known, &signature) {
            return Err(RequestError::bad_request(format!(
                "Model {model} has no signature {}; it has {}.",
                shown(name),
                listed(known)
            )));
        }
        Ok(Choice {
            name: name.map(str::to_owned),
            signature,
        })
    }

    fn get(&self, model: &str, version: Option<&str>) -> Option<Arc<Signatures>> {
        let models = self.models.lock();
        let versions = models.get(model)?;
        let signatures = match version {
            Some(version) => versions.get(&version.parse().ok()?),
            None => versions.values().next_back(),
        };
        signatures.cloned()?
    }
}

/// The names of a model's signatures for a message. Those of TensorFlow's own functions take no requests.
fn listed(signatures: &Signatures) -> String {
    const MOST: usize = 15;
    let names = signatures.names().filter(|name| !name.starts_with("__"));
    let names: Vec<String> = names.map(shown).collect();
    match names.len() {
        0 => "none".to_owned(),
        1..=MOST => names.join(", "),
        more => format!("{} and {} more", names[..MOST].join(", "), more - MOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signatures(names: &[&str]) -> Signatures {
        let named = names.iter().map(|name| format!("{name:?}: {{}}"));
        let named = named.collect::<Vec<_>>().join(", ");
        let metadata =
            format!(r#"{{"metadata": {{"signature_def": {{"signature_def": {{{named}}}}}}}}}"#);
        Signatures::parse(metadata.as_bytes()).unwrap()
    }

    fn chosen(
        table: &SignatureTable,
        version: Option<&str>,
        name: Option<&str>,
    ) -> [Option<String>; 2] {
        let choice = table.choose("m", version, name).unwrap();
        [choice.name, choice.signature.map(|s| s.name.clone())]
    }

    #[test]
    fn requests_without_a_version_get_the_newest() {
        let table = SignatureTable::default();
        table.set("m", 9, Some(signatures(&["old", "serving_default"])));
        table.set("m", 10, Some(signatures(&["new"])));
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            chosen(&table, Some("009"), None),
            [None, text("serving_default")]
        );
        assert_eq!(
            chosen(&table, Some("9"), Some("old")),
            [text("old"), text("old")]
        );
        assert_eq!(chosen(&table, None, None), [None, None]);
        assert_eq!(
            chosen(&table, None, Some("new")),
            [text("new"), text("new")]
        );
        // What is known stays known, and the newest version answers even if it lists none.
        table.set("m", 10, None);
        assert_eq!(
            chosen(&table, None, Some("new")),
            [text("new"), text("new")]
        );
        table.set("m", 11, None);
        assert_eq!(chosen(&table, None, None), [None, None]);
        // TFS answers for versions and models that do not exist.
        assert_eq!(chosen(&table, Some("12"), Some("x")), [text("x"), None]);
        assert_eq!(
            chosen(&table, Some("99999999999999999999"), None),
            [None, None]
        );
        assert_eq!(
            table.choose("other", None, None).unwrap(),
            Choice::default()
        );
    }

    #[test]
    fn an_unknown_name_gets_400_with_the_names_there_are() {
        let table = SignatureTable::new(Some("b".to_owned()));
        table.set("m", 1, Some(signatures(&["a", "__saved_model_init_op"])));
        let text = |name| table.choose("m", None, name).unwrap_err().text;
        assert_eq!(
            text(Some("c")),
            r#"Model m has no signature "c"; it has "a"."#
        );
        assert_eq!(text(None), r#"Model m has no signature "b"; it has "a"."#);
        assert!(table.choose("m", None, Some("a")).is_ok());
        let many: Vec<String> = (0..30).map(|n| format!("s{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        table.set("m", 2, Some(signatures(&many)));
        assert!(text(None).ends_with("and 15 more."), "{}", text(None));
    }
}
