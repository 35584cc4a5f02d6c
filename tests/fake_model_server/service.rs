//! The routes and their responses.
//!
//! | route | response |
//! |---|---|
//! | `GET /v1/models/NAME[/versions/V]` | the status, in the state set by the control route |
//! | `GET /v1/models/NAME[/versions/V]/metadata` | the signatures, from a file (`models.rs`) |
//! | `POST /v1/models/NAME[/versions/V]:predict`, `:classify`, `:regress` | the fixed body or the echo, after the command in the body (`command.rs`) |
//! | `POST /fake/control` | accepts `{"state": S}`, `{"freeze": bool}`, `{"hold": bool}`, `{"command": C}` and combinations |
//! | `GET /fake/stats` | the counters |
//!
//! The state is any text; in the state `hang_status`, status requests are held until it changes. The file
//! `metadata_order` in the record directory, until it is removed, says what happens to requests for signatures: `exit`
//! ends the process, and any other text holds those whose path contains it. `freeze` holds status
//! and inference requests, `hold` only inference requests. `command` applies to inference requests without their own
//! command (CSV and image requests cannot carry one); `null` removes it.
//!
//! The counters `requests`, `in_flight` and `max_in_flight` count inference requests, `status_requests` status
//! requests, `connections` all connections ever accepted, and `late` the texts sent after responses.

use std::borrow::Cow;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, process, thread};

use serde_json::{Map, Value, json};

use crate::command::{Close, Command, Exit};
use crate::http::{self, Reader, Request};
use crate::models::Models;
use crate::record::Record;
use crate::settings::Settings;

/// Larger bodies are neither searched for commands nor recorded, so they pass at full speed.
pub const SCANNED_BODY_BYTES: usize = 64 * 1024;

pub struct Service {
    models: Models,
    echo: bool,
    fixed_body: String,
    post_bodies_only: bool,
    max_depth: Option<usize>,
    record: Option<Record>,
    record_requests: bool,
    control: Mutex<Control>,
    control_changed: Condvar,
    stats: Stats,
}

struct Control {
    state: String,
    frozen: bool,
    held: bool,
    command: Option<Map<String, Value>>,
}

#[derive(Default)]
struct Stats {
    requests: AtomicU64,
    status_requests: AtomicU64,
    connections: AtomicU64,
    in_flight: AtomicU64,
    max_in_flight: AtomicU64,
    late: AtomicU64,
}

struct Response<'a> {
    status: u16,
    body: Cow<'a, [u8]>,
    close: Option<Close>,
    /// Sent in place of head and body.
    raw: Option<String>,
    /// Sent this long after the response.
    late: Option<(String, Duration)>,
}

impl Service {
    pub fn new(settings: &Settings, record: Option<Record>) -> Self {
        Self {
            models: Models::parse(settings.model_config.as_deref().unwrap_or("")),
            echo: settings.echo,
            fixed_body: settings.fixed_body.clone(),
            post_bodies_only: settings.post_bodies_only,
            max_depth: settings.max_depth,
            record,
            record_requests: settings.record_requests,
            control: Mutex::new(Control {
                state: "AVAILABLE".to_owned(),
                frozen: false,
                held: false,
                command: None,
            }),
            control_changed: Condvar::new(),
            stats: Stats::default(),
        }
    }

    /// Serves the requests of one connection until it ends.
    pub fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        let connection = self.stats.connections.fetch_add(1, Relaxed);
        stream.set_nodelay(true)?;
        let keep = if self.echo || self.max_depth.is_some() {
            usize::MAX
        } else {
            SCANNED_BODY_BYTES
        };
        let mut reader = Reader::new(stream, keep, self.post_bodies_only);
        while let Some(request) = reader.next()? {
            if let Some(record) = &self.record
                && self.record_requests
                && !request.target.starts_with("/fake/")
            {
                record.request(connection, &request)?;
            }
            let response = self.respond(&request);
            let carried = match response.close {
                Some(Close::Before) => break,
                Some(Close::Middle) => response.body.len() / 2,
                Some(Close::After) | None => response.body.len(),
            };
            match &response.raw {
                Some(raw) => (&*stream).write_all(raw.as_bytes())?,
                None => http::write_response(stream, response.status, &response.body, carried)?,
            }
            if let Some((late, after)) = &response.late {
                thread::sleep(*after);
                let sent = (&*stream).write_all(late.as_bytes());
                self.stats.late.fetch_add(1, Relaxed);
                sent?;
            }
            if response.close.is_some() || !request.keep_alive {
                break;
            }
        }
        stream.shutdown(Shutdown::Both)
    }

    fn respond<'a>(&'a self, request: &'a Request) -> Response<'a> {
        let (method, target) = (request.method, request.target);
        match (method, target) {
            ("POST", "/fake/control") => return self.set_control(request),
            ("GET", "/fake/stats") => return Response::json(200, &self.stats.to_json()),
            _ => {}
        }
        if let (Some(path), "GET") = (target.strip_suffix("/metadata"), method)
            && let Some(metadata) = self.metadata(path)
        {
            return Response::new(200, metadata);
        }
        match (method, ModelPath::parse(target)) {
            ("GET", Some(path)) if path.verb.is_none() => self.status(&path),
            ("POST", Some(path)) if path.verb.is_some() => self.infer(request, &path),
            _ => Response::error(400, &format!("Malformed request: {method} {target}")),
        }
    }

    fn metadata(&self, path: &str) -> Option<Vec<u8>> {
        while let Some(order) = self.record.as_ref().and_then(Record::metadata_order) {
            match order.as_str() {
                "exit" => process::exit(3),
                part if path.contains(part) => thread::sleep(Duration::from_millis(5)),
                _ => break,
            }
        }
        let path = ModelPath::parse(path)?;
        self.models.metadata(path.name, path.version)
    }

    fn status(&self, path: &ModelPath) -> Response<'static> {
        let name = path.name;
        self.stats.status_requests.fetch_add(1, Relaxed);
        let control = self.wait_while(|control| control.frozen || control.state == "hang_status");
        match self.models.status(name, path.version, &control.state) {
            Some(body) => Response::new(200, body.into_bytes()),
            None => Response::error(404, &format!("Could not find any versions of model {name}")),
        }
    }

    fn infer<'a>(&'a self, request: &'a Request, path: &ModelPath) -> Response<'a> {
        let _in_flight = self.stats.enter();
        let standing = self
            .wait_while(|control| control.frozen || control.held)
            .command
            .clone();
        let body = request.whole_body();
        if let (Some(limit), Some(body)) = (self.max_depth, body)
            && depth(body) > limit
        {
            eprintln!("fake_model_server: the stack overflows");
            process::abort();
        }
        let scanned = body.filter(|body| body.len() <= SCANNED_BODY_BYTES);
        let command = scanned.and_then(Command::in_body).or(standing);
        let command = match command.map(|command| Command::parse(&command, self.record.as_ref())) {
            Some(Ok(command)) => command,
            Some(Err(problem)) => return Response::error(500, &problem),
            None => Command::default(),
        };

        if !command.delay.is_zero() {
            thread::sleep(command.delay);
        }
        match command.exit {
            Some(Exit::Code(code)) => {
                eprintln!("fake_model_server: exits with code {code} as commanded");
                process::exit(code);
            }
            Some(Exit::Abort) => {
                eprintln!("fake_model_server: aborts as commanded");
                process::abort();
            }
            None => {}
        }
        if command.hang {
            loop {
                thread::park();
            }
        }
        let (name, version) = (path.name, path.version);
        if !self.models.has(name, version) {
            let wanted = version.map_or(format!("Latest({name})"), |version| {
                format!("Specific({name}, {version})")
            });
            return Response::error(404, &format!("Servable not found for request: {wanted}"));
        }
        let usual = if self.echo || command.echo {
            body
        } else {
            None
        };
        let usual = Cow::Borrowed(usual.unwrap_or(self.fixed_body.as_bytes()));
        let body = command
            .body
            .map_or(usual, |body| Cow::Owned(body.into_bytes()));
        Response {
            status: command.status.unwrap_or(200),
            body,
            close: command.close,
            raw: command.raw,
            late: command.late.map(|text| (text, command.late_after)),
        }
    }

    fn set_control(&self, request: &Request) -> Response<'static> {
        let Some(Value::Object(wanted)) = request
            .whole_body()
            .and_then(|b| serde_json::from_slice(b).ok())
        else {
            return Response::error(400, "a JSON object is required");
        };
        let mut control = self.lock();
        for (name, value) in &wanted {
            match (name.as_str(), value) {
                ("state", Value::String(state)) => control.state.clone_from(state),
                ("freeze", Value::Bool(freeze)) => control.frozen = *freeze,
                ("hold", Value::Bool(hold)) => control.held = *hold,
                ("command", Value::Object(command)) => control.command = Some(command.clone()),
                ("command", Value::Null) => control.command = None,
                _ => {
                    return Response::error(
                        400,
                        &format!("control not understood: {name}: {value}"),
                    );
                }
            }
        }
        self.control_changed.notify_all();
        Response::json(200, &json!({}))
    }

    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, held: impl FnMut(&mut Control) -> bool) -> MutexGuard<'_, Control> {
        let waited = self.control_changed.wait_while(self.lock(), held);
        waited.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Response<'_> {
    fn new(status: u16, body: Vec<u8>) -> Self {
        Self {
            status,
            body: Cow::Owned(body),
            close: None,
            raw: None,
            late: None,
        }
    }

    fn json(status: u16, value: &Value) -> Self {
        Self::new(status, value.to_string().into_bytes())
    }

    /// An error in the layout of the real server.
    fn error(status: u16, text: &str) -> Self {
        Self::new(
            status,
            format!("{{\n    \"error\": {}\n}}", json!(text)).into_bytes(),
        )
    }
}

/// The depth to which the brackets of a document are nested.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// `/v1/models/NAME[/versions/V][:VERB]`. The name is not decoded, as in TensorFlow Serving up to 2.2.
struct ModelPath<'a> {
    name: &'a str,
    version: Option<&'a str>,
    verb: Option<&'a str>,
}

impl<'a> ModelPath<'a> {
    fn parse(target: &'a str) -> Option<Self> {
        let path = target
            .strip_prefix("/v1/models/")
            .filter(|path| !path.contains('?'))?;
        let (model, verb) = match path.rsplit_once(':') {
            Some((model, verb)) => (model, Some(verb)),
            None => (path, None),
        };
        let (name, version) = match model.split_once("/versions/") {
            Some((name, version)) => (name, Some(version)),
            None => (model, None),
        };
        let known = verb.is_none_or(|verb| ["predict", "classify", "regress"].contains(&verb));
        (known && !name.contains('/')).then_some(Self {
            name,
            version,
            verb,
        })
    }
}

impl Stats {
    /// Counts an inference request as in flight until the result is dropped.
    fn enter(&self) -> impl Drop + use<'_> {
        struct InFlight<'a>(&'a Stats);
        impl Drop for InFlight<'_> {
            fn drop(&mut self) {
                self.0.in_flight.fetch_sub(1, Relaxed);
            }
        }
        self.requests.fetch_add(1, Relaxed);
        let now = self.in_flight.fetch_add(1, Relaxed) + 1;
        self.max_in_flight.fetch_max(now, Relaxed);
        InFlight(self)
    }

    fn to_json(&self) -> Value {
        json!({
            "requests": self.requests.load(Relaxed),
            "status_requests": self.status_requests.load(Relaxed),
            "connections": self.connections.load(Relaxed),
            "in_flight": self.in_flight.load(Relaxed),
            "max_in_flight": self.max_in_flight.load(Relaxed),
            "late": self.late.load(Relaxed),
        })
    }
}
