//! Custom attributes: accepted values are safe in a URL, other text changes nothing, and attributes that the Python
//! container reads are never lost.

use std::collections::BTreeMap;

use sagemaker_tfs::api::attributes::{Attributes, parse};
use sagemaker_tfs::config::is_model_name;

pub fn check(data: &[u8]) {
    let header = String::from_utf8_lossy(data);
    let parsed = parse(&header, |_| false, check_unknown);
    match &parsed {
        Ok(attributes) => {
            if let Some(name) = attributes.model_name {
                assert!(is_model_name(name));
                assert!(
                    name.bytes()
                        .all(|b| b.is_ascii_graphic() && b != b'/' && b != b'%')
                );
                assert!(!name.starts_with('.') && (1..=255).contains(&name.len()));
            }
            if let Some(version) = attributes.model_version {
                assert!(version.bytes().all(|b| b.is_ascii_digit()));
                assert!(version.parse::<i64>().is_ok());
            }
            for (name, value) in pairs(attributes) {
                assert!(header.contains(name) && header.contains(value), "{name}");
            }
            assert_not_lost(&header, attributes);
            // Written out again, the attributes parse to the same values.
            let written = pairs(attributes).map(|(name, value)| format!("{name}={value}"));
            let written = written.collect::<Vec<_>>().join(",");
            assert_eq!(
                parse(&written, |_| false, check_unknown).as_ref().ok(),
                Some(attributes)
            );
        }
        Err(error) => {
            assert_eq!(error.status, 400);
            let json: serde_json::Value =
                serde_json::from_slice(&error.to_json()).expect("errors are JSON");
            assert_eq!(json["error"], error.text);
        }
    }
    let more = format!("tfs-other=1,{header},other=tfs-model-name");
    match (&parsed, parse(&more, |_| false, check_unknown)) {
        (Ok(attributes), Ok(with_more)) => assert_eq!(*attributes, with_more),
        (Err(error), Err(with_more)) => assert_eq!(*error, with_more),
        _ => panic!("other attributes change the result"),
    }
}

/// The names are logged.
fn check_unknown(name: &str) {
    assert!(name.starts_with("tfs-"), "{name:?}");
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    assert!(name.bytes().all(is_allowed), "{name:?}");
}

fn pairs<'a>(attributes: &Attributes<'a>) -> impl Iterator<Item = (&'static str, &'a str)> {
    let method = attributes.method.map(|method| method.as_str());
    [
        ("tfs-model-name", attributes.model_name),
        ("tfs-model-version", attributes.model_version),
        ("tfs-method", method),
        ("tfs-signature-name", attributes.signature_name),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
}

/// Asserts that what the container reads was read: all matches of `tfs-[a-z-]+=[^,]+`, the last of each name. Spaces
/// before `=` hide an attribute from the container, and values of spaces are none here.
fn assert_not_lost(header: &str, attributes: &Attributes) {
    if header.contains([' ', '\t']) || header.contains(|c: char| !c.is_ascii_graphic()) {
        return;
    }
    let read: BTreeMap<_, _> = pairs(attributes).collect();
    let mut theirs = BTreeMap::new();
    let mut rest = header;
    while let Some(start) = rest.find("tfs-") {
        rest = &rest[start..];
        let other = rest.find(|c: char| c != '-' && !c.is_ascii_lowercase());
        let (name, after) = rest.split_at(other.unwrap_or(rest.len()));
        let text = after.strip_prefix('=').unwrap_or_default();
        let value = text.split(',').next().unwrap_or_default();
        if name.len() > "tfs-".len() && !value.is_empty() {
            theirs.insert(name, value);
            rest = &text[value.len()..];
        } else {
            rest = &rest[1..];
        }
    }
    for name in ["tfs-model-name", "tfs-model-version", "tfs-method"] {
        assert_eq!(read.get(name), theirs.get(name), "{name}");
    }
}
