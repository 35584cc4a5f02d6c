//! The status of a model: the model is ready only if the model server reports every requested version as AVAILABLE.
//!
//! Input: one byte for the HTTP status; the response's body.

use sagemaker_tfs::supervisor::readiness::Readiness;
use sagemaker_tfs::tfs::message::TfsResponse;
use sagemaker_tfs::tfs::status::{Versions, of_model};
use serde_json::Value;

/// Far below the limit of a response to a client.
const MAX_REASON_BYTES: usize = 8 * 1024;

pub fn check(data: &[u8]) {
    let Some((&status, body)) = data.split_first() else {
        return;
    };
    let answer = TfsResponse {
        status: [200, 404, 503][usize::from(status) % 3],
        headers: Default::default(),
        body: body.to_vec().into(),
    };
    let model = Versions {
        name: "m".to_owned(),
        numbers: vec![1, 2],
    };
    let says = |version: &str, state: &str| {
        let json: Value = serde_json::from_slice(body).expect("the body is JSON");
        let entries = json["model_version_status"].as_array();
        entries.expect("a list").iter().any(|entry| {
            let number = entry["version"]
                .as_str()
                .and_then(|v| v.parse::<u64>().ok());
            number.map(|n| n.to_string()).as_deref() == Some(version) && entry["state"] == state
        })
    };
    match of_model(&answer, &model) {
        Readiness::Ready => {
            assert_eq!(answer.status, 200);
            assert!(says("1", "AVAILABLE") && says("2", "AVAILABLE"));
        }
        Readiness::Failed { reason, .. } => {
            assert_eq!(answer.status, 200);
            assert!(says("1", "END") || says("2", "END"), "{reason}");
            assert!(reason.len() < MAX_REASON_BYTES);
        }
        Readiness::NotReady(text) => {
            assert!(!text.is_empty());
            assert!(text.len() < MAX_REASON_BYTES);
        }
    }
}
