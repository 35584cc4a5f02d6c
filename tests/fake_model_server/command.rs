//! Commands in a request that tell the fake server how to respond: the object under the top-level key `fake`.
//!
//! | key | effect |
//! |---|---|
//! | `delay_ms` | waits this long first |
//! | `status`, `body` | replace 200 and the usual body (a body that is not a string is written as JSON) |
//! | `answer_echo` | `true`: the response has the request's body |
//! | `raw` | this text replaces the whole response, including its head; the connection stays open |
//! | `late`, `late_ms` | this text follows the response after this time, although no request asked for it |
//! | `error_bytes` | the response is an error whose text, with escapes in it, has about this many bytes |
//! | `close` | closes the connection: `before_answer`, `mid_answer`, or `after_answer` (after a complete response that does not announce it) |
//! | `exit` | the process ends with this code; `"abort"`: by SIGABRT |
//! | `hang` | `true`: never responds |
//! | `fail_first`, `key` | the command applies only to the first `fail_first` requests with this key; needs `FAKE_TFS_RECORD` |

use std::time::Duration;

use serde_json::{Map, Value};

use crate::record::Record;

#[derive(Default)]
pub struct Command {
    pub delay: Duration,
    pub status: Option<u16>,
    pub body: Option<String>,
    pub echo: bool,
    pub raw: Option<String>,
    pub late: Option<String>,
    pub late_after: Duration,
    pub close: Option<Close>,
    pub exit: Option<Exit>,
    pub hang: bool,
}

/// When a connection is closed, relative to the response.
#[derive(Clone, Copy)]
pub enum Close {
    Before,
    Middle,
    After,
}

#[derive(Clone, Copy)]
pub enum Exit {
    Code(i32),
    Abort,
}

impl Command {
    /// The command in a request's body, if it has one.
    pub fn in_body(body: &[u8]) -> Option<Map<String, Value>> {
        const KEY: &[u8] = b"\"fake\"";
        if !body.windows(KEY.len()).any(|window| window == KEY) {
            return None;
        }
        let mut value: Value = serde_json::from_slice(body).ok()?;
        match value.get_mut("fake")?.take() {
            Value::Object(command) => Some(command),
            _ => None,
        }
    }

    /// Refuses unknown commands: a misspelt command could make a test pass for the wrong reason.
    pub fn parse(command: &Map<String, Value>, record: Option<&Record>) -> Result<Self, String> {
        let mut parsed = Self::default();
        let (mut fail_first, mut key) = (None, None);
        for (name, value) in command {
            let known = match name.as_str() {
                "delay_ms" => value
                    .as_u64()
                    .map(|ms| parsed.delay = Duration::from_millis(ms)),
                "status" => value
                    .as_u64()
                    .and_then(|n| n.try_into().ok())
                    .map(|n| parsed.status = Some(n)),
                "body" => {
                    parsed.body = Some(
                        value
                            .as_str()
                            .map_or_else(|| value.to_string(), str::to_owned),
                    );
                    Some(())
                }
                "answer_echo" => value.as_bool().map(|echo| parsed.echo = echo),
                "raw" => value.as_str().map(|text| parsed.raw = Some(text.into())),
                "late" => value.as_str().map(|text| parsed.late = Some(text.into())),
                "late_ms" => value
                    .as_u64()
                    .map(|ms| parsed.late_after = Duration::from_millis(ms)),
                "error_bytes" => value.as_u64().map(|bytes| {
                    parsed.body = Some(quoting_error(bytes as usize));
                }),
                "close" => Close::parse(value).map(|close| parsed.close = Some(close)),
                "exit" => Exit::parse(value).map(|exit| parsed.exit = Some(exit)),
                "hang" => value.as_bool().map(|hang| parsed.hang = hang),
                "fail_first" => value.as_u64().map(|n| fail_first = Some(n)),
                "key" => value.as_str().map(|text| key = Some(text)),
                _ => None,
            };
            known.ok_or_else(|| format!("fake command not understood: {name}: {value}"))?;
        }
        let Some(fail_first) = fail_first else {
            return Ok(parsed);
        };
        let record = record.ok_or("fail_first needs FAKE_TFS_RECORD")?;
        let seen = record
            .seen_before(key.ok_or("fail_first needs a key")?)
            .map_err(|e| e.to_string())?;
        Ok(if seen < fail_first {
            parsed
        } else {
            Self::default()
        })
    }
}

/// An error that quotes the document, like the errors of TensorFlow Serving up to 2.17.
fn quoting_error(bytes: usize) -> String {
    let piece = "\\\"b64\\\": \\u00e9\\ud83d\\ude00 \u{e9}\u{1f600} ";
    format!(
        "{{\n    \"error\": \"JSON Value: {} is not formatted correctly\"\n}}",
        piece.repeat(bytes / piece.len())
    )
}

impl Close {
    fn parse(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "before_answer" => Some(Self::Before),
            "mid_answer" => Some(Self::Middle),
            "after_answer" => Some(Self::After),
            _ => None,
        }
    }
}

impl Exit {
    fn parse(value: &Value) -> Option<Self> {
        match value.as_str() {
            Some(text) => (text == "abort").then_some(Self::Abort),
            None => Some(Self::Code(value.as_i64()?.try_into().ok()?)),
        }
    }
}
