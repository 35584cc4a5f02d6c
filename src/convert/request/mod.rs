//! From a client's body to the body of a request to TensorFlow Serving's REST API.
//!
//! This file chooses the conversion for a content type; each format has its own file. A new format is a variant of
//! [`Format`], a line in [`Format::of`] and [`Format::to_tfs`], and a file.

pub mod csv;
pub mod encoding;
pub mod json;
pub mod npy;
mod npz;
pub mod records;
mod target;

use crate::budget::Buffer;
use crate::convert::media_type::split;
use crate::error::{RequestError, shown};

pub use self::target::{Conversion, Header, Row, Rows, Target};

/// The format of a request's body, which decides the conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON, JSON lines or concatenated JSON values; the conversion recognizes the form by the body.
    Json,
    /// Comma-separated values.
    Csv(Option<Header>),
    /// A numpy array.
    Npy,
    /// Several numpy arrays by name.
    Npz,
    /// One image, or any other bytes, sent as base64.
    Image,
    /// A serialized `tf.Example`, or a stream of them in TFRecord framing; recognized by the body.
    Example,
    /// A stream of records in TFRecord framing.
    Records,
    /// JSON, or numpy's formats; recognized by the body.
    Binary,
}

impl Format {
    /// The format for the header `Content-Type`; JSON without the header.
    ///
    /// # Errors
    /// 415 for a type that is not supported, with the types that are.
    pub fn of(content_type: Option<&str>) -> Result<Self, RequestError> {
        let Some(full) = content_type else {
            return Ok(Self::Json);
        };
        let mut parts = split(full, b';');
        let essence = parts.next().unwrap_or_default().trim();
        let lower = essence.to_ascii_lowercase();
        match lower.as_str() {
            ""
            | "application/json"
            | "application/jsonlines"
            | "application/jsons"
            | "application/x-ndjson" => Ok(Self::Json),
            "text/csv" | "application/csv" => Ok(Self::Csv(csv_header(parts)?)),
            "application/x-npy" => Ok(Self::Npy),
            "application/x-npz" => Ok(Self::Npz),
            "application/x-image" => Ok(Self::Image),
            "application/x-tfexample" => Ok(Self::Example),
            "application/x-tfrecord" => Ok(Self::Records),
            "application/octet-stream" => Ok(Self::Binary),
            _ if lower.starts_with("image/") => Ok(Self::Image),
            _ => Err(RequestError::new(
                415,
                format!(
                    "Unsupported Media Type: {}; accepted: {ACCEPTED}.",
                    essence.chars().take(MAX_SHOWN_TYPE).collect::<String>()
                ),
            )),
        }
    }

    /// How many bytes a conversion may write for each byte of the body, roughly: work is done on the worker only if it is
    /// little.
    pub fn growth(self, target: &Target) -> usize {
        let inputs = target.signature.as_ref().map_or(0, |s| s.inputs.len());
        match self {
            // Each row repeats the names of its features or inputs.
            Self::Csv(_) if target.rows == Rows::Examples || inputs > 1 => 100,
            Self::Json | Self::Csv(_) | Self::Image | Self::Example | Self::Records => 1,
            Self::Npy => 4,
            // Compressed.
            Self::Npz | Self::Binary => 1000,
        }
    }

    /// Whether the signature decides the conversion. JSON asks for it only where it must ([`Conversion::NeedsSignature`]).
    pub fn needs_signature(self) -> bool {
        !matches!(self, Self::Json)
    }

    /// Converts a body into the body of a request to TensorFlow Serving. An empty body stays empty, because TensorFlow
    /// Serving's error is the clearest.
    ///
    /// # Errors
    /// 400 for a body that does not fit the format or the model, 413 or 503 when no memory is left for the conversion.
    pub fn to_tfs(self, body: &mut Buffer, target: &Target) -> Result<Conversion, RequestError> {
        if body.is_empty() {
            return Ok(Conversion::Done);
        }
        let is_text = matches!(self, Self::Json | Self::Csv(_) | Self::Binary);
        if is_text && body.starts_with(GZIP_MAGIC) {
            return Err(RequestError::bad_request(
                "The body is compressed with gzip: send Content-Encoding: gzip.",
            ));
        }
        match self {
            Self::Json => return json::to_tfs(body, target),
            Self::Csv(header) => *body = csv::to_tfs(body, header, target)?,
            Self::Npy => *body = npy::to_tfs(body, target)?,
            Self::Npz => *body = npz::to_tfs(body, target)?,
            Self::Image => *body = records::bytes_to_tfs(body, target)?,
            Self::Example => *body = records::example_to_tfs(body, target)?,
            Self::Records => *body = records::to_tfs(body, target)?,
            Self::Binary if body.starts_with(npy::MAGIC) => *body = npy::to_tfs(body, target)?,
            Self::Binary if body.starts_with(npz::MAGIC) => *body = npz::to_tfs(body, target)?,
            Self::Binary => return json::to_tfs(body, target),
        }
        Ok(Conversion::Done)
    }
}

/// The first bytes of a gzip file. No text begins with them.
pub const GZIP_MAGIC: &[u8] = b"\x1f\x8b\x08";

/// The most characters of a content type in a message.
const MAX_SHOWN_TYPE: usize = 100;

/// The content types that 415 lists.
pub const ACCEPTED: &str = "application/json, application/jsonlines, application/x-ndjson, text/csv, application/x-npy, \
     application/x-npz, application/x-image, image/*, application/x-tfexample, application/x-tfrecord, \
     application/octet-stream";

/// Whether the parameters of a content type announce a header line (RFC 7111, RFC 4180).
///
/// # Errors
/// 400 for another value than `present` and `absent`, and for both.
fn csv_header<'a>(
    parameters: impl Iterator<Item = &'a str>,
) -> Result<Option<Header>, RequestError> {
    let mut header = None;
    for parameter in parameters {
        let Some((name, value)) = parameter.split_once('=') else {
            continue;
        };
        if !name.trim().eq_ignore_ascii_case("header") {
            continue;
        }
        let value = value.trim().trim_matches('"');
        let said = match value.to_ascii_lowercase().as_str() {
            "present" => Header::Present,
            "absent" => Header::Absent,
            _ => {
                return Err(RequestError::bad_request(format!(
                    "The content type says header={}; accepted: present or absent.",
                    shown(value)
                )));
            }
        };
        if *header.get_or_insert(said) != said {
            return Err(RequestError::bad_request(
                "The content type says both header=present and header=absent.",
            ));
        }
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_content_types_without_parameters_and_case() {
        for (content_type, format) in [
            (None, Format::Json),
            (Some(""), Format::Json),
            (Some("application/json"), Format::Json),
            (Some("Application/JSON; charset=utf-8"), Format::Json),
            (Some("application/jsonlines"), Format::Json),
            (Some("application/jsons"), Format::Json),
            (Some("application/x-ndjson"), Format::Json),
            (Some(" text/csv "), Format::Csv(None)),
            (Some("application/csv"), Format::Csv(None)),
            (
                Some(" text/csv ;header=present"),
                Format::Csv(Some(Header::Present)),
            ),
            (
                Some("text/csv; charset=utf-8; Header = \"Absent\""),
                Format::Csv(Some(Header::Absent)),
            ),
            (Some("application/x-image"), Format::Image),
            (Some("image/jpeg"), Format::Image),
            (Some("IMAGE/PNG"), Format::Image),
            (Some("application/x-npy"), Format::Npy),
            (Some("application/x-npz"), Format::Npz),
            (Some("application/x-tfexample"), Format::Example),
            (Some("application/x-tfrecord"), Format::Records),
            (Some("application/octet-stream"), Format::Binary),
            (
                Some("text/csv; charset=\"a;header=present\""),
                Format::Csv(None),
            ),
        ] {
            assert_eq!(
                Format::of(content_type).unwrap(),
                format,
                "{content_type:?}"
            );
        }
    }

    #[test]
    fn returns_415_with_the_list_for_other_content_types() {
        let error = Format::of(Some("Application/Pickle; v=2")).unwrap_err();
        assert_eq!(error.status, 415);
        assert_eq!(
            error.text,
            format!("Unsupported Media Type: Application/Pickle; accepted: {ACCEPTED}.")
        );
        let error = Format::of(Some("text/csv; header=maybe")).unwrap_err();
        assert_eq!(error.status, 400);
    }

    #[test]
    fn a_content_type_says_one_thing_about_a_header() {
        let twice = |values: [&str; 2]| {
            let [first, second] = values;
            let content_type = format!("text/csv; header={first}; x=y; Header=\"{second}\"");
            Format::of(Some(&content_type)).map_err(|error| error.status)
        };
        let present = Ok(Format::Csv(Some(Header::Present)));
        assert_eq!(twice(["present", "PRESENT"]), present);
        assert_eq!(twice(["present", "absent"]), Err(400));
        assert_eq!(twice(["absent", "present"]), Err(400));
        assert_eq!(twice(["absent", "x"]), Err(400));
    }

    #[test]
    fn every_listed_type_is_accepted() {
        for content_type in ACCEPTED.split(", ") {
            let content_type = content_type.replace('*', "png");
            assert!(Format::of(Some(&content_type)).is_ok(), "{content_type}");
        }
    }

    #[test]
    fn leaves_an_empty_body_unchanged_in_every_format() {
        for format in [
            Format::Json,
            Format::Csv(None),
            Format::Image,
            Format::Npy,
            Format::Npz,
            Format::Example,
            Format::Records,
            Format::Binary,
        ] {
            let mut body = Buffer::default();
            let converted = format.to_tfs(&mut body, &Target::default()).unwrap();
            assert_eq!(converted, Conversion::Done);
            assert!(body.is_empty());
        }
    }
}
