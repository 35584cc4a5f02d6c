//! The answer's content type and layout, by the request's `Accept` header.

use memchr::memmem;

/// The content type of answers when `Accept` lists none of ours.
pub const DEFAULT_TYPE: &str = "application/json";

/// The first type listed in `accept` that answers can be given in, if any. Parameters and case do not count.
pub fn listed_type(accept: Option<&str>) -> Option<&'static str> {
    accept?.split(',').find_map(|entry| {
        let essence = entry.split(';').next().unwrap_or_default().trim();
        ["application/json", "application/jsonlines"]
            .into_iter()
            .find(|known| essence.eq_ignore_ascii_case(known))
    })
}

/// Lays an answer of TensorFlow Serving out: on one line when `Accept` lists one of our types, else as it is.
/// TensorFlow Serving's `\'instances\'` in a 400, which no JSON parser takes, loses its backslashes.
/// Returns the content type to go with it.
pub fn lay_out(status: u16, body: &mut Vec<u8>, accept: Option<&str>) -> &'static str {
    if status == 400 {
        unescape_instances(body);
    }
    match listed_type(accept) {
        Some(content_type) => {
            remove_newlines(body);
            content_type
        }
        None => DEFAULT_TYPE,
    }
}

/// In place, moving each run between newlines once. JSON strings hold no raw newlines, so only layout is lost.
fn remove_newlines(body: &mut Vec<u8>) {
    let mut kept = 0;
    let mut read = 0;
    while read < body.len() {
        let end = memchr::memchr(b'\n', &body[read..]).map_or(body.len(), |at| read + at);
        body.copy_within(read..end, kept);
        kept += end - read;
        read = end + 1;
    }
    body.truncate(kept);
}

fn unescape_instances(body: &mut Vec<u8>) {
    const ESCAPED: &[u8] = br"\'instances\'";
    const PLAIN: &[u8] = b"'instances'";
    let mut mended = Vec::new();
    let mut copied = 0;
    for at in memmem::find_iter(body, ESCAPED) {
        mended.extend_from_slice(&body[copied..at]);
        mended.extend_from_slice(PLAIN);
        copied = at + ESCAPED.len();
    }
    if copied > 0 {
        mended.extend_from_slice(&body[copied..]);
        *body = mended;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(status: u16, body: &str, accept: Option<&str>) -> (String, &'static str) {
        let mut body = body.as_bytes().to_vec();
        let content_type = lay_out(status, &mut body, accept);
        (String::from_utf8(body).unwrap(), content_type)
    }

    const PREDICTIONS: &str = "{\n    \"predictions\": [3.5, 4.0, 5.5\n    ]\n}";

    #[test]
    fn a_listed_type_removes_newlines() {
        for accept in [
            "application/json",
            "text/plain, Application/JSON;q=0.5",
            "application/json,application/jsonlines",
        ] {
            assert_eq!(
                laid_out(200, PREDICTIONS, Some(accept)),
                (
                    "{    \"predictions\": [3.5, 4.0, 5.5    ]}".into(),
                    "application/json"
                ),
                "{accept}"
            );
        }
        let (_, content_type) = laid_out(200, "", Some("application/jsonlines, application/json"));
        assert_eq!(content_type, "application/jsonlines");
    }

    #[test]
    fn any_other_accept_leaves_the_body_alone() {
        for accept in [
            None,
            Some(""),
            Some("*/*"),
            Some("text/csv"),
            Some("application/*"),
        ] {
            assert_eq!(
                laid_out(200, PREDICTIONS, accept),
                (PREDICTIONS.into(), "application/json"),
                "{accept:?}"
            );
        }
    }

    #[test]
    fn escaped_instances_are_mended_in_a_400_only() {
        let body = r#"{"error": "of \'instances\' list, \'instances\'"}"#;
        let mended = r#"{"error": "of 'instances' list, 'instances'"}"#;
        assert_eq!(laid_out(400, body, None).0, mended);
        assert_eq!(laid_out(200, body, None).0, body);
        assert_eq!(laid_out(500, body, None).0, body);
    }

    #[test]
    fn newlines_at_the_ends_and_in_a_row() {
        assert_eq!(
            laid_out(200, "\n\na\n\nb\n", Some("application/json")).0,
            "ab"
        );
        assert_eq!(laid_out(200, "ab", Some("application/json")).0, "ab");
    }
}
