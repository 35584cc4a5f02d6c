//! What a conversion may know about the model that its result is for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::budget::{Buffer, NoRoom};
use crate::config::FormatConfig;
pub use crate::config::{CsvHeader as Header, CsvRow as Row};
use crate::convert::signature::{Choice, Signature, Tensor};

/// The request that a body is converted to.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// The key of the rows.
    pub rows: Rows,
    /// The signature that the request names.
    pub signature_name: Option<String>,
    /// That signature, or the default one; `None` if it is not known.
    pub signature: Option<Arc<Signature>>,
    /// Whether the signature has not been looked up. Conversions of JSON then ask for it where it decides.
    pub is_deferred: bool,
    /// Whether CSV without an announcement has a header line.
    pub csv_header: Header,
    /// How rows of CSV are read.
    pub csv_row: Row,
}

/// Whether a body has been converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Conversion {
    /// It has.
    Done,
    /// It has not: the signature decides, and has not been looked up.
    NeedsSignature,
}

/// The member of a request that holds its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Rows {
    /// `instances`, of predict.
    #[default]
    Instances,
    /// `examples`, of classify and regress.
    Examples,
}

impl Rows {
    /// The key in JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::Instances => "instances",
            Self::Examples => "examples",
        }
    }
}

impl Target {
    /// A target with these settings. Without a choice, the signature has not been looked up.
    pub fn new(config: &FormatConfig, rows: Rows, choice: Option<Choice>) -> Self {
        let is_deferred = choice.is_none();
        let choice = choice.unwrap_or_default();
        Self {
            rows,
            signature_name: choice.name,
            signature: choice.signature,
            is_deferred,
            csv_header: config.csv_header,
            csv_row: config.csv_row,
        }
    }

    /// The only input of a predict request, if the signature is known and has just one.
    pub fn only_input(&self) -> Option<&Tensor> {
        match self.signature.as_deref()?.inputs.as_slice() {
            [input] if self.rows == Rows::Instances => Some(input),
            _ => None,
        }
    }

    /// The text of the request up to its rows: `{"signature_name": "s", "instances": `. Rows follow as a list, and
    /// then `}`.
    pub fn opening(&self) -> String {
        self.opening_with(self.rows.key())
    }

    /// The same with another key in place of the rows': `inputs`.
    pub fn opening_with(&self, key: &str) -> String {
        match &self.signature_name {
            Some(name) => format!("{{{}\"{key}\": ", member(name)),
            None => format!("{{\"{key}\": "),
        }
    }

    /// The member that names the signature, with a comma, if the request names one.
    pub fn signature_member(&self) -> Option<String> {
        self.signature_name.as_deref().map(member)
    }
}

fn member(signature_name: &str) -> String {
    let name = serde_json::Value::from(signature_name);
    format!("\"signature_name\": {name}, ")
}

/// Writes this UTF-8 text as the content of a JSON string, without the quotes.
pub fn escape(text: &[u8], out: &mut Buffer) -> Result<(), NoRoom> {
    let mut rest = text;
    while let Some(at) = rest
        .iter()
        .position(|&b| b < b' ' || b == b'"' || b == b'\\')
    {
        out.extend(&rest[..at])?;
        match rest[at] {
            b'"' => out.extend(b"\\\"")?,
            b'\\' => out.extend(b"\\\\")?,
            b'\n' => out.extend(b"\\n")?,
            b'\r' => out.extend(b"\\r")?,
            b'\t' => out.extend(b"\\t")?,
            control => out.extend(format!("\\u{control:04x}").as_bytes())?,
        }
        rest = &rest[at + 1..];
    }
    out.extend(rest)
}
