//! Shortens error responses of TFS to a few KB. Up to version 2.17 some of them quote the whole request: 1 MB of JSON
//! became an error of 16 MB.

/// The longest error body that we pass on. SageMaker shows clients 2,048 characters of it.
pub const MAX_ERROR_BYTES: usize = 4096;

/// Shortens an error body that is longer than [`MAX_ERROR_BYTES`]. `start` is its beginning, and `whole` its length, if
/// known. The result is valid UTF-8, and `{"error": "..."}` stays valid JSON.
pub fn cut(start: &[u8], whole: Option<u64>) -> Vec<u8> {
    let note = match whole {
        Some(bytes) => format!("... (error shortened; it had {bytes} bytes)"),
        None => "... (error shortened)".to_owned(),
    };
    text_of_error(start)
        .and_then(|at| cut_json(start, at, &note))
        .unwrap_or_else(|| cut_text(start, &note))
}

/// Where the text of `{"error": "..."}` begins.
fn text_of_error(body: &[u8]) -> Option<usize> {
    let mut rest = body;
    for token in [b"{".as_slice(), b"\"error\"", b":", b"\""] {
        rest = rest.trim_ascii_start().strip_prefix(token)?;
    }
    Some(body.len() - rest.len())
}

/// Shortens the text of an error that begins at `at`. `None` if the text ends within `body`: then the object has other
/// members, and its text is not what makes it long.
fn cut_json(body: &[u8], mut at: usize, note: &str) -> Option<Vec<u8>> {
    // Keeps the layout of the original.
    let end = if body[..at].contains(&b'\n') {
        "\"\n}"
    } else {
        "\" }"
    };
    let room = MAX_ERROR_BYTES.checked_sub(at + note.len() + end.len())?;
    let limit = at + room;
    let mut out = body[..at].to_vec();
    while let Some(token) = next_token(&body[at..]) {
        let (taken, text) = match token {
            Token::End => return None,
            Token::Kept(length) => (length, &body[at..at + length]),
            Token::Replaced(length, text) => (length, text.as_bytes()),
        };
        if out.len() + text.len() > limit {
            break;
        }
        out.extend_from_slice(text);
        at += taken;
    }
    out.extend_from_slice(note.as_bytes());
    out.extend_from_slice(end.as_bytes());
    Some(out)
}

/// A part of a JSON string.
enum Token {
    /// The closing quote.
    End,
    /// A character or an escape sequence of this many bytes.
    Kept(usize),
    /// This many bytes that are invalid in a JSON string, and their replacement.
    Replaced(usize, &'static str),
}

const REPLACEMENT: &str = "\u{fffd}";

/// The token at the start of `text`; `None` if it is incomplete.
fn next_token(text: &[u8]) -> Option<Token> {
    Some(match *text.first()? {
        b'"' => Token::End,
        b'\\' => match *text.get(1)? {
            b'u' => match code_unit(text)? {
                Some(0xd800..0xdc00) => match text.get(6..8)? {
                    b"\\u" => match code_unit(&text[6..])? {
                        Some(0xdc00..0xe000) => Token::Kept(12),
                        _ => Token::Replaced(6, REPLACEMENT),
                    },
                    _ => Token::Replaced(6, REPLACEMENT),
                },
                Some(0xdc00..0xe000) => Token::Replaced(6, REPLACEMENT),
                Some(_) => Token::Kept(6),
                None => Token::Replaced(2, REPLACEMENT),
            },
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Token::Kept(2),
            // TFS up to 2.2 writes \' for an apostrophe, which is invalid in JSON.
            _ => Token::Replaced(1, ""),
        },
        0..=0x1f => Token::Replaced(1, " "),
        _ => match char_length(text)? {
            0 => Token::Replaced(1, REPLACEMENT),
            length => Token::Kept(length),
        },
    })
}

/// The code unit of an escape `\uXXXX`; `Some(None)` if the escape is invalid, `None` if it is incomplete.
fn code_unit(escape: &[u8]) -> Option<Option<u16>> {
    let digits = str::from_utf8(escape.get(2..6)?).ok();
    let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    Some(digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()))
}

/// The length in bytes of the character at the start of `text`; 0 for invalid UTF-8, `None` for an incomplete
/// character.
fn char_length(text: &[u8]) -> Option<usize> {
    let length = match *text.first()? {
        0..0x80 => 1,
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0..0xf8 => 4,
        _ => return Some(0),
    };
    let bytes = text.get(..length)?;
    Some(str::from_utf8(bytes).map_or(0, |_| length))
}

fn cut_text(body: &[u8], note: &str) -> Vec<u8> {
    let limit = MAX_ERROR_BYTES - note.len();
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(length) = char_length(&body[at..]) {
        let (taken, text) = match length {
            0 => (1, REPLACEMENT.as_bytes()),
            length => (length, &body[at..at + length]),
        };
        if out.len() + text.len() > limit {
            break;
        }
        out.extend_from_slice(text);
        at += taken;
    }
    out.extend_from_slice(note.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn cut_error(body: &str) -> String {
        let body = body.as_bytes();
        let start = &body[..body.len().min(MAX_ERROR_BYTES + 1)];
        String::from_utf8(cut(start, Some(body.len() as u64))).unwrap()
    }

    #[test]
    fn keeps_the_layout_of_an_error() {
        let text = "x".repeat(5000);
        let new = cut_error(&format!("{{\n    \"error\": \"{text}\"\n}}"));
        assert!(new.starts_with("{\n    \"error\": \"xxx"));
        assert!(new.ends_with("xxx... (error shortened; it had 5019 bytes)\"\n}"));
        assert_eq!(new.len(), MAX_ERROR_BYTES);
        let old = cut_error(&format!("{{ \"error\": \"{text}\" }}"));
        assert!(old.ends_with("bytes)\" }"), "{old}");
    }

    #[test]
    fn replaces_invalid_json() {
        let body = format!(
            "{{ \"error\": \"Missing \\'instances\\' \u{1} \\ud800 \\udc00 \\ud83dx \\uzz {}",
            "x".repeat(5000)
        );
        let json: Value = serde_json::from_str(&cut_error(&body)).unwrap();
        let text = json["error"].as_str().unwrap();
        let start = "Missing 'instances'   \u{fffd} \u{fffd} \u{fffd}x \u{fffd}zz xx";
        assert!(text.starts_with(start), "{text}");
    }

    #[test]
    fn shortens_other_bodies_as_plain_text() {
        let long = "x".repeat(5000);
        for body in [
            long.clone(),
            format!("{{\"error\": \"short\", \"document\": \"{long}\"}}"),
            format!("{{\"errors\": \"{long}\"}}"),
            format!("[{long}"),
        ] {
            let text = cut_error(&body);
            assert!(text.starts_with(&body[..100]));
            assert!(
                text.ends_with("bytes)") && text.len() <= MAX_ERROR_BYTES,
                "{text}"
            );
        }
        let binary = cut(&[0xff; MAX_ERROR_BYTES + 1], None);
        assert!(
            String::from_utf8(binary)
                .unwrap()
                .ends_with("(error shortened)")
        );
    }

    proptest! {
        #[test]
        fn an_error_with_any_text_stays_valid_json(
            text in "([ -~\u{e9}\u{20ac}\u{1f600}\n\u{1}]|\\\\){1,40}",
            escape_all: bool,
            shift in 0..16usize,
        ) {
            let text = "a".repeat(shift) + &text.repeat(5000 / text.len() + 1);
            let mut escaped = Value::from(text.as_str()).to_string();
            if escape_all {
                let units: Vec<_> = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
                escaped = format!("\"{}\"", units.concat());
            }
            let cut = cut_error(&format!("{{\n    \"error\": {escaped}\n}}"));
            prop_assert!(cut.len() <= MAX_ERROR_BYTES && cut.len() > MAX_ERROR_BYTES - 20);
            let json: Value = serde_json::from_str(&cut).unwrap();
            let (start, _) = json["error"].as_str().unwrap().rsplit_once("... (").unwrap();
            prop_assert!(text.starts_with(start));
        }

        #[test]
        fn any_bytes_become_valid_utf8(bytes in prop::collection::vec(any::<u8>(), 0..300), as_error: bool) {
            let head: &[u8] = if as_error { b"{\"error\": \"" } else { b"" };
            let body = [head, &bytes.repeat(5000 / (bytes.len() + 1) + 1)].concat();
            let cut = cut(&body[..body.len().min(MAX_ERROR_BYTES + 1)], None);
            prop_assert!(String::from_utf8(cut).unwrap().len() <= MAX_ERROR_BYTES);
        }
    }
}
