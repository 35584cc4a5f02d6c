//! What the conversions of a handler script need to know, as text: the server sends it with each call to scripts that
//! convert.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{CsvHeader, CsvRow};
use crate::convert::request::{Rows, Target};
use crate::convert::signature::Signature;

/// The settings of the conversions of one request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Settings<'a> {
    rows: Rows,
    #[serde(borrow)]
    signature_name: Option<Cow<'a, str>>,
    signature: Option<Cow<'a, Signature>>,
    csv_header: CsvHeader,
    csv_row: CsvRow,
    /// Media type of a response to a request that does not care.
    #[serde(borrow)]
    pub default_accept: Option<Cow<'a, str>>,
    /// The most memory that one conversion may use, bytes.
    pub memory: usize,
}

/// The memory for a conversion when the server does not say.
const DEFAULT_MEMORY: usize = 1 << 30;

impl<'a> Settings<'a> {
    /// The settings of a request with this target.
    pub fn new(target: &'a Target, default_accept: Option<&'a str>, memory: usize) -> Self {
        Self {
            rows: target.rows,
            signature_name: target.signature_name.as_deref().map(Cow::Borrowed),
            signature: target.signature.as_deref().map(Cow::Borrowed),
            csv_header: target.csv_header,
            csv_row: target.csv_row,
            default_accept: default_accept.map(Cow::Borrowed),
            memory,
        }
    }

    /// The settings as text.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("names and numbers can be written")
    }

    /// Reads the text. Without one, or with one that is not from the server, nothing is known.
    pub fn of(text: Option<&'a str>) -> Self {
        let parsed = text.and_then(|text| serde_json::from_str(text).ok());
        parsed.unwrap_or(Self {
            rows: Rows::default(),
            signature_name: None,
            signature: None,
            csv_header: CsvHeader::default(),
            csv_row: CsvRow::default(),
            default_accept: None,
            memory: DEFAULT_MEMORY,
        })
    }

    /// The target of the request.
    pub fn target(self) -> Target {
        Target {
            rows: self.rows,
            signature_name: self.signature_name.map(Cow::into_owned),
            signature: self
                .signature
                .map(|signature| Arc::new(signature.into_owned())),
            is_deferred: false,
            csv_header: self.csv_header,
            csv_row: self.csv_row,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::signature::Dtype;
    use crate::convert::signature::testing::{signature, tensor};

    #[test]
    fn text_has_all_settings() {
        let target = Target {
            rows: Rows::Examples,
            signature_name: Some("a\"b".to_owned()),
            signature: Some(signature(
                vec![tensor("x", Dtype::Int8, &[-1, 3])],
                vec![tensor("y\"", Dtype::String, &[-1])],
            )),
            is_deferred: false,
            csv_header: CsvHeader::Auto,
            csv_row: CsvRow::String,
        };
        let text = Settings::new(&target, Some("text/csv"), 7).to_text();
        let read = Settings::of(Some(&text));
        assert_eq!(read.default_accept.as_deref(), Some("text/csv"));
        assert_eq!(read.memory, 7);
        assert_eq!(format!("{:?}", read.target()), format!("{target:?}"));
        for nothing in [None, Some(""), Some("{}")] {
            let target = Settings::of(nothing).target();
            assert_eq!(format!("{target:?}"), format!("{:?}", Target::default()));
        }
    }
}
