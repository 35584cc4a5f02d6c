//! `Accept` and `Content-Type`: a list of plain names gives the first that is known, only the layout of a response that
//! stays JSON changes, and errors are JSON.
//!
//! Input: one byte for the status; a header's value up to the first newline; a body.

use sagemaker_tfs::convert::request::Format;
use sagemaker_tfs::convert::response::{Accepted, lay_out};
use sagemaker_tfs::error::RequestError;
use serde_json::Value;

const DEFAULT: Accepted = Accepted::Json { one_line: false };

pub fn check(data: &[u8]) {
    let Some((&status, rest)) = data.split_first() else {
        return;
    };
    let status = [200, 400, 404, 500][usize::from(status) % 4];
    let end = rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
    let header = String::from_utf8_lossy(&rest[..end]);
    let body = rest.get(end + 1..).unwrap_or_default();

    assert_eq!(Accepted::negotiate(None, DEFAULT), Ok(DEFAULT));
    let negotiated = Accepted::negotiate(Some(&header), DEFAULT);
    match &negotiated {
        Ok(accepted) => check_layout(status, body, *accepted),
        Err(error) => check_error(error, 406),
    }
    if !header.contains([';', '*', '"']) && header.contains(|c| !", \t".contains(c)) {
        let first = header.split(',').find_map(known);
        assert_eq!(negotiated.ok(), first, "{header:?}");
    }
    if let Some(default) = Accepted::parse_default(&header) {
        let named = Accepted::negotiate(Some(&header), DEFAULT).expect("a type is acceptable");
        assert_eq!(default.content_type(), named.content_type());
    }
    if let Err(error) = Format::of(Some(&header)) {
        assert!(matches!(error.status, 400 | 415), "{error}");
        check_error(&error, error.status);
    }
}

/// What a media type without parameters stands for.
fn known(entry: &str) -> Option<Accepted> {
    Some(match entry.trim().to_ascii_lowercase().as_str() {
        "application/json" => Accepted::Json { one_line: true },
        "application/jsonlines" | "application/jsons" => Accepted::JsonLines { ndjson: false },
        "application/x-ndjson" => Accepted::JsonLines { ndjson: true },
        "text/csv" | "application/csv" => Accepted::Csv { header: false },
        "application/x-npy" => Accepted::Npy,
        "application/x-npz" => Accepted::Npz,
        _ => return None,
    })
}

fn check_error(error: &RequestError, status: u16) {
    assert_eq!(error.status, status);
    let json = serde_json::from_slice::<Value>(&error.to_json()).expect("errors are JSON");
    assert_eq!(json["error"], error.text);
}

fn check_layout(status: u16, body: &[u8], accepted: Accepted) {
    if status == 200 && !matches!(accepted, Accepted::Json { .. }) {
        return; // the check `response` converts them
    }
    let laid_out = lay_out(status, body.to_vec().into(), accepted, None);
    let (laid_out, content_type) = laid_out.expect("JSON stays JSON");
    assert_eq!(content_type, "application/json");
    if accepted == DEFAULT {
        assert!(status == 400 || *laid_out == *body);
    } else {
        assert!(!laid_out.contains(&b'\n'));
    }
    let without_layout = |bytes: &[u8]| {
        let bytes = bytes.iter().copied();
        bytes.filter(|b| !b"\n\\".contains(b)).collect::<Vec<_>>()
    };
    assert_eq!(without_layout(&laid_out), without_layout(body));
    if let Ok(json) = serde_json::from_slice::<Value>(body) {
        assert_eq!(serde_json::from_slice::<Value>(&laid_out).ok(), Some(json));
    }
}
