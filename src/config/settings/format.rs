//! Formats of values: parsing a text, and describing what is accepted for messages and documents. Parser and description
//! stand together, and a range is written once for both.

use std::time::Duration;

/// How the value of a setting is written.
pub struct Format<T> {
    /// What is accepted, as a noun phrase: "a port number from 1 to 65535".
    pub accepts: &'static str,
    /// Parses a trimmed text; `None` when it is not accepted.
    pub parse: fn(&str) -> Option<T>,
}

/// A whole number in a range. `accepts` is the first text, the range and the optional second text.
macro_rules! whole {
    ($what:literal, $low:literal..=$high:literal $(, $more:literal)?) => {
        $crate::config::settings::format::Format {
            accepts: concat!($what, " from ", $low, " to ", $high $(, $more)?),
            parse: |text| {
                let number = $crate::config::settings::format::whole_number(text);
                number.filter(|number| ($low..=$high).contains(number))
            },
        }
    };
}

pub(super) use whole;

pub const BOOL: Format<bool> = Format {
    accepts: "true or false, in any case",
    parse: |text| match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    },
};

pub const POSITIVE: Format<u32> = whole!("a whole number", 1..=2147483647);
pub const NOT_NEGATIVE: Format<u32> = whole!("a whole number", 0..=2147483647);
pub const UP_TO_1000: Format<u32> = whole!("a whole number", 1..=1000);

const WHOLE_SECONDS: Format<u32> = whole!("a whole number of seconds", 1..=86400);
pub const SECONDS: Format<Duration> = Format {
    accepts: WHOLE_SECONDS.accepts,
    parse: |text| (WHOLE_SECONDS.parse)(text).map(|n| Duration::from_secs(n.into())),
};

const PORT_NUMBER: Format<u32> = whole!("a port number", 1..=65535);
pub const PORT: Format<u16> = Format {
    accepts: PORT_NUMBER.accepts,
    parse: |text| (PORT_NUMBER.parse)(text).and_then(|n| u16::try_from(n).ok()),
};

/// Any text that is not empty; `accepts` says what it is.
pub const fn text<T: From<String>>(accepts: &'static str) -> Format<T> {
    Format {
        accepts,
        parse: |text| (!text.is_empty()).then(|| text.to_owned().into()),
    }
}

/// Decimal digits only: `u32::from_str` alone would also take `+5`.
pub fn whole_number(text: &str) -> Option<u32> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_range<T>(format: &Format<T>, accepted: [&str; 2], refused: [&str; 2]) {
        for text in accepted {
            assert!((format.parse)(text).is_some(), "{text}");
            assert!(format.accepts.contains(text), "{}", format.accepts);
        }
        for text in refused.into_iter().chain([
            "",
            "-1",
            "+5",
            "1.5",
            "1 ",
            "two",
            "\u{661}",
            "99999999999",
        ]) {
            assert!((format.parse)(text).is_none(), "{text}");
        }
    }

    #[test]
    fn numbers_are_digits_within_the_range_that_is_named() {
        assert_range(&POSITIVE, ["1", "2147483647"], ["0", "2147483648"]);
        assert_range(&NOT_NEGATIVE, ["0", "2147483647"], ["x", "2147483648"]);
        assert_range(&UP_TO_1000, ["1", "1000"], ["0", "1001"]);
        assert_range(&SECONDS, ["1", "86400"], ["0", "86401"]);
        assert_range(&PORT, ["1", "65535"], ["0", "65536"]);
        assert_eq!((SECONDS.parse)("90"), Some(Duration::from_secs(90)));
        assert_eq!((PORT.parse)("08080"), Some(8080));
    }

    #[test]
    fn switches_are_words_in_any_case() {
        for (text, value) in [("true", true), ("True", true), ("FALSE", false)] {
            assert_eq!((BOOL.parse)(text), Some(value), "{text}");
        }
        for text in ["", "1", "yes", "on"] {
            assert_eq!((BOOL.parse)(text), None, "{text}");
        }
    }

    #[test]
    fn a_text_is_not_empty() {
        let format: Format<String> = text("a directory");
        assert_eq!((format.parse)("/a b"), Some("/a b".to_owned()));
        assert_eq!((format.parse)(""), None);
    }
}
