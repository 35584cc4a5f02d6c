//! Sends the requests of `SAGEMAKER_TFS_WARMUP_REQUEST` to this server's own port, as a client would, so that they take
//! the whole way: conversion, handler, TensorFlow Serving.
//!
//! `models/backend.rs` keeps `/ping` at 502 until all are answered. The deadline of each is that of any request, because
//! TensorFlow Serving and the handlers' watchdog know no other. A first call that takes longer goes on in TensorFlow
//! Serving and is likely to be quick the next time, so requests that ran out of time are sent again.

use std::fs::File;
use std::io::{Read, Seek};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use ureq::Agent;

use crate::app::start_thread;
use crate::config::Config;
use crate::config::settings::model_server::WAIT_TIME;
use crate::config::settings::tuning::WARMUP_REQUEST;
use crate::error::StartError;
use crate::http::body::MAX_BODY_BYTES;
use crate::logging::printable;
use crate::memory;
use crate::supervisor::handle::SupervisorHandle;

/// The part of a refusal that the message shows.
const SHOWN_BYTES: u64 = 2048;
/// The pause before a request is sent again.
const PAUSE: Duration = Duration::from_millis(500);
/// The statuses after which a request is sent again: busy, and out of time.
const AGAIN: [u16; 2] = [503, 504];

/// Content types by the ending of a file's name; `application/octet-stream` for any other.
const TYPES: &[(&str, &str)] = &[
    ("json", "application/json"),
    ("jsonl", "application/jsonlines"),
    ("csv", "text/csv"),
    ("npy", "application/x-npy"),
    ("npz", "application/x-npz"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("png", "image/png"),
    ("tfrecord", "application/x-tfrecord"),
];

/// What the drain must know of the warm-up: the end of the program does not wait for the server's own request, because
/// no client does.
#[derive(Debug, Default)]
pub struct OwnRequest {
    is_sent: AtomicBool,
    is_stopping: AtomicBool,
}

impl OwnRequest {
    /// Notes that the server stops.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    /// The number of requests of this kind that are under way: one or none.
    pub fn in_flight(&self) -> usize {
        usize::from(self.is_sent.load(Ordering::Acquire))
    }
}

/// A file whose content is the body of a request.
#[derive(Debug)]
struct Body {
    path: PathBuf,
    file: File,
    size: u64,
}

/// The requests, which have not been sent yet.
#[derive(Debug)]
pub struct WarmUp {
    bodies: Vec<Body>,
    url: String,
    /// How long to send a request again; `None`: without end, for debugging.
    limit: Option<Duration>,
}

impl WarmUp {
    /// Opens the files that the settings name.
    ///
    /// # Errors
    /// When one is not a file, cannot be read, or is too large for a request.
    pub fn new(config: &Config) -> Result<Self, StartError> {
        let largest = MAX_BODY_BYTES.min(memory::for_requests(config.body_memory)) as u64;
        let open = |path: &PathBuf| {
            let path = config.model_dir.join(path);
            open(&path, largest).map_err(|why| {
                let (name, path) = (WARMUP_REQUEST.name, path.display());
                StartError::failed(format!("{name}: {path} cannot be sent: {why}"))
            })
        };
        let host = match config.listen {
            IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) if address.is_unspecified() => format!("[{}]", Ipv6Addr::LOCALHOST),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        Ok(Self {
            bodies: config
                .warm_up_requests
                .iter()
                .map(open)
                .collect::<Result<_, _>>()?,
            url: format!("http://{host}:{}/invocations", config.port),
            limit: (!config.single_threaded).then_some(config.wait_time),
        })
    }

    /// Sends the requests on a thread, one after the other, once `is_serving` returns. Sets `is_warm` when all have been
    /// answered; if one is refused, ends the program.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        self,
        is_serving: impl FnOnce() + Send + 'static,
        is_warm: Arc<AtomicBool>,
        own: Arc<OwnRequest>,
        supervisor: SupervisorHandle,
    ) -> Result<(), StartError> {
        if self.bodies.is_empty() {
            return Ok(());
        }
        let run = move || {
            is_serving();
            let begun = Instant::now();
            let count = self.bodies.len();
            match self.send_all(&own, &supervisor) {
                Ok(()) => {
                    is_warm.store(true, Ordering::Release);
                    let seconds = begun.elapsed().as_secs_f64();
                    log::info!(
                        "warm-up: answered {count} of {count} requests within {seconds:.2} s"
                    );
                }
                Err(error) => supervisor.fail(error),
            }
        };
        start_thread("warm-up", run).map(drop)
    }

    fn send_all(self, own: &OwnRequest, supervisor: &SupervisorHandle) -> Result<(), StartError> {
        let agent = agent();
        let until = self.limit.map(|limit| Instant::now() + limit);
        for mut body in self.bodies {
            // The last reason that the server gave. At the end, "no response" alone would hide it.
            let mut reason = None;
            loop {
                let left = until.map(|until| until.saturating_duration_since(Instant::now()));
                own.is_sent.store(true, Ordering::Release);
                let sent = body.send(&agent, &self.url, left);
                own.is_sent.store(false, Ordering::Release);
                let Err(failure) = sent else {
                    break;
                };
                if own.is_stopping.load(Ordering::Acquire) {
                    return Err(StartError::Stopped);
                }
                let is_over = until.is_some_and(|until| Instant::now() + PAUSE >= until);
                if !failure.is_worth_another_try || is_over {
                    let limit = self.limit.filter(|_| is_over);
                    let text = match failure.status {
                        Some(_) => failure.text,
                        None => reason.unwrap_or(failure.text),
                    };
                    return Err(refused(&body.path, limit, &text));
                }
                log::warn!(
                    "warm-up: {}: {}; trying again",
                    body.path.display(),
                    failure.text
                );
                if failure.status.is_some() {
                    reason = Some(failure.text);
                }
                if supervisor.stopping().recv_timeout(PAUSE) == Err(RecvTimeoutError::Disconnected)
                {
                    return Err(StartError::Stopped);
                }
            }
        }
        Ok(())
    }
}

/// The error when the request of the file at `path` has no good answer; `limit` is the time limit if it is over.
fn refused(path: &Path, limit: Option<Duration>, why: &str) -> StartError {
    let limit = limit.map(|limit| format!(" within {} s ({})", limit.as_secs(), WAIT_TIME.name));
    StartError::failed(format!(
        "{}: {} failed{}: {why}",
        WARMUP_REQUEST.name,
        path.display(),
        limit.unwrap_or_default()
    ))
}

/// A client that goes to this machine directly, whatever the variables for proxies say.
fn agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .build();
    Agent::new_with_config(config)
}

fn open(path: &Path, largest: u64) -> Result<Body, String> {
    // Not opened before it is known to be a file: opening a pipe would wait for its writer.
    let metadata = path.metadata().map_err(|e| e.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    let size = metadata.len();
    if size > largest {
        return Err(format!(
            "it has {size} bytes, and a request at most {largest}"
        ));
    }
    let file = File::open(path).map_err(|e| e.to_string())?;
    Ok(Body {
        path: path.to_owned(),
        file,
        size,
    })
}

/// Why a request failed.
struct Failure {
    text: String,
    /// The status of the response, if there is one.
    status: Option<u16>,
    is_worth_another_try: bool,
}

impl Body {
    fn content_type(&self) -> &'static str {
        let ending = self
            .path
            .extension()
            .and_then(|ending| ending.to_str())
            .unwrap_or_default();
        let known = TYPES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(ending));
        known.map_or("application/octet-stream", |(_, name)| name)
    }

    fn send(&mut self, agent: &Agent, url: &str, left: Option<Duration>) -> Result<(), Failure> {
        let lost = |text: String| Failure {
            text,
            status: None,
            is_worth_another_try: true,
        };
        self.file.rewind().map_err(|e| lost(e.to_string()))?;
        let request = agent
            .post(url)
            .header("Content-Type", self.content_type())
            .header("Content-Length", self.size.to_string())
            .config()
            .timeout_global(left)
            .build();
        let mut response = request.send(&self.file).map_err(|e| match e {
            ureq::Error::Timeout(_) => lost("no response".to_owned()),
            e => lost(e.to_string()),
        })?;
        let status = response.status().as_u16();
        let mut shown = Vec::new();
        let body = response.body_mut().as_reader();
        let read = body.take(SHOWN_BYTES).read_to_end(&mut shown);
        if status == 200 {
            return Ok(());
        }
        let text = match read {
            Ok(_) => printable(&String::from_utf8_lossy(&shown))
                .trim()
                .to_owned(),
            Err(error) => error.to_string(),
        };
        Err(Failure {
            text: format!("status {status}: {text}"),
            status: Some(status),
            is_worth_another_try: AGAIN.contains(&status),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_a_readable_file_of_a_size_that_a_request_may_have() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.JSON");
        std::fs::write(&path, "[1]").unwrap();
        let body = open(&path, 3).unwrap();
        assert_eq!((body.size, body.content_type()), (3, "application/json"));
        for (path, largest, expected) in [
            (path.as_path(), 2, "it has 3 bytes, and a request at most 2"),
            (folder.path(), 9, "it is not a file"),
            (Path::new("/dev/null"), 9, "it is not a file"),
        ] {
            assert_eq!(open(path, largest).unwrap_err(), expected);
        }
        let absent = open(&folder.path().join("b"), 9).unwrap_err();
        assert!(absent.contains("No such file"), "{absent}");
    }
}
