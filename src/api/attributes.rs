//! The `X-Amzn-SageMaker-Custom-Attributes` header: the model, version and method that a request asks for.
//!
//! SageMaker limits the header to 1,024 characters. It holds comma-separated `key=value` pairs. Keys that start with
//! `tfs-` are ours; the server ignores all others.

use crate::config::is_model_name;
use crate::convert::request::Rows;
use crate::error::{RequestError, shown};

/// The attributes that the server knows. Each is optional.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// `tfs-model-name`: a valid model name, or another one that a model has.
    pub model_name: Option<&'a str>,
    /// `tfs-model-version`: decimal digits.
    pub model_version: Option<&'a str>,
    /// `tfs-method`: the inference method.
    pub method: Option<Method>,
    /// `tfs-signature-name`: any text that is not empty.
    pub signature_name: Option<&'a str>,
}

/// TensorFlow Serving's inference methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// Takes and returns arbitrary tensors.
    #[default]
    Predict,
    /// Takes `tf.Example`s and returns labels with scores.
    Classify,
    /// Takes `tf.Example`s and returns one number for each.
    Regress,
}

impl Method {
    /// The method's name in URLs and attributes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Predict => "predict",
            Self::Classify => "classify",
            Self::Regress => "regress",
        }
    }

    /// Where the method expects rows.
    pub fn rows(self) -> Rows {
        match self {
            Self::Predict => Rows::Instances,
            Self::Classify | Self::Regress => Rows::Examples,
        }
    }
}

/// Parses the header's value for models with valid names. If a key is repeated, the last value counts.
///
/// # Errors
/// 400 for an invalid name, version or method.
pub fn parse(header: &str) -> Result<Attributes<'_>, RequestError> {
    parse_for(header, |_| false)
}

/// The same, where models may have other names, too.
///
/// # Errors
/// 400 for an invalid name, version or method.
pub fn parse_for(
    header: &str,
    is_other_name: impl Fn(&str) -> bool,
) -> Result<Attributes<'_>, RequestError> {
    let mut attributes = Attributes::default();
    for pair in header.split(',') {
        let Some((key, value)) = pair.split_once('=') else {
            continue;
        };
        let value = value.trim();
        match key.trim() {
            "tfs-model-name" if is_model_name(value) || is_other_name(value) => {
                attributes.model_name = Some(value)
            }
            "tfs-model-name" => {
                return Err(invalid(
                    "tfs-model-name",
                    value,
                    "letters, digits, '.', '_' and '-', starting with a letter or digit, at most 255",
                ));
            }
            "tfs-model-version" if is_version(value) => attributes.model_version = Some(value),
            "tfs-model-version" => {
                return Err(invalid("tfs-model-version", value, "decimal digits"));
            }
            "tfs-signature-name" if !value.is_empty() => attributes.signature_name = Some(value),
            "tfs-signature-name" => {
                return Err(invalid(
                    "tfs-signature-name",
                    value,
                    "the name of a signature",
                ));
            }
            "tfs-method" => {
                attributes.method = Some(match value {
                    "predict" => Method::Predict,
                    "classify" => Method::Classify,
                    "regress" => Method::Regress,
                    _ => return Err(invalid("tfs-method", value, "predict, classify or regress")),
                });
            }
            _ => {}
        }
    }
    Ok(attributes)
}

fn is_version(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn invalid(key: &str, value: &str, accepted: &str) -> RequestError {
    RequestError::bad_request(format!(
        "Custom attribute {key} is {}; accepted: {accepted}.",
        shown(value)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignores_unknown_keys() {
        let parsed = parse(
            "c000b4f9, tfs-model-name=a.b-c_1 ,x=y=z,tfs-model-version=007,tfs-method=regress, \
             tfs-signature-name=a/b=c",
        );
        assert_eq!(
            parsed.unwrap(),
            Attributes {
                model_name: Some("a.b-c_1"),
                model_version: Some("007"),
                method: Some(Method::Regress),
                signature_name: Some("a/b=c"),
            }
        );
    }

    #[test]
    fn returns_no_attributes_for_a_header_without_known_keys() {
        assert_eq!(parse("").unwrap(), Attributes::default());
        assert_eq!(parse(",,=,a=b").unwrap(), Attributes::default());
    }

    #[test]
    fn the_last_of_repeated_keys_wins() {
        let parsed = parse("tfs-model-name=a,tfs-model-name=b").unwrap();
        assert_eq!(parsed.model_name, Some("b"));
    }

    #[test]
    fn returns_400_for_invalid_values() {
        let too_long = format!("tfs-model-name={}", "a".repeat(256));
        for header in [
            "tfs-model-name=",
            "tfs-model-name=../x",
            "tfs-model-name=.x",
            "tfs-model-name=a/b",
            "tfs-model-name=a=b",
            "tfs-model-name=\u{e9}",
            too_long.as_str(),
            "tfs-model-version=",
            "tfs-model-version=-1",
            "tfs-model-version=1.0",
            "tfs-model-version=\u{0661}",
            "tfs-method=",
            "tfs-method=Predict",
            "tfs-method=train",
            "tfs-signature-name= ",
        ] {
            assert_eq!(parse(header).unwrap_err().status, 400, "{header}");
        }
        assert!(parse(&format!("tfs-model-name={}", "a".repeat(255))).is_ok());
    }
}
