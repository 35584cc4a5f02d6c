//! What TensorFlow Serving's status answers say: whether everything that it was started for can be used.
//!
//! Its ports open once *any* version of each model is AVAILABLE or has failed to load, and a version that has failed
//! stays in state END while the others are served. So an open port says little, and each version is looked at.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::supervisor::lifecycle::Status;
use crate::tfs::message::TfsAnswer;
use crate::tfs::model::Model;

/// A model and the versions of it that a model server is configured to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// The model's name.
    pub name: String,
    /// The versions.
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

/// Error texts go into answers of `/ping` and of loads, of which SageMaker shows 2,048 characters.
const MAX_REASON_CHARS: usize = 1000;
/// TensorFlow's word for memory and the like.
const OUT_OF_RESOURCES: &str = "RESOURCE_EXHAUSTED";

/// What an answer to `GET /v1/models/NAME` says of this model's versions. Versions that were not asked for do not
/// count: TensorFlow Serving goes on listing what it has unloaded.
pub fn of_model(answer: &TfsAnswer, model: &Versions) -> Status {
    let name = &model.name;
    if answer.status != 200 {
        return Status::Other(format!(
            "the status answer about model {name} has HTTP status {}",
            answer.status
        ));
    }
    let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let Some(entries) = json["model_version_status"].as_array() else {
        return Status::Other(format!(
            "the status answer about model {name} cannot be understood"
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
                let state = shortened(state.unwrap_or("not there"));
                first_problem.get_or_insert_with(|| {
                    Status::Other(format!("version {version} of model {name} is {state}"))
                });
            }
        }
    }
    first_problem.unwrap_or(Status::Available)
}

/// A version has ended; `error` is why.
fn failure(model: &str, version: u64, error: &Value) -> Status {
    let field = |name: &str| error[name].as_str().unwrap_or("");
    let (code, message) = (field("error_code"), field("error_message"));
    Status::Failed {
        reason: format!(
            "version {version} of model {model} is END: {}: {}",
            shortened(code),
            shortened(message)
        ),
        out_of_resources: code == OUT_OF_RESOURCES,
    }
}

/// The text on one line, and no longer than wanted.
fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_REASON_CHARS) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// Whether the last lines of a model server that ended say that memory or the like ran out. Versions of TensorFlow
/// spell it in different ways.
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

    /// The status of model `m` when TensorFlow Serving lists these versions in these states.
    fn status(listed: &[(u64, &str, &str, &str)]) -> Status {
        let entry = |(version, state, code, message): &(u64, &str, &str, &str)| {
            json!({
                "version": version.to_string(),
                "state": state,
                "status": {"error_code": code, "error_message": message},
            })
        };
        let entries: Vec<_> = listed.iter().map(entry).collect();
        let body = json!({ "model_version_status": entries });
        of_model(&answer(200, &body.to_string()), &model())
    }

    fn answer(status: u16, body: &str) -> TfsAnswer {
        TfsAnswer {
            status,
            headers: Default::default(),
            body: body.as_bytes().to_vec().into(),
        }
    }

    fn failed(reason: &str, out_of_resources: bool) -> Status {
        Status::Failed {
            reason: reason.into(),
            out_of_resources,
        }
    }

    #[test]
    fn every_configured_version_must_be_available() {
        let available = (124, "AVAILABLE", "OK", "");
        assert_eq!(
            status(&[available, (123, "AVAILABLE", "OK", "")]),
            Status::Available
        );
        for state in ["START", "LOADING", "UNLOADING", "something new"] {
            assert_eq!(
                status(&[available, (123, state, "OK", "")]),
                Status::Other(format!("version 123 of model m is {state}"))
            );
        }
        assert_eq!(
            status(&[available]),
            Status::Other("version 123 of model m is not there".into())
        );
    }

    #[test]
    fn a_version_that_ended_is_named_with_tensorflows_reason() {
        let available = (124, "AVAILABLE", "OK", "");
        assert_eq!(
            status(&[available, (123, "END", "NOT_FOUND", "no such\n  file")]),
            failed(
                "version 123 of model m is END: NOT_FOUND: no such file",
                false
            )
        );
        // Also while another version is still loading.
        assert_eq!(
            status(&[(123, "LOADING", "OK", ""), (124, "END", "OK", "")]),
            failed("version 124 of model m is END: OK: ", false)
        );
        assert_eq!(
            status(&[available, (123, "END", "RESOURCE_EXHAUSTED", "OOM")]),
            failed(
                "version 123 of model m is END: RESOURCE_EXHAUSTED: OOM",
                true
            )
        );
    }

    #[test]
    fn a_long_reason_is_cut() {
        let Status::Failed { reason, .. } = status(&[(123, "END", "INTERNAL", &"é".repeat(5000))])
        else {
            panic!("it has failed");
        };
        assert!(reason.ends_with("é..."), "{reason}");
        assert!(reason.chars().count() < MAX_REASON_CHARS + 100);
    }

    #[test]
    fn versions_that_are_not_configured_do_not_count() {
        let configured = [
            (123, "AVAILABLE", "OK", ""),
            (124, "AVAILABLE", "OK", ""),
            (7, "END", "OK", ""),
            (8, "LOADING", "OK", ""),
        ];
        assert_eq!(status(&configured), Status::Available);
    }

    #[test]
    fn answers_without_states_are_a_problem() {
        assert_eq!(
            of_model(&answer(404, r#"{"error": "x"}"#), &model()),
            Status::Other("the status answer about model m has HTTP status 404".into())
        );
        for body in ["", "[]", r#"{"model_version_status": 1}"#, "{}"] {
            assert_eq!(
                of_model(&answer(200, body), &model()),
                Status::Other("the status answer about model m cannot be understood".into())
            );
        }
    }

    #[test]
    fn a_lack_of_memory_is_found_in_last_lines() {
        assert!(says_out_of_resources(
            "Failed to start server. Error: Unknown: 1 servable(s) did not become available: {{name: m version: 1} due \
             to error: Resource exhausted: OOM when allocating}"
        ));
        assert!(says_out_of_resources("RESOURCE_EXHAUSTED: OOM"));
        assert!(!says_out_of_resources("NOT_FOUND: no such file"));
    }
}
