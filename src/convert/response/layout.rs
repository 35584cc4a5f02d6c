//! The layout of responses that stay JSON.

use memchr::memmem;

/// Removes newlines in place. JSON strings contain no raw newlines, so only the layout changes.
pub fn remove_newlines(body: &mut Vec<u8>) {
    replace(body, b"\n", b"");
}

/// Removes the backslashes from TensorFlow Serving's `\'instances\'`, which no JSON parser accepts.
pub fn unescape_instances(body: &mut Vec<u8>) {
    replace(body, br"\'instances\'", b"'instances'");
}

/// Replaces each `old` by `new`, which is not longer. Moves each run between them once and allocates nothing.
fn replace(body: &mut Vec<u8>, old: &[u8], new: &[u8]) {
    let finder = memmem::Finder::new(old);
    let (mut kept, mut read) = (0, 0);
    while let Some(at) = finder.find(&body[read..]) {
        body.copy_within(read..read + at, kept);
        kept += at;
        body[kept..kept + new.len()].copy_from_slice(new);
        kept += new.len();
        read += at + old.len();
    }
    body.copy_within(read.., kept);
    kept += body.len() - read;
    body.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(change: fn(&mut Vec<u8>), text: &str) -> String {
        let mut body = text.as_bytes().to_vec();
        change(&mut body);
        String::from_utf8(body).unwrap()
    }

    #[test]
    fn removes_newlines_wherever_they_are() {
        for (text, expected) in [("", ""), ("ab", "ab"), ("\n\na\n\nb\n", "ab"), ("\n", "")] {
            assert_eq!(changed(remove_newlines, text), expected);
        }
    }

    #[test]
    fn unescapes_instances_and_nothing_else() {
        let text = r#"{"error": "of \'instances\' list, \'instances\', \'inputs\' \'instances\"}"#;
        let expected = r#"{"error": "of 'instances' list, 'instances', \'inputs\' \'instances\"}"#;
        assert_eq!(changed(unescape_instances, text), expected);
    }
}
