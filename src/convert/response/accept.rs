//! Chooses the format of a response by the request's header `Accept` (RFC 9110, section 12.5.1).

use std::cmp::Reverse;

use crate::convert::media_type::split;
use crate::error::{RequestError, shown};

/// The media types that responses have, for messages.
pub const ACCEPTED: &str = "application/json, application/jsonlines, application/x-ndjson, text/csv, application/x-npy, application/x-npz";

/// The format of a response with status 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// TensorFlow Serving's JSON: as it is, or on one line.
    Json {
        /// Without line ends.
        one_line: bool,
    },
    /// A line of JSON for each instance.
    JsonLines {
        /// Whether the content type is `application/x-ndjson` rather than `application/jsonlines`.
        ndjson: bool,
    },
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
    /// All formats in the order in which the server prefers them.
    const ALL: [Self; 7] = [
        Self::Json { one_line: true },
        Self::JsonLines { ndjson: false },
        Self::JsonLines { ndjson: true },
        Self::Csv { header: false },
        Self::Csv { header: true },
        Self::Npy,
        Self::Npz,
    ];

    /// Chooses the format for the header `Accept`: the one of the highest quality; of equals, one that is named rather
    /// than included by a wildcard such as `*/*`; then the one that is listed first. `default` applies without a header,
    /// and wherever only a wildcard matches.
    ///
    /// # Errors
    /// 406 if the header accepts no supported format.
    pub fn negotiate(accept: Option<&str>, default: Self) -> Result<Self, RequestError> {
        let header = accept.unwrap_or_default();
        if header.bytes().all(|b| matches!(b, b' ' | b'\t' | b',')) {
            return Ok(default);
        }
        let matches = best_matches(header);
        let offers = matches.into_iter().zip(Self::ALL).enumerate();
        let offers = offers.filter_map(|(order, (found, format))| {
            let Match { index, range, .. } = found.filter(|found| found.range.quality > 0)?;
            let is_default = format.is_same_type(default);
            // `text/csv` says nothing about the header line, so the default decides that, too.
            let is_preferred = is_default && (!range.is_named() || format.is_csv());
            let rank = (
                range.quality,
                range.is_named(),
                Reverse(index),
                is_preferred,
                Reverse(order),
            );
            let chosen = match format {
                Self::Json { .. } if range.is_named() => format,
                Self::Json { .. } if is_default => default,
                Self::Json { .. } => Self::Json { one_line: false },
                _ => format,
            };
            Some((rank, chosen))
        });
        let best = offers.max_by_key(|(rank, _)| *rank);
        best.map(|(_, format)| format).ok_or_else(|| {
            let text = format!("Not Acceptable: {}; available: {ACCEPTED}.", shown(header));
            RequestError::new(406, text)
        })
    }

    /// Reads the value of a setting: one media type. `text/csv` may have the parameter `header=present` or
    /// `header=absent`; no other parameter is allowed.
    pub fn parse_default(text: &str) -> Option<Self> {
        let range = Range::parse(text)?;
        let parameters = split(text, b';').count() - 1;
        if !range.is_named() || parameters > usize::from(range.header.is_some()) {
            return None;
        }
        let format = Self::ALL
            .into_iter()
            .find(|&f| range.specificity(f).is_some())?;
        Some(match format {
            Self::Json { .. } => Self::Json { one_line: false },
            format => format,
        })
    }

    /// The format of responses to requests that do not care, by such a setting; JSON as TensorFlow Serving writes it
    /// without one.
    pub fn default_of(setting: Option<&str>) -> Self {
        let format = setting.and_then(Self::parse_default);
        format.unwrap_or(Self::Json { one_line: false })
    }

    /// Whether the conversion reads the model's signature: for names of columns, and for types of arrays.
    pub fn needs_signature(self) -> bool {
        matches!(self, Self::Csv { header: true } | Self::Npy | Self::Npz)
    }

    /// The content type of a response in this format. [`Accepted::Npy`] becomes [`Accepted::Npz`] for several outputs.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json { .. } => "application/json",
            Self::JsonLines { ndjson: false } => "application/jsonlines",
            Self::JsonLines { ndjson: true } => "application/x-ndjson",
            Self::Csv { header: false } => "text/csv",
            Self::Csv { header: true } => "text/csv; header=present",
            Self::Npy => "application/x-npy",
            Self::Npz => "application/x-npz",
        }
    }

    /// The types and subtypes that name the format. The first is the one that a range with a wildcard matches.
    fn names(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Json { .. } => &[("application", "json")],
            Self::JsonLines { ndjson: false } => {
                &[("application", "jsonlines"), ("application", "jsons")]
            }
            Self::JsonLines { ndjson: true } => &[("application", "x-ndjson")],
            Self::Csv { .. } => &[("text", "csv"), ("application", "csv")],
            Self::Npy => &[("application", "x-npy")],
            Self::Npz => &[("application", "x-npz")],
        }
    }

    fn is_csv(self) -> bool {
        matches!(self, Self::Csv { .. })
    }

    /// Whether both are the same format, whatever the layout of JSON.
    fn is_same_type(self, other: Self) -> bool {
        self == other || matches!((self, other), (Self::Json { .. }, Self::Json { .. }))
    }
}

/// The range that decides the quality of a format.
#[derive(Debug, Clone, Copy)]
struct Match<'a> {
    specificity: u8,
    /// The place in the header, from 0.
    index: usize,
    range: Range<'a>,
}

/// For each format the most specific range that matches it; of equals, the first.
fn best_matches(header: &str) -> [Option<Match<'_>>; Accepted::ALL.len()] {
    let mut matches = [None; Accepted::ALL.len()];
    for (index, entry) in split(header, b',').enumerate() {
        let Some(range) = Range::parse(entry) else {
            continue;
        };
        for (best, format) in matches.iter_mut().zip(Accepted::ALL) {
            if let Some(specificity) = range.specificity(format)
                && best.is_none_or(|best: Match| specificity > best.specificity)
            {
                *best = Some(Match {
                    specificity,
                    index,
                    range,
                });
            }
        }
    }
    matches
}

/// An entry of the header.
#[derive(Debug, Clone, Copy)]
struct Range<'a> {
    /// The type and subtype in any case; either may be `*`.
    names: (&'a str, &'a str),
    /// What the parameter `header` says.
    header: Option<bool>,
    /// In thousandths.
    quality: u16,
}

impl<'a> Range<'a> {
    /// Reads an entry such as `text/csv;header=present;q=0.5`. `None` if it is no media range.
    fn parse(entry: &'a str) -> Option<Self> {
        let mut parts = split(entry, b';');
        let (main, sub) = parts.next()?.trim().split_once('/')?;
        let is_token = |text: &str| !text.is_empty() && text.bytes().all(is_token_byte);
        if !is_token(main) || !is_token(sub) || (main == "*" && sub != "*") {
            return None;
        }
        let mut range = Self {
            names: (main, sub),
            header: None,
            quality: 1000,
        };
        for part in parts {
            // Parameters without a meaning here, such as a charset, do not matter.
            let Some((name, value)) = part.split_once('=') else {
                continue;
            };
            let value = value.trim().trim_matches('"');
            let is = |known: &str| name.trim().eq_ignore_ascii_case(known);
            if is("q") {
                range.quality = thousandths(value)?;
                // Parameters after the quality are no part of the media type.
                break;
            }
            if is("header") && sub.eq_ignore_ascii_case("csv") {
                let present = value.eq_ignore_ascii_case("present");
                let is_known = present || value.eq_ignore_ascii_case("absent");
                if !is_known || *range.header.get_or_insert(present) != present {
                    return None;
                }
            }
        }
        Some(range)
    }

    /// Whether the range has no wildcard.
    fn is_named(&self) -> bool {
        self.names.1 != "*"
    }

    /// How closely the range describes the format. `None` if it does not match.
    fn specificity(&self, format: Accepted) -> Option<u8> {
        let (main, sub) = self.names;
        let is = |name: &(&str, &str)| {
            name.0.eq_ignore_ascii_case(main) && name.1.eq_ignore_ascii_case(sub)
        };
        let names = format.names();
        match self.header {
            _ if main == "*" => Some(0),
            _ if sub == "*" => names[0].0.eq_ignore_ascii_case(main).then_some(1),
            _ if !names.iter().any(is) => None,
            None => Some(2),
            Some(header) => (format == Accepted::Csv { header }).then_some(3),
        }
    }
}

/// Whether a byte may occur in a token (RFC 9110, section 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A quality between 0 and 1 in thousandths; further digits do not count.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if text.is_empty() || text == "." || !digits(fraction) {
        return None;
    }
    let whole = match whole {
        "" | "0" => 0,
        "1" => 1000,
        _ => return None,
    };
    let places = fraction.bytes().zip([100, 10, 1]);
    let fraction: u16 = places
        .map(|(digit, place)| u16::from(digit - b'0') * place)
        .sum();
    Some(whole + fraction).filter(|&quality| quality <= 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: Accepted = Accepted::Json { one_line: false };
    const LINE: Accepted = Accepted::Json { one_line: true };
    const LINES: Accepted = Accepted::JsonLines { ndjson: false };
    const NDJSON: Accepted = Accepted::JsonLines { ndjson: true };
    const CSV: Accepted = Accepted::Csv { header: false };
    const TABLE: Accepted = Accepted::Csv { header: true };
    const NPY: Accepted = Accepted::Npy;
    const NPZ: Accepted = Accepted::Npz;

    #[track_caller]
    fn check(default: Accepted, cases: &[(&str, Accepted)]) {
        for &(accept, expected) in cases {
            assert_eq!(
                Accepted::negotiate(Some(accept), default),
                Ok(expected),
                "{accept:?}"
            );
        }
    }

    #[test]
    fn names_choose_formats() {
        check(
            RAW,
            &[
                ("application/json", LINE),
                ("Application/JSON;charset=utf-8", LINE),
                ("text/plain, application/json;q=0.5", LINE),
                ("application/json,application/jsonlines", LINE),
                ("application/jsonlines, application/json", LINES),
                ("application/jsons", LINES),
                ("application/x-ndjson", NDJSON),
                ("text/csv", CSV),
                ("application/csv", CSV),
                ("text/csv; Header=Present", TABLE),
                ("text/csv; header=\"present\"; q=1", TABLE),
                ("text/csv; header=absent", CSV),
                ("application/x-npy", NPY),
                ("application/x-npz,application/x-npy", NPZ),
                ("text/plain;a=\"x,text/csv\", application/x-npy", NPY),
                ("text/plain;a=\"\\\",text/csv\", application/x-npy", NPY),
            ],
        );
    }

    #[test]
    fn quality_decides_first_then_the_order_of_the_header() {
        check(
            RAW,
            &[
                ("application/json;q=0.1, text/csv;q=0.2", CSV),
                ("application/json;q=0.1, text/csv;q=0.1", LINE),
                ("text/csv;q=.5, application/x-npy; Q=0.51", NPY),
                ("text/csv;q=0, application/x-npy;q=0.001", NPY),
                ("text/csv;q=1.0000", CSV),
                ("*/*;q=0.1, text/csv", CSV),
                ("text/csv;q=0.5, */*", RAW),
                ("*/*, application/json;q=0", LINES),
                ("application/*;q=0.5, application/json;q=0.4", LINES),
                ("text/*, text/csv;header=present;q=0.5", CSV),
                ("text/*, text/csv;header=absent;q=0", TABLE),
                ("text/csv;q=0.5;header=present", CSV),
            ],
        );
    }

    #[test]
    fn wildcards_and_missing_headers_give_the_default() {
        for default in [RAW, LINE, LINES, NDJSON, CSV, TABLE, NPY, NPZ] {
            assert_eq!(Accepted::negotiate(None, default), Ok(default));
            check(
                default,
                &[
                    ("", default),
                    (" ,, ", default),
                    ("*/*", default),
                    ("text/html, */*;q=0.8", default),
                    ("application/json, */*", LINE),
                ],
            );
        }
        check(RAW, &[("application/*", RAW), ("text/*", CSV)]);
        check(LINE, &[("application/*", LINE)]);
        check(
            CSV,
            &[("application/*", RAW), ("application/*, text/*", RAW)],
        );
        check(
            TABLE,
            &[
                ("text/*", TABLE),
                ("text/csv", TABLE),
                ("text/csv;header=absent", CSV),
            ],
        );
        check(NPZ, &[("application/*", NPZ), ("application/x-npy", NPY)]);
    }

    #[test]
    fn other_headers_are_not_acceptable() {
        for accept in [
            "text/html",
            "application/json;q=0",
            "*/*;q=0",
            "json",
            "*",
            "*/json",
            "application/json;q=2",
            "application/json;q=-1",
            "application/json;q=1.001",
            "text/csv;header=maybe",
            "text/csv;header=present;header=absent",
            "/",
            "application/",
            "a b/json",
        ] {
            let error = Accepted::negotiate(Some(accept), RAW).unwrap_err();
            assert_eq!(error.status, 406, "{accept}");
            assert_eq!(
                error.text,
                format!("Not Acceptable: {accept:?}; available: {ACCEPTED}.")
            );
        }
        let long = "x\"\u{1}".repeat(10_000);
        let error = Accepted::negotiate(Some(&long), RAW).unwrap_err();
        assert!(error.text.len() < 500, "{error}");
    }

    #[test]
    fn settings_name_one_type() {
        for (text, expected) in [
            ("application/json", RAW),
            (" Application/JsonLines ", LINES),
            ("application/x-ndjson", NDJSON),
            ("text/csv", CSV),
            ("text/csv;header=present", TABLE),
            ("text/csv; header=absent", CSV),
            ("application/x-npy", NPY),
            ("application/x-npz", NPZ),
        ] {
            assert_eq!(Accepted::parse_default(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "json",
            "*/*",
            "text/*",
            "text/html",
            "text/csv, application/json",
            "text/csv;header=x",
            "text/csv;q=0.5",
            "text/csv;charset=utf-8",
            "application/json;header=present",
        ] {
            assert_eq!(Accepted::parse_default(text), None, "{text}");
        }
    }

    #[test]
    fn content_types_name_their_format() {
        for format in Accepted::ALL {
            let named = Accepted::negotiate(Some(format.content_type()), RAW);
            assert_eq!(named, Ok(format));
            assert!(ACCEPTED.contains(format.content_type().split(';').next().unwrap()));
        }
    }
}
