//! The rule for names of models.
//!
//! The whole program uses this one rule. Names come from settings, folders, headers and requests to load a model, and
//! go into URLs, paths and config files, where valid names need no escaping. `config` is the lowest layer that needs
//! the rule.

/// Maximum length of a name, bytes.
const MAX_LENGTH: usize = 255;

/// Whether `name` is a valid name of a model: `[A-Za-z0-9][A-Za-z0-9._-]{0,254}`.
pub fn is_model_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() <= MAX_LENGTH
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_names_that_need_no_escaping() {
        for name in ["a", "7", "half_plus_two", "a.b-c_1", &"a".repeat(255)] {
            assert!(is_model_name(name), "{name}");
        }
        for name in [
            "",
            ".x",
            "-x",
            "_x",
            "../x",
            "a/b",
            "a=b",
            "a b",
            "a%20",
            "\u{e9}",
            "\u{661}",
            &"a".repeat(256),
        ] {
            assert!(!is_model_name(name), "{name}");
        }
    }
}
