//! Converts clients' bodies into requests to TensorFlow Serving, and lays out its responses as clients accept them.
//!
//! All functions are pure: bytes in, bytes or a [`RequestError`] out. This file chooses the conversion for a content
//! type; each format has its own file. Running large conversions on other threads is left to the caller.
//!
//! A new format is a variant of [`Format`], a line in [`Format::of`] and [`Format::to_tfs`], and a file.

pub mod accept;
pub mod csv;
pub mod depth;
pub mod json;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::budget::{Buffer, NoRoom};
use crate::error::RequestError;

/// The format of a request's body, which decides the conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON, JSON lines or concatenated JSON values; the conversion recognizes the form by the body.
    Json,
    /// Comma-separated values.
    Csv,
    /// One image, which is sent as base64.
    Image,
}

impl Format {
    /// The format for the header `Content-Type`; JSON without the header.
    ///
    /// # Errors
    /// 415 for a type that is not supported.
    pub fn of(content_type: Option<&str>) -> Result<Self, RequestError> {
        let Some(full) = content_type else {
            return Ok(Self::Json);
        };
        let essence = full.split(';').next().unwrap_or_default().trim();
        let lower = essence.to_ascii_lowercase();
        match lower.as_str() {
            "" | "application/json" | "application/jsonlines" | "application/jsons" => {
                Ok(Self::Json)
            }
            "text/csv" => Ok(Self::Csv),
            "application/x-image" => Ok(Self::Image),
            _ if lower.starts_with("image/") => Ok(Self::Image),
            _ => Err(RequestError::new(
                415,
                format!("Unsupported Media Type: {essence}"),
            )),
        }
    }

    /// Converts a body into the body of a request to TensorFlow Serving. An empty body stays empty, because TensorFlow
    /// Serving's error is the clearest.
    ///
    /// # Errors
    /// 400 for a body that cannot be converted, 413 or 503 when no memory is left for the conversion.
    pub fn to_tfs(self, body: &mut Buffer) -> Result<(), RequestError> {
        if body.is_empty() {
            return Ok(());
        }
        match self {
            Self::Json => json::to_tfs(body)?,
            Self::Csv => *body = csv::to_tfs(body)?,
            Self::Image => *body = image_to_tfs(body)?,
        }
        Ok(())
    }
}

fn image_to_tfs(image: &Buffer) -> Result<Buffer, NoRoom> {
    const BEFORE: &[u8] = br#"{"instances": [{"b64": ""#;
    const AFTER: &[u8] = br#""}]}"#;
    /// Bytes that are encoded at once; a multiple of three, so that no padding appears in between.
    const PIECE: usize = 48 << 10;
    let mut out = image.sibling();
    out.reserve_exact(BEFORE.len() + image.len().div_ceil(3) * 4 + AFTER.len())?;
    out.extend(BEFORE)?;
    let mut text = String::new();
    for piece in image.chunks(PIECE) {
        text.clear();
        BASE64_STANDARD.encode_string(piece, &mut text);
        out.extend(text.as_bytes())?;
    }
    out.extend(AFTER)?;
    Ok(out)
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
            (Some(" text/csv ;header=present"), Format::Csv),
            (Some("application/x-image"), Format::Image),
            (Some("image/jpeg"), Format::Image),
            (Some("IMAGE/PNG"), Format::Image),
        ] {
            assert_eq!(
                Format::of(content_type).unwrap(),
                format,
                "{content_type:?}"
            );
        }
    }

    #[test]
    fn returns_415_for_other_content_types() {
        let error = Format::of(Some("Application/Pickle; v=2")).unwrap_err();
        assert_eq!(error.status, 415);
        assert_eq!(error.text, "Unsupported Media Type: Application/Pickle");
    }

    #[test]
    fn encodes_images_as_base64() {
        let mut body = Buffer::from(b"\x89PNG\xff".to_vec());
        Format::Image.to_tfs(&mut body).unwrap();
        assert_eq!(&*body, br#"{"instances": [{"b64": "iVBOR/8="}]}"#);
    }

    #[test]
    fn leaves_an_empty_body_unchanged_in_every_format() {
        for format in [Format::Json, Format::Csv, Format::Image] {
            let mut body = Buffer::default();
            format.to_tfs(&mut body).unwrap();
            assert!(body.is_empty());
        }
    }
}
