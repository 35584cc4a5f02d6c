//! Reads TFS's status responses: whether all versions of its models can be used.
//!
//! TFS opens its ports once *any* version of each model is AVAILABLE or has failed to load, and a version that has
//! failed stays in state END while TFS serves the others. So an open port says little, and we check each version.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::supervisor::readiness::Readiness;
use crate::tfs::message::TfsResponse;
use crate::tfs::model::Model;

/// A model and the versions of it that TFS is configured to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// The name of the model.
    pub name: String,
    /// The version numbers.
    pub numbers: Vec<u64>,
}

impl From<&Model> for Versions {
    fn from(model: &Model) -> Self {
        Self {
            name: model.name.clone(),
            numbers: model.versions.clone(),
        }
    }
}

/// The longest error text of TFS that we pass on, in responses to `/ping` and to loads. SageMaker shows 2,048
/// characters of those.
const MAX_REASON_CHARS: usize = 1000;
/// TensorFlow's error code when memory or another resource has run out.
const OUT_OF_RESOURCES: &str = "RESOURCE_EXHAUSTED";

/// What a response to `GET /v1/models/NAME` says about the configured versions of this model. Other versions do not
/// count: TFS goes on listing versions that it has unloaded.
pub fn of_model(response: &TfsResponse, model: &Versions) -> Readiness {
    let name = &model.name;
    if response.status != 200 {
        return Readiness::NotReady(format!(
            "the status response for model {name} has HTTP status {}",
            response.status
        ));
    }
    let json: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let Some(entries) = json["model_version_status"].as_array() else {
        return Readiness::NotReady(format!(
            "the status response for model {name} cannot be understood"
        ));
    };
    let number = |entry: &Value| entry["version"].as_str()?.parse::<u64>().ok();
    let known: BTreeMap<_, _> = entries
        .iter()
        .filter_map(|entry| Some((number(entry)?, entry)))
        .collect();
    let mut first_problem = None;
    for version in &model.numbers {
        let entry = known.get(version);
        let state = entry.and_then(|entry| entry["state"].as_str());
        match (state, entry) {
            (Some("AVAILABLE"), _) => {}
            (Some("END"), Some(entry)) => return failure(name, *version, &entry["status"]),
            _ => {
                let state = shortened(state.unwrap_or("not listed"));
                first_problem.get_or_insert_with(|| {
                    Readiness::NotReady(format!("version {version} of model {name} is {state}"))
                });
            }
        }
    }
    first_problem.unwrap_or(Readiness::Ready)
}

/// The readiness of a model with a version in state END; `error` is TFS's reason.
fn failure(model: &str, version: u64, error: &Value) -> Readiness {
    let field = |name: &str| error[name].as_str().unwrap_or("");
    let (code, message) = (field("error_code"), field("error_message"));
    Readiness::Failed {
        reason: format!(
            "version {version} of model {model} is END: {}: {}",
            shortened(code),
            shortened(message)
        ),
        out_of_resources: code == OUT_OF_RESOURCES,
    }
}

/// The text on one line, shortened to [`MAX_REASON_CHARS`].
fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_REASON_CHARS) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// Whether the last lines of output of a TFS process say that memory or another resource ran out. TensorFlow spells
/// this in two ways, depending on its version.
pub fn says_out_of_resources(output: &str) -> bool {
    ["RESOURCE_EXHAUSTED:", "Resource exhausted:"]
        .iter()
        .any(|text| output.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn model() -> Versions {
        Versions {
            name: "m".into(),
            numbers: vec![123, 124],
        }
    }

    /// The readiness of model `m` when TFS lists these versions: number, state, error code and message.
    fn readiness(listed: &[(u64, &str, &str, &str)]) -> Readiness {
        let entry = |(version, state, code, message): &(u64, &str, &str, &str)| {
            json!({
                "version": version.to_string(),
                "state": state,
                "status": {"error_code": code, "error_message": message},
            })
        };
        let entries: Vec<_> = listed.iter().map(entry).collect();
        let body = json!({ "model_version_status": entries });
        of_model(&response(200, &body.to_string()), &model())
    }

    fn response(status: u16, body: &str) -> TfsResponse {
        TfsResponse {
            status,
            headers: Default::default(),
            body: body.as_bytes().to_vec().into(),
        }
    }

    fn failed(reason: &str, out_of_resources: bool) -> Readiness {
        Readiness::Failed {
            reason: reason.into(),
            out_of_resources,
        }
    }

    #[test]
    fn not_ready_until_every_configured_version_is_available() {
        let available = (124, "AVAILABLE", "OK", "");
        assert_eq!(
            readiness(&[available, (123, "AVAILABLE", "OK", "")]),
            Readiness::Ready
        );
        for state in ["START", "LOADING", "UNLOADING", "something new"] {
            assert_eq!(
                readiness(&[available, (123, state, "OK", "")]),
                Readiness::NotReady(format!("version 123 of model m is {state}"))
            );
        }
        assert_eq!(
            readiness(&[available]),
            Readiness::NotReady("version 123 of model m is not listed".into())
        );
    }

    #[test]
    fn failed_with_tensorflows_reason_when_a_version_is_end() {
        let available = (124, "AVAILABLE", "OK", "");
        assert_eq!(
            readiness(&[available, (123, "END", "NOT_FOUND", "no such\n  file")]),
            failed(
                "version 123 of model m is END: NOT_FOUND: no such file",
                false
            )
        );
        // Also while another version is still loading.
        assert_eq!(
            readiness(&[(123, "LOADING", "OK", ""), (124, "END", "OK", "")]),
            failed("version 124 of model m is END: OK: ", false)
        );
        assert_eq!(
            readiness(&[available, (123, "END", "RESOURCE_EXHAUSTED", "OOM")]),
            failed(
                "version 123 of model m is END: RESOURCE_EXHAUSTED: OOM",
                true
            )
        );
    }

    #[test]
    fn shortens_a_long_reason() {
        let Readiness::Failed { reason, .. } =
            readiness(&[(123, "END", "INTERNAL", &"é".repeat(5000))])
        else {
            panic!("the version has ended");
        };
        assert!(reason.ends_with("é..."), "{reason}");
        assert!(reason.chars().count() < MAX_REASON_CHARS + 100);
    }

    #[test]
    fn ignores_versions_that_are_not_configured() {
        let configured = [
            (123, "AVAILABLE", "OK", ""),
            (124, "AVAILABLE", "OK", ""),
            (7, "END", "OK", ""),
            (8, "LOADING", "OK", ""),
        ];
        assert_eq!(readiness(&configured), Readiness::Ready);
    }

    #[test]
    fn not_ready_when_a_response_lists_no_states() {
        assert_eq!(
            of_model(&response(404, r#"{"error": "x"}"#), &model()),
            Readiness::NotReady("the status response for model m has HTTP status 404".into())
        );
        for body in ["", "[]", r#"{"model_version_status": 1}"#, "{}"] {
            assert_eq!(
                of_model(&response(200, body), &model()),
                Readiness::NotReady("the status response for model m cannot be understood".into())
            );
        }
    }

    #[test]
    fn recognizes_a_lack_of_memory_in_the_last_lines() {
        assert!(says_out_of_resources(
            "Failed to start server. Error: Unknown: 1 servable(s) did not become available: {{name: m version: 1} due \
             to error: Resource exhausted: OOM when allocating}"
        ));
        assert!(says_out_of_resources("RESOURCE_EXHAUSTED: OOM"));
        assert!(!says_out_of_resources("NOT_FOUND: no such file"));
    }
}
