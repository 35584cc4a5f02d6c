//! Chooses the content type and layout of a response by the request's header `Accept`.

use memchr::memmem;

use crate::error::RequestError;

/// The format of a response with status 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// TensorFlow Serving's JSON: as it is, or on one line.
    Json {
        /// Without line ends.
        one_line: bool,
    },
    /// A line of JSON for each instance.
    JsonLines,
    /// A row for each instance.
    Csv {
        /// With a header line.
        header: bool,
    },
    /// A numpy array, or an archive of them for several outputs.
    Npy,
    /// An archive of numpy arrays by name.
    Npz,
}

impl Accepted {
    /// stub
    pub fn parse_default(_: &str) -> Option<Self> {
        None
    }

    /// stub
    pub fn needs_signature(self) -> bool {
        false
    }

    /// Chooses the format for the header `Accept`.
    ///
    /// # Errors
    /// 406 if the header accepts no supported format.
    pub fn negotiate(accept: Option<&str>, default: Self) -> Result<Self, RequestError> {
        Ok(match listed_type(accept) {
            Some(_) => Self::Json { one_line: true },
            None => default,
        })
    }
}

/// The content type of responses when `Accept` lists no supported type.
pub const DEFAULT_TYPE: &str = "application/json";

/// The first supported type that `accept` lists, if any. Parameters and case do not matter.
pub fn listed_type(accept: Option<&str>) -> Option<&'static str> {
    accept?.split(',').find_map(|entry| {
        let essence = entry.split(';').next().unwrap_or_default().trim();
        ["application/json", "application/jsonlines"]
            .into_iter()
            .find(|known| essence.eq_ignore_ascii_case(known))
    })
}

/// Lays out the body of TensorFlow Serving's response: on one line if `Accept` lists a supported type, otherwise
/// unchanged. In a 400, removes the backslashes from TensorFlow Serving's `\'instances\'`, which no JSON parser
/// accepts. Returns the content type of the response.
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

/// Removes newlines in place, and moves each run between newlines once. JSON strings contain no raw newlines, so only
/// the layout changes.
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
    let mut unescaped = Vec::new();
    let mut copied = 0;
    for at in memmem::find_iter(body, ESCAPED) {
        unescaped.extend_from_slice(&body[copied..at]);
        unescaped.extend_from_slice(PLAIN);
        copied = at + ESCAPED.len();
    }
    if copied > 0 {
        unescaped.extend_from_slice(&body[copied..]);
        *body = unescaped;
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
    fn removes_newlines_for_a_listed_type() {
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
    fn leaves_the_body_unchanged_for_any_other_accept() {
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
    fn unescapes_instances_in_a_400_only() {
        let body = r#"{"error": "of \'instances\' list, \'instances\'"}"#;
        let unescaped = r#"{"error": "of 'instances' list, 'instances'"}"#;
        assert_eq!(laid_out(400, body, None).0, unescaped);
        assert_eq!(laid_out(200, body, None).0, body);
        assert_eq!(laid_out(500, body, None).0, body);
    }

    #[test]
    fn removes_newlines_at_the_ends_and_in_a_row() {
        assert_eq!(
            laid_out(200, "\n\na\n\nb\n", Some("application/json")).0,
            "ab"
        );
        assert_eq!(laid_out(200, "ab", Some("application/json")).0, "ab");
    }
}
