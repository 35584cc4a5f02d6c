//! Formats of values: each has a parser, and a description of accepted values for messages and documents. Both stand
//! together, and a range is written once for both.

use std::time::Duration;

/// The format of a setting's value.
pub struct Format<T> {
    /// Accepted values, as a noun phrase: "a port number from 1 to 65535".
    pub accepts: &'static str,
    /// Parses a trimmed text; `None` when the format does not accept it.
    pub parse: fn(&str) -> Option<T>,
}

/// The format of a whole number in a range. `accepts` consists of the first text, the range, and the second text if
/// given.
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

/// `true` or `false`.
pub const BOOL: Format<bool> = Format {
    accepts: "true or false, in any case",
    parse: |text| match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    },
};

/// A positive number that fits into 31 bits, as TensorFlow Serving's flags and parameters need.
pub const POSITIVE: Format<u32> = whole!("a whole number", 1..=2147483647);
/// The same, or 0.
pub const NOT_NEGATIVE: Format<u32> = whole!("a whole number", 0..=2147483647);
/// A number of processes or threads.
pub const UP_TO_1000: Format<u32> = whole!("a whole number", 1..=1000);

const WHOLE_SECONDS: Format<u32> = whole!("a whole number of seconds", 1..=86400);
/// A time of up to a day.
pub const SECONDS: Format<Duration> = Format {
    accepts: WHOLE_SECONDS.accepts,
    parse: |text| (WHOLE_SECONDS.parse)(text).map(|n| Duration::from_secs(n.into())),
};

const PORT_NUMBER: Format<u32> = whole!("a port number", 1..=65535);
/// A port, except 0.
pub const PORT: Format<u16> = Format {
    accepts: PORT_NUMBER.accepts,
    parse: |text| (PORT_NUMBER.parse)(text).and_then(|n| u16::try_from(n).ok()),
};

/// Any text that is not empty; `accepts` describes it.
pub const fn text<T: From<String>>(accepts: &'static str) -> Format<T> {
    Format {
        accepts,
        parse: |text| (!text.is_empty()).then(|| text.to_owned().into()),
    }
}

/// Parses decimal digits only; `u32::from_str` alone would also accept `+5`.
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
    fn accepts_digits_within_the_documented_range() {
        assert_range(&POSITIVE, ["1", "2147483647"], ["0", "2147483648"]);
        assert_range(&NOT_NEGATIVE, ["0", "2147483647"], ["x", "2147483648"]);
        assert_range(&UP_TO_1000, ["1", "1000"], ["0", "1001"]);
        assert_range(&SECONDS, ["1", "86400"], ["0", "86401"]);
        assert_range(&PORT, ["1", "65535"], ["0", "65536"]);
        assert_eq!((SECONDS.parse)("90"), Some(Duration::from_secs(90)));
        assert_eq!((PORT.parse)("08080"), Some(8080));
    }

    #[test]
    fn accepts_true_and_false_in_any_case() {
        for (text, value) in [("true", true), ("True", true), ("FALSE", false)] {
            assert_eq!((BOOL.parse)(text), Some(value), "{text}");
        }
        for text in ["", "1", "yes", "on"] {
            assert_eq!((BOOL.parse)(text), None, "{text}");
        }
    }

    #[test]
    fn refuses_an_empty_text() {
        let format: Format<String> = text("a directory");
        assert_eq!((format.parse)("/a b"), Some("/a b".to_owned()));
        assert_eq!((format.parse)(""), None);
    }
}
