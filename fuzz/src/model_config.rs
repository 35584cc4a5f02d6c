//! TensorFlow Serving's model list: a reader of the protobuf text format finds exactly the models that were written.
//!
//! Input: names and paths, alternating, each up to a zero byte.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use sagemaker_tfs::models::Model;
use sagemaker_tfs::tfs::files::model_config;

pub fn check(data: &[u8]) {
    let texts: Vec<&[u8]> = data.split(|&b| b == 0).collect();
    let models: Vec<Model> = texts
        .chunks_exact(2)
        .map(|pair| Model {
            name: String::from_utf8_lossy(pair[0]).into_owned(),
            other_name: None,
            path: OsStr::from_bytes(pair[1]).into(),
            versions: vec![pair[1].len() as u64, u64::MAX],
            lone: false,
        })
        .collect();

    let label = |model: &Model| vec![(model.name.clone(), 7)];
    let labels = models
        .iter()
        .map(|model| (model.name.clone(), label(model)));
    let text = model_config(&models, &labels.collect());
    assert!(
        text.bytes().all(|b| matches!(b, b'\n' | b' '..=b'~')),
        "{text}"
    );
    let expected = models.iter().map(|model| {
        let versions = model.versions.iter();
        let versions = versions.map(|v| ("versions".into(), Value::Bare(v.to_string())));
        let specific = Value::Message(versions.collect());
        let policy = Value::Message(vec![("specific".into(), specific)]);
        let path = model.path.as_os_str().as_bytes();
        let label = vec![
            ("key".into(), Value::Text(model.name.clone().into_bytes())),
            ("value".into(), Value::Bare("7".into())),
        ];
        let config = vec![
            ("name".into(), Value::Text(model.name.clone().into_bytes())),
            ("base_path".into(), Value::Text(path.to_vec())),
            ("model_platform".into(), Value::Text(b"tensorflow".to_vec())),
            ("model_version_policy".into(), policy),
            ("version_labels".into(), Value::Message(label)),
        ];
        ("config".into(), Value::Message(config))
    });
    let expected = Value::Message(expected.collect());
    let mut reader = Reader(text.as_bytes());
    let read = reader.message(None).expect("the text can be read");
    assert_eq!(read, vec![("model_config_list".into(), expected)], "{text}");
}

type Fields = Vec<(String, Value)>;

#[derive(Debug, PartialEq)]
enum Value {
    /// A number or a name.
    Bare(String),
    Text(Vec<u8>),
    Message(Fields),
}

/// Reads the part of the format that is needed here. Contains the unread text; `None` means that the text is broken.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    /// Fields up to this byte, or to the end.
    fn message(&mut self, end: Option<u8>) -> Option<Fields> {
        let mut fields = Vec::new();
        loop {
            self.0 = self.0.trim_ascii_start();
            if self.0.first().copied() == end {
                self.next();
                return Some(fields);
            }
            let name = self.word()?;
            self.0 = self.0.trim_ascii_start();
            let value = match self.next()? {
                b'{' => Value::Message(self.message(Some(b'}'))?),
                b':' => {
                    self.0 = self.0.trim_ascii_start();
                    match self.0.first()? {
                        b'\'' => Value::Text(self.string()?),
                        _ => Value::Bare(self.word()?),
                    }
                }
                _ => return None,
            };
            fields.push((name, value));
        }
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        self.next()?;
        loop {
            text.push(match self.next()? {
                b'\'' => return Some(text),
                b'\n' => return None,
                b'\\' => match self.next()? {
                    quoted @ (b'\'' | b'\\') => quoted,
                    first @ b'0'..=b'3' => {
                        let digits = [first, self.next()?, self.next()?];
                        u8::from_str_radix(str::from_utf8(&digits).ok()?, 8).ok()?
                    }
                    _ => return None,
                },
                other => other,
            });
        }
    }

    fn word(&mut self) -> Option<String> {
        let is_end = |b: &u8| !b.is_ascii_alphanumeric() && *b != b'_';
        let length = self.0.iter().position(is_end).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(length);
        self.0 = rest;
        (length > 0).then(|| String::from_utf8_lossy(word).into_owned())
    }

    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }
}
