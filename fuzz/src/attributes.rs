//! Custom attributes: accepted values are safe in a URL, and other keys change nothing.

use sagemaker_tfs::api::attributes::parse;
use sagemaker_tfs::config::is_model_name;

pub fn check(data: &[u8]) {
    let header = String::from_utf8_lossy(data);
    let parsed = parse(&header);
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
                assert!(!version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()));
            }
            // Written out again, the attributes parse to the same values.
            let mut pairs = Vec::new();
            let method = attributes.method.map(|m| m.as_str());
            for (key, value) in [
                ("tfs-model-name", attributes.model_name),
                ("tfs-model-version", attributes.model_version),
                ("tfs-method", method),
            ] {
                let last = header
                    .split(',')
                    .rfind(|pair| pair.split_once('=').is_some_and(|(k, _)| k.trim() == key));
                assert_eq!(last.is_some(), value.is_some(), "{key}");
                pairs.extend(value.map(|value| format!("{key}={value}")));
            }
            assert_eq!(parse(&pairs.join(",")).as_ref().ok(), Some(attributes));
        }
        Err(error) => {
            assert_eq!(error.status, 400);
            let json: serde_json::Value =
                serde_json::from_slice(&error.to_json()).expect("errors are JSON");
            assert_eq!(json["error"], error.text);
        }
    }
    let more = format!("tfs-other=1,{header},other=tfs-model-name");
    match (&parsed, parse(&more)) {
        (Ok(attributes), Ok(with_more)) => assert_eq!(*attributes, with_more),
        (Err(error), Err(with_more)) => assert_eq!(*error, with_more),
        _ => panic!("other attributes change the result"),
    }
}
