//! The settings of this process: flags and environment variables, read once.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use std::{env, fs};

const HALF_PLUS_THREE: &str = "{\n    \"predictions\": [3.5, 4.0, 5.5\n    ]\n}";

pub struct Settings {
    pub grpc_port: u16,
    pub rest_port: u16,
    /// Text of the file named by `--model_config_file`.
    pub model_config: Option<String>,
    /// Text of the file named by `--batching_parameters_file`.
    pub batching_config: Option<String>,
    pub start_delay: Duration,
    pub start_exit: Option<i32>,
    pub start_exit_after: u64,
    /// The argument that is reported as unknown.
    pub unknown_argument: Option<String>,
    pub ignore_sigterm: bool,
    pub record_dir: Option<PathBuf>,
    pub record_requests: bool,
    pub echo: bool,
    pub fixed_body: String,
    pub post_bodies_only: bool,
    pub max_depth: Option<usize>,
}

impl Settings {
    pub fn from_process() -> Result<Self, String> {
        let echo = match env::var("FAKE_TFS_ANSWER").as_deref() {
            Ok("echo") => true,
            Ok("fixed") | Err(_) => false,
            Ok(other) => {
                return Err(format!(
                    "FAKE_TFS_ANSWER is {other:?}, accepted are echo and fixed"
                ));
            }
        };
        let fixed_body = match number("FAKE_TFS_FIXED_BODY_BYTES")? {
            Some(bytes) => body_of(bytes),
            None => env::var("FAKE_TFS_FIXED_BODY").unwrap_or_else(|_| HALF_PLUS_THREE.to_owned()),
        };
        Ok(Self {
            grpc_port: port("port", 8500)?,
            rest_port: port("rest_api_port", 8501)?,
            model_config: text_of("model_config_file")?,
            batching_config: text_of("batching_parameters_file")?,
            start_delay: Duration::from_millis(number("FAKE_TFS_START_DELAY_MS")?.unwrap_or(0)),
            start_exit: number("FAKE_TFS_START_EXIT")?,
            start_exit_after: number("FAKE_TFS_START_EXIT_AFTER")?.unwrap_or(0),
            unknown_argument: env::var("FAKE_TFS_UNKNOWN_FLAG").ok().and_then(argument),
            ignore_sigterm: is_one("FAKE_TFS_IGNORE_SIGTERM"),
            record_dir: env::var_os("FAKE_TFS_RECORD").map(PathBuf::from),
            record_requests: is_one("FAKE_TFS_RECORD_REQUESTS"),
            echo,
            fixed_body,
            post_bodies_only: is_one("FAKE_TFS_POST_BODIES_ONLY"),
            max_depth: number("FAKE_TFS_MAX_DEPTH")?,
        })
    }
}

/// The value of `--name=value`; the last one counts.
fn flag(name: &str) -> Option<String> {
    let is_it = |arg: String| {
        Some(
            arg.strip_prefix("--")?
                .strip_prefix(name)?
                .strip_prefix('=')?
                .to_owned(),
        )
    };
    env::args().skip(1).filter_map(is_it).next_back()
}

/// The whole argument with this flag.
fn argument(name: String) -> Option<String> {
    let begin = format!("--{name}=");
    env::args().skip(1).find(|arg| arg.starts_with(&begin))
}

fn port(name: &str, default: u16) -> Result<u16, String> {
    flag(name).map_or(Ok(default), |text| {
        text.parse()
            .map_err(|_| format!("--{name}={text} is not a port"))
    })
}

fn text_of(name: &str) -> Result<Option<String>, String> {
    flag(name)
        .map(|path| {
            fs::read_to_string(&path).map_err(|e| format!("cannot read --{name}={path}: {e}"))
        })
        .transpose()
}

fn number<T: FromStr>(name: &str) -> Result<Option<T>, String> {
    env::var(name)
        .ok()
        .map(|text| {
            text.parse()
                .map_err(|_| format!("{name} is {text:?}, accepted is a number"))
        })
        .transpose()
}

fn is_one(name: &str) -> bool {
    env::var(name).as_deref() == Ok("1")
}

/// A valid response body of about `bytes` bytes.
fn body_of(bytes: usize) -> String {
    let mut body = String::with_capacity(bytes + 40);
    body.push_str("{\n    \"predictions\": [0.5");
    while body.len() + 12 < bytes {
        body.push_str(", 0.5");
    }
    body.push_str("\n    ]\n}");
    body
}
