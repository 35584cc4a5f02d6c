//! The `X-Amzn-SageMaker-Custom-Attributes` header: the model, version and method that a request asks for.
//!
//! SageMaker limits the header to 1,024 characters. Attributes are separated by commas. As in the Python container, one
//! begins wherever `tfs-` begins it, also behind other text, and its value ends at the comma. All other text is ignored.

use crate::config::is_model_name;
use crate::convert::request::Rows;
use crate::error::{RequestError, shown};
use crate::wait::Mutex;

/// The names that the server knows.
const KNOWN: [&str; 4] = [
    "tfs-model-name",
    "tfs-model-version",
    "tfs-method",
    "tfs-signature-name",
];
/// Their letters, by which other spellings are recognized.
const LETTERS: [&str; 4] = [
    "tfsmodelname",
    "tfsmodelversion",
    "tfsmethod",
    "tfssignaturename",
];
/// What every name begins with.
const PREFIX: &str = "tfs-";
/// TensorFlow Serving has versions up to this one.
const LAST_VERSION: i64 = i64::MAX;
/// The most digits of a version, so that leading zeros have an end.
const MAX_VERSION_DIGITS: usize = 64;

/// The attributes that the server knows. Each is optional.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// `tfs-model-name`: a valid model name, or another one that a model has.
    pub model_name: Option<&'a str>,
    /// `tfs-model-version`: decimal digits, in value at most [`i64::MAX`].
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

/// Parses the header's value. If a name is repeated, the last value counts; an empty value counts as absent.
/// `is_other_name` tells names of models that are not valid, but that a model has all the same. `unknown` gets the name
/// of each attribute that the server does not know: letters, digits, `-`, `_` and `.`.
///
/// The work is linear in the header's length.
///
/// # Errors
/// 400 for an invalid name, version or method, and for an attribute whose name is only nearly one of those known.
pub fn parse<'a>(
    header: &'a str,
    is_other_name: impl Fn(&str) -> bool,
    mut unknown: impl FnMut(&'a str),
) -> Result<Attributes<'a>, RequestError> {
    let mut attributes = Attributes::default();
    for part in header.split(',') {
        let spaced = find(part, is_name_byte, str::trim_start);
        let found = find(part, is_key_byte, |text| text)
            .or(spaced.filter(|found| KNOWN.contains(&found.name)));
        let before = found.map_or(part, |found| &part[..found.start]);
        let unknown_name = found.map_or("", |found| match KNOWN.contains(&found.name) {
            true => "",
            false => found.name,
        });
        if let Some(known) = misspelled(before).or_else(|| misspelled(unknown_name)) {
            return Err(RequestError::bad_request(format!(
                "Custom attribute {} cannot be read; write {known}=VALUE, in small letters.",
                shown(part.trim())
            )));
        }
        match found.or(spaced) {
            // An empty value is how templates write an attribute that is not set.
            Some(found) if KNOWN.contains(&found.name) && found.value.is_empty() => {}
            Some(found) if KNOWN.contains(&found.name) => {
                attributes.set(found.name, found.value, &is_other_name)?;
            }
            Some(found) => unknown(found.name),
            None => {}
        }
    }
    Ok(attributes)
}

impl<'a> Attributes<'a> {
    fn set(
        &mut self,
        name: &str,
        value: &'a str,
        is_other_name: impl Fn(&str) -> bool,
    ) -> Result<(), RequestError> {
        match name {
            "tfs-model-name" if is_model_name(value) || is_other_name(value) => {
                self.model_name = Some(value);
            }
            "tfs-model-name" => {
                return Err(invalid(
                    name,
                    value,
                    "letters, digits, '.', '_' and '-', starting with a letter or digit, at most 255",
                ));
            }
            "tfs-model-version" if is_version(value) => self.model_version = Some(value),
            "tfs-model-version" => {
                let accepted = format!(
                    "a number from 0 to {LAST_VERSION}, in at most {MAX_VERSION_DIGITS} digits"
                );
                return Err(invalid(name, value, &accepted));
            }
            "tfs-method" => {
                self.method = Some(match value {
                    "predict" => Method::Predict,
                    "classify" => Method::Classify,
                    "regress" => Method::Regress,
                    _ => return Err(invalid(name, value, "predict, classify or regress")),
                });
            }
            _ => self.signature_name = Some(value),
        }
        Ok(())
    }
}

/// An attribute in a part of the header between commas.
#[derive(Debug, Clone, Copy)]
struct Found<'a> {
    /// Where it begins.
    start: usize,
    name: &'a str,
    /// The rest of the part, without surrounding spaces.
    value: &'a str,
}

/// The first attribute in a part of the header whose name has only such bytes. `skip` steps over what may stand before
/// the `=`.
fn find(part: &str, is_allowed: fn(u8) -> bool, skip: fn(&str) -> &str) -> Option<Found<'_>> {
    let mut from = 0;
    while let Some(offset) = part[from..].find(PREFIX) {
        let start = from + offset;
        let rest = &part[start..];
        let length = rest.bytes().take_while(|&byte| is_allowed(byte)).count();
        let (name, after) = rest.split_at(length);
        if let Some(value) = skip(after).strip_prefix('=')
            && name.len() > PREFIX.len()
        {
            let value = value.trim();
            return Some(Found { start, name, value });
        }
        // Names that begin later in these bytes end at the same place, so they are none either.
        from = start + length;
    }
    None
}

/// Whether the Python container takes the byte for a part of a name.
fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte == b'-'
}

/// The known name that stands in `text` in another spelling: with capital letters, with other separators between the
/// words or none, or with something else than `=` behind it. Somebody meant it, so the request must not go to the
/// default model in silence. Text that only mentions a name is left alone.
fn misspelled(text: &str) -> Option<&'static str> {
    // The text in small letters and without separators, and where each of its bytes stands in `text`.
    let (mut letters, mut places) = (String::new(), Vec::new());
    for (place, c) in text.char_indices().filter(|(_, c)| !is_separator(*c)) {
        letters.push(c.to_ascii_lowercase());
        places.push(place);
    }
    let mut known = KNOWN.into_iter().zip(LETTERS);
    let found = known.find(|(_, spelled)| {
        letters.match_indices(spelled).any(|(start, _)| {
            let before = &text[..places[start]];
            let after = &text[places[start + spelled.len() - 1] + 1..];
            let is_word = !before.ends_with(|c: char| c.is_ascii_alphanumeric())
                && !after
                    .trim_start_matches(['-', '_', '.'])
                    .starts_with(|c: char| c.is_ascii_alphanumeric());
            let is_between = |c: char| is_separator(c) || matches!(c, '"' | '\'');
            let before = before.trim_end_matches(is_between);
            let begins = before.is_empty() || before.ends_with([';', '&', '|', '{']);
            is_word && (begins || after.trim_start_matches(is_between).starts_with(['=', ':']))
        })
    });
    found.map(|(known, _)| known)
}

/// Whether somebody may write the character between the words of a name. Dashes of word processors are not ASCII.
fn is_separator(c: char) -> bool {
    matches!(c, ' ' | '\t' | '-' | '_' | '.') || !c.is_ascii()
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// Logs once in the life of the process that an attribute is unknown.
pub fn warn_unknown(name: &str) {
    /// Clients choose the names, so only so many are kept and logged.
    const MOST_NAMES: usize = 32;
    /// The most bytes of a name that are kept and logged. Names are ASCII.
    const MOST_BYTES: usize = 64;
    static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let name = &name[..name.len().min(MOST_BYTES)];
    let mut logged = LOGGED.lock();
    if logged.len() == MOST_NAMES || logged.iter().any(|known| known == name) {
        return;
    }
    logged.push(name.to_owned());
    let rest = match logged.len() {
        MOST_NAMES => " Further unknown attributes are not logged.",
        _ => "",
    };
    drop(logged);
    log::warn!(
        "the server ignores the custom attribute {name}; it knows {}.{rest}",
        KNOWN.join(", ")
    );
}

fn is_version(text: &str) -> bool {
    // `parse` takes a sign, too.
    text.len() <= MAX_VERSION_DIGITS
        && text.bytes().all(|b| b.is_ascii_digit())
        && text.parse::<i64>().is_ok()
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

    /// `/versions/V:METHOD` of a model, and the unknown names, or the status and what its text must contain.
    fn shown_as(header: &str) -> String {
        let mut unknown = Vec::new();
        match parse(header, |_| false, |name| unknown.push(name)) {
            Err(error) => format!("{} {}", error.status, error.text),
            Ok(parsed) => {
                let mut parts = vec![parsed.model_name.unwrap_or("default").to_owned()];
                parts.extend(parsed.model_version.map(|v| format!("version {v}")));
                parts.extend(parsed.method.map(|m| m.as_str().to_owned()));
                parts.extend(parsed.signature_name.map(|s| format!("signature {s}")));
                parts.extend(unknown.iter().map(|name| format!("unknown {name}")));
                parts.join(" ")
            }
        }
    }

    /// `(header, what the newest JavaScript of the Python container makes of it, what this server makes of it)`.
    const TABLE: &[(&str, &str, &str)] = &[
        ("", "default", "default"),
        ("c000b4f9-df62-4c85", "default", "default"),
        (",,=,a=b", "default", "default"),
        ("tfs-model-name=m1", "m1", "m1"),
        ("a=b,tfs-model-name=m1,c", "m1", "m1"),
        (
            "tfs-model-name=a.b-c_1,tfs-model-version=007,tfs-method=regress",
            "a.b-c_1 version 007 regress",
            "a.b-c_1 version 007 regress",
        ),
        ("tfs-model-name=a,tfs-model-name=b", "b", "b"),
        // Anywhere in the text between commas.
        ("a=b;tfs-model-name=m1", "m1", "m1"),
        ("x tfs-model-name=m1", "m1", "m1"),
        ("x-tfs-model-name=m1", "m1", "m1"),
        ("trace=tfs-model-name=m1", "m1", "m1"),
        ("tfs-x tfs-model-name=m1", "m1", "m1"),
        ("{tfs-method=regress", "default regress", "default regress"),
        // An empty value is none.
        ("tfs-model-name=", "default", "default"),
        ("tfs-model-name=a,tfs-model-name=", "a", "a"),
        ("tfs-method=,tfs-model-version=", "default", "default"),
        // Spaces around a value and before `=` mean nothing here. There, they are part of it, or hide the attribute.
        ("tfs-model-name= m1 ", "400", "m1"),
        ("a, tfs-model-name=m1 ,b", "400", "m1"),
        ("tfs-model-name =m1", "default", "m1"),
        ("tfs-model-name= ", "400", "default"),
        ("tfs-x =tfs-model-name=m1", "m1", "m1"),
        // A value with `=` is ignored there. Here it is wrong for a name, and the default model would be a surprise.
        ("tfs-model-name=a=b", "default", "400 tfs-model-name"),
        (
            "tfs-model-name=m1;tfs-method=regress",
            "default",
            "400 tfs-model-name",
        ),
        // Values that would change the URL.
        ("tfs-model-name=../x", "400", "400 tfs-model-name"),
        ("tfs-model-name=a/b", "400", "400 tfs-model-name"),
        ("tfs-model-name=.x", "400", "400 tfs-model-name"),
        ("tfs-model-name=\u{e9}", "400", "400 tfs-model-name"),
        ("\"tfs-model-name=m1\"", "400", "400 tfs-model-name"),
        ("tfs-model-version=-1", "400", "400 tfs-model-version"),
        ("tfs-model-version=1.0", "400", "400 tfs-model-version"),
        ("tfs-model-version=+1", "400", "400 tfs-model-version"),
        (
            "tfs-model-version=9223372036854775807",
            "default version 9223372036854775807",
            "default version 9223372036854775807",
        ),
        (
            "tfs-model-version=9223372036854775808",
            "default version 9223372036854775808",
            "400 9223372036854775807",
        ),
        ("tfs-model-version=\u{661}", "400", "400 tfs-model-version"),
        ("tfs-method=Predict", "400", "400 tfs-method"),
        ("tfs-method=train", "400", "400 tfs-method"),
        // Names that somebody meant for us are ignored there.
        ("tfs-model-name:m1", "default", "400 tfs-model-name=VALUE"),
        ("tfs-model-name", "default", "400 tfs-model-name=VALUE"),
        ("tfs-model-name m1", "default", "400 tfs-model-name=VALUE"),
        ("tfs-model-name%3Dm1", "default", "400 tfs-model-name=VALUE"),
        ("tfs_model_name=m1", "default", "400 tfs-model-name=VALUE"),
        ("tfs-model_name=m1", "default", "400 tfs-model-name=VALUE"),
        ("tfs-Model-Name=m1", "default", "400 tfs-model-name=VALUE"),
        ("TFS-Model-Name=m1", "default", "400 tfs-model-name=VALUE"),
        (
            "a=b;Tfs_Method : regress",
            "default",
            "400 tfs-method=VALUE",
        ),
        (
            "{\"tfs-model-version\": 1}",
            "default",
            "400 tfs-model-version=VALUE",
        ),
        (
            "TFS-MODEL-NAME=a tfs-model-name=b",
            "b",
            "400 tfs-model-name=VALUE",
        ),
        // Only the letters count.
        ("tfs-model.name=m1", "default", "400 tfs-model-name=VALUE"),
        ("tfs-model name=m1", "default", "400 tfs-model-name=VALUE"),
        ("tfs model-name=m1", "default", "400 tfs-model-name=VALUE"),
        ("a=b tfs.method=x", "default", "400 tfs-method=VALUE"),
        ("tfsModelName=m1", "default", "400 tfs-model-name=VALUE"),
        ("tfs-modelname=m1", "default", "400 tfs-model-name=VALUE"),
        ("tfs-model-name-=m1", "default", "400 tfs-model-name=VALUE"),
        ("x-TFS-Model-Name=m1", "default", "400 tfs-model-name=VALUE"),
        (
            "tfs\u{2011}model\u{2011}name=m1",
            "default",
            "400 tfs-model-name=VALUE",
        ),
        (
            "x=1;tfs-model-name echo",
            "default",
            "400 tfs-model-name=VALUE",
        ),
        (
            "x=1; \"tfs-model-name\" echo",
            "default",
            "400 tfs-model-name=VALUE",
        ),
        // Text that only mentions them.
        ("tfs modelling names=x", "default", "default"),
        ("a tfs model-name for x=1", "default", "default"),
        ("note=tfs-model-name", "default", "default"),
        ("see tfs_model_name for more", "default", "default"),
        ("mytfs_model_names=x", "default", "default"),
        // Ours alone.
        (
            "tfs-signature-name=a/b=c",
            "default",
            "default signature a/b=c",
        ),
        // Unknown ones are ignored there in silence, and here with a warning.
        ("tfs-model=m1", "default", "default unknown tfs-model"),
        ("tfs-Foo_2=1,tfs-=x", "default", "default unknown tfs-Foo_2"),
        ("tfs-x.y=1", "default", "default unknown tfs-x.y"),
        (
            "tfs-model-name.x=1",
            "default",
            "default unknown tfs-model-name.x",
        ),
        (
            "tfs-model-name-x=1",
            "default",
            "default unknown tfs-model-name-x",
        ),
        (
            "tfs-1tfs-method=regress",
            "default regress",
            "default regress",
        ),
        (
            "tfs-tfs-model-name=a",
            "default",
            "default unknown tfs-tfs-model-name",
        ),
        (
            "tfs-x=tfs-model-name=m1",
            "default",
            "default unknown tfs-x",
        ),
        (
            "tfs-x=TFS-Model-Name=m1",
            "default",
            "default unknown tfs-x",
        ),
    ];

    #[test]
    fn reads_attributes_where_the_python_container_reads_them() {
        for (header, _theirs, ours) in TABLE {
            let got = shown_as(header);
            match ours.strip_prefix("400 ") {
                Some(part) => assert!(
                    got.starts_with("400 ") && got.contains(part),
                    "{header}: {got}"
                ),
                None => assert_eq!(got, *ours, "{header}"),
            }
        }
    }

    #[test]
    fn names_have_at_most_255_characters() {
        let header = |length| format!("tfs-model-name={}", "a".repeat(length));
        assert!(parse(&header(255), |_| false, |_| {}).is_ok());
        assert_eq!(
            parse(&header(256), |_| false, |_| {}).unwrap_err().status,
            400
        );
    }

    #[test]
    fn versions_have_at_most_64_digits() {
        let header = |length: usize| format!("tfs-model-version={}1", "0".repeat(length - 1));
        assert!(parse(&header(64), |_| false, |_| {}).is_ok());
        let error = parse(&header(65), |_| false, |_| {}).unwrap_err();
        assert_eq!(error.status, 400);
        assert!(error.text.len() < 300, "{}", error.text);
    }

    /// Counts the bytes that are looked at, so no machine is too slow for it.
    #[test]
    fn the_search_for_names_is_linear() {
        std::thread_local!(static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) });
        fn counted(byte: u8) -> bool {
            LOOKS.set(LOOKS.get() + 1);
            is_name_byte(byte)
        }
        for piece in ["tfs-", "tfs-a ", "tfs-a  tfs-", "tfs-model-name "] {
            let header = piece.repeat((32 << 10) / piece.len());
            LOOKS.set(0);
            assert!(find(&header, counted, str::trim_start).is_none());
            assert!(LOOKS.get() <= 2 * header.len(), "{piece}: {}", LOOKS.get());
        }
    }
}
