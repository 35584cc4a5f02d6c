//! What a model server says of its model: AVAILABLE only when it says so.
//!
//! Input: HTTP status, one byte; the answer's body.

use sagemaker_tfs::supervise::lifecycle::Status;
use sagemaker_tfs::tfs::client::{TfsAnswer, status_of};

pub fn check(data: &[u8]) {
    let Some((&status, body)) = data.split_first() else {
        return;
    };
    let answer = TfsAnswer {
        status: [200, 404, 503][usize::from(status) % 3],
        headers: Default::default(),
        body: body.to_vec().into(),
    };
    match status_of(&answer) {
        Status::Available => {
            assert_eq!(answer.status, 200);
            let json = serde_json::from_slice::<serde_json::Value>(body).expect("it says JSON");
            assert!(
                json.to_string().contains(r#""state":"AVAILABLE""#),
                "{json}"
            );
        }
        Status::Other(text) => assert!(!text.is_empty()),
    }
}
