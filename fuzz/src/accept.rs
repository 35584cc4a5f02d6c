//! `Accept` and `Content-Type`: only the layout of a response changes, and JSON keeps its value.
//!
//! Input: one byte for the status; a header's value up to the first newline; a body.

use sagemaker_tfs::convert::request::Format;
use sagemaker_tfs::convert::response::accept::{DEFAULT_TYPE, lay_out, listed_type};
use serde_json::Value;

pub fn check(data: &[u8]) {
    let Some((&status, rest)) = data.split_first() else {
        return;
    };
    let status = [200, 400, 404, 500][usize::from(status) % 4];
    let end = rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
    let header = String::from_utf8_lossy(&rest[..end]);
    let body = rest.get(end + 1..).unwrap_or_default();

    check_layout(status, body, None);
    check_layout(status, body, Some(&header));

    if let Err(error) = Format::of(Some(&header)) {
        assert_eq!(error.status, 415);
        let json = serde_json::from_slice::<Value>(&error.to_json()).expect("errors are JSON");
        assert_eq!(json["error"], error.text);
    }
}

fn check_layout(status: u16, body: &[u8], accept: Option<&str>) {
    let mut laid_out = body.to_vec();
    let content_type = lay_out(status, &mut laid_out, accept);
    match listed_type(accept) {
        Some(listed) => {
            assert_eq!(content_type, listed);
            assert!(!laid_out.contains(&b'\n'));
            let header = accept.expect("listed in it").to_ascii_lowercase();
            assert!(header.contains(listed));
        }
        None => assert_eq!(content_type, DEFAULT_TYPE),
    }
    let without_layout = |bytes: &[u8]| {
        let bytes = bytes.iter().copied();
        bytes.filter(|b| !b"\n\\".contains(b)).collect::<Vec<_>>()
    };
    assert_eq!(without_layout(&laid_out), without_layout(body));
    if listed_type(accept).is_none() && status != 400 {
        assert_eq!(laid_out, body);
    }
    if let Ok(json) = serde_json::from_slice::<Value>(body) {
        assert_eq!(serde_json::from_slice::<Value>(&laid_out).ok(), Some(json));
    }
}
