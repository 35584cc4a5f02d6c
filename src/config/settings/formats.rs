//! Settings of the formats of requests and responses.

use serde::{Deserialize, Serialize};

use super::format::{Format, text};
use super::reader::Reader;
use super::{Group, TypedSetting, setting};

settings! {
    "Formats of requests and responses":

    /// Signature for requests that name none in `tfs-signature-name` or in their JSON.
    DEFAULT_SIGNATURE: String = setting("SAGEMAKER_TFS_DEFAULT_SIGNATURE", text("the name of a signature"))
        .unset_means("`serving_default`");

    /// Whether CSV begins with a header line when its content type does not say `header=present` or `header=absent`.
    /// With `auto`, a first line that cannot be data is a header.
    CSV_HEADER: CsvHeader = setting("SAGEMAKER_TFS_CSV_HEADER", CSV_HEADER_FORMAT).default("absent");

    /// How rows of CSV are read: as the model's signature says (`signature`), without it, by how each field is written
    /// (`fields`), or, for models with one string input, each row as one string (`string`).
    CSV_ROW: CsvRow = setting("SAGEMAKER_TFS_CSV_ROW", CSV_ROW_FORMAT).default("signature");

    /// Format of responses to requests without `Accept`, or with one that accepts anything.
    DEFAULT_ACCEPT: String = setting("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", MEDIA_TYPE)
        .unset_means("JSON as TensorFlow Serving writes it");
}

/// Whether CSV begins with a header line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CsvHeader {
    /// It does not.
    #[default]
    Absent,
    /// It does.
    Present,
    /// If the first line cannot be data.
    Auto,
}

/// How rows of CSV are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CsvRow {
    /// As the signature says.
    #[default]
    Signature,
    /// As without a signature: by how each field is written.
    Fields,
    /// Each row as one string, if the model has one string input.
    String,
}

/// The settings of this group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatConfig {
    /// Signature for requests that name none; `None`: TensorFlow Serving's default.
    pub default_signature: Option<String>,
    /// Whether CSV that does not say so begins with a header line.
    pub csv_header: CsvHeader,
    /// How rows of CSV are read.
    pub csv_row: CsvRow,
    /// Media type of responses to requests that do not care, one of [`DEFAULT_ACCEPT_TYPES`].
    pub default_accept: Option<&'static str>,
}

impl FormatConfig {
    /// Reads the settings.
    pub fn read(r: &mut Reader) -> Self {
        let accept = r.optional(&DEFAULT_ACCEPT);
        Self {
            default_signature: r.optional(&DEFAULT_SIGNATURE),
            csv_header: r.value(&CSV_HEADER),
            csv_row: r.value(&CSV_ROW),
            default_accept: accept.and_then(|text| media_type(&text)),
        }
    }
}

const CSV_HEADER_FORMAT: Format<CsvHeader> = Format {
    accepts: "absent, present or auto",
    parse: |text| {
        Some(match text.to_ascii_lowercase().as_str() {
            "absent" => CsvHeader::Absent,
            "present" => CsvHeader::Present,
            "auto" => CsvHeader::Auto,
            _ => return None,
        })
    },
};

const CSV_ROW_FORMAT: Format<CsvRow> = Format {
    accepts: "signature, fields or string",
    parse: |text| {
        Some(match text.to_ascii_lowercase().as_str() {
            "signature" => CsvRow::Signature,
            "fields" => CsvRow::Fields,
            "string" => CsvRow::String,
            _ => return None,
        })
    },
};

/// The values of `SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT`.
pub const DEFAULT_ACCEPT_TYPES: [&str; 7] = [
    "application/json",
    "application/jsonlines",
    "application/x-ndjson",
    "text/csv",
    "text/csv; header=present",
    "application/x-npy",
    "application/x-npz",
];

const MEDIA_TYPE: Format<String> = Format {
    accepts: "application/json, application/jsonlines, application/x-ndjson, text/csv, text/csv; header=present, \
              application/x-npy or application/x-npz",
    parse: |text| media_type(text).map(str::to_owned),
};

/// The one of [`DEFAULT_ACCEPT_TYPES`] that this text means; case and spaces around `;` and `=` do not matter.
fn media_type(text: &str) -> Option<&'static str> {
    let trimmed = |text: &str, separator: &str| {
        text.split(separator)
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(separator)
    };
    let normal = |text: &str| trimmed(&trimmed(&text.to_ascii_lowercase(), ";"), "=");
    let wanted = normal(text);
    let mut types = DEFAULT_ACCEPT_TYPES.into_iter();
    types.find(|known| normal(known) == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{assert_accepts_words, assert_refuses, read};

    #[test]
    fn reads_defaults() {
        assert_eq!(
            read(&[]).unwrap().formats,
            FormatConfig {
                default_signature: None,
                csv_header: CsvHeader::Absent,
                csv_row: CsvRow::Signature,
                default_accept: None,
            }
        );
    }

    #[test]
    fn refuses_wrong_values() {
        assert_refuses(&DEFAULT_SIGNATURE, &[" "]);
        assert_refuses(&CSV_HEADER, &["true", "yes"]);
        assert_refuses(&CSV_ROW, &["list", "strings"]);
        assert_refuses(
            &DEFAULT_ACCEPT,
            &[
                "csv",
                "text/plain",
                "*/*",
                "tex t/csv",
                "text/csv, application/json",
            ],
        );
    }

    #[test]
    fn accepts_all_words_and_media_types() {
        assert_accepts_words(&CSV_HEADER);
        assert_accepts_words(&CSV_ROW);
        for media_type in DEFAULT_ACCEPT_TYPES {
            assert_eq!(
                DEFAULT_ACCEPT.parse(media_type).as_deref(),
                Some(media_type)
            );
            assert!(DEFAULT_ACCEPT.accepts.contains(media_type));
        }
        let config = read(&[(
            "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT",
            "Text/CSV ;header = present",
        )]);
        assert_eq!(
            config.unwrap().formats.default_accept,
            Some("text/csv; header=present")
        );
    }
}
