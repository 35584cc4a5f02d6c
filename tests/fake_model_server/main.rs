//! A scriptable stand-in for `tensorflow_model_server`, for tests and benchmarks only.
//!
//! It understands the flags `--port`, `--rest_api_port`, `--model_config_file` and
//! `--batching_parameters_file` and ignores all others; `--version` prints a version. It computes nothing: it returns a
//! fixed response or the request itself, and misbehaves on command. Like the real server, it opens its ports only
//! once it has "loaded".
//!
//! | variable | effect |
//! |---|---|
//! | `FAKE_TFS_START_DELAY_MS` | the ports open, or the start fails, only after this time |
//! | `FAKE_TFS_START_EXIT` | the start fails with this exit code and the real server's last lines |
//! | `FAKE_TFS_START_EXIT_AFTER` | this many starts succeed first (counted in the record directory) |
//! | `FAKE_TFS_UNKNOWN_FLAG` | the flag of this name is reported as unknown and ignored, as the real server does |
//! | `FAKE_TFS_IGNORE_SIGTERM` | `1`: only SIGKILL ends the process |
//! | `FAKE_TFS_RECORD` | directory for `start-<k>.json`, see `record.rs` |
//! | `FAKE_TFS_RECORD_REQUESTS` | `1`: every request is appended to `requests-<pid>.jsonl` there |
//! | `FAKE_TFS_ANSWER` | `fixed` (default) or `echo`: the body that inference requests get |
//! | `FAKE_TFS_FIXED_BODY` | the fixed body; default: the response of half_plus_three to 1, 2 and 5 |
//! | `FAKE_TFS_FIXED_BODY_BYTES` | instead: a fixed body of about this many bytes |
//! | `FAKE_TFS_POST_BODIES_ONLY` | `1`: bodies of methods other than POST are not read and become the next request, as with libevent 2.1.8 |
//! | `FAKE_TFS_MAX_DEPTH` | JSON nested deeper than this ends the process, like an overflow of the stack |
//!
//! The file `fake_start` in a model's folder controls starts with that model (`order.rs`). The file `fake_status` there
//! sets the states of its versions (`models.rs`). `command.rs` describes commands in requests, `service.rs` the control
//! route and the counters.

#![forbid(unsafe_code)]
// Every connection has a thread, so the standard blocking calls are fine here.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod command;
mod http;
mod models;
mod order;
mod record;
mod service;
mod settings;

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{self, Command};
use std::sync::Arc;
use std::{env, io, thread};

use record::Record;
use service::Service;
use settings::Settings;

/// Set when a process that is to ignore SIGTERM has started itself again.
const SIGTERM_IGNORED: &str = "FAKE_TFS_SIGTERM_IGNORED";

fn main() {
    if let Err(problem) = run() {
        eprintln!("fake_model_server: {problem}");
        process::exit(1);
    }
}

fn run() -> Result<(), String> {
    if env::args().any(|arg| arg == "--version") {
        println!("TensorFlow ModelServer: 0.0.0+dev.sha.no_git\nTensorFlow Library: 1.12.3");
        return Ok(());
    }
    let settings = Settings::from_process()?;
    if settings.ignore_sigterm && env::var_os(SIGTERM_IGNORED).is_none() {
        return Err(format!(
            "cannot ignore SIGTERM: {}",
            restart_without_sigterm()
        ));
    }

    let record = settings.record_dir.as_deref().map(Record::new);
    let start_number = match &record {
        Some(record) => record
            .start(&settings)
            .map_err(|e| format!("cannot record the start: {e}"))?,
        None => 0,
    };
    if let Some(argument) = &settings.unknown_argument {
        // Like the real server, it continues without the flag.
        println!("unknown argument: {argument}\nusage: fake_model_server");
    }
    thread::sleep(settings.start_delay);
    let ordered = order::obey(settings.model_config.as_deref().unwrap_or(""));
    let commanded = settings.start_exit;
    let commanded = commanded.filter(|_| start_number >= settings.start_exit_after);
    let commanded = commanded.map(|code| (code, order::NO_FILE));
    if let Some((code, error)) = ordered.or(commanded) {
        eprintln!("I fake/server_core.cc:471] Adding/updating models.");
        eprintln!("E fake/util.cc:82] Loading servable failed: {error}");
        eprintln!("Failed to start server. Error: Unknown: 1 servable(s) did not become available");
        process::exit(code);
    }

    // Nothing accepts gRPC connections, so they stay in the listening queue.
    let _grpc = listen("--port", settings.grpc_port)?;
    let rest = listen("--rest_api_port", settings.rest_port)?;
    eprintln!(
        "I fake/server.cc:430] Running gRPC ModelServer at 127.0.0.1:{} ...",
        settings.grpc_port
    );
    eprintln!(
        "I fake/server.cc:451] Exporting HTTP/REST API at:localhost:{} ...",
        settings.rest_port
    );

    let service = Arc::new(Service::new(&settings, record));
    loop {
        let (stream, _) = rest
            .accept()
            .map_err(|e| format!("cannot accept a connection: {e}"))?;
        let service = Arc::clone(&service);
        // An error means that the client hung up or broke the protocol, which ends only its connection.
        thread::spawn(move || drop(service.serve(&stream)));
    }
}

fn listen(flag: &str, port: u16) -> Result<TcpListener, String> {
    TcpListener::bind(("127.0.0.1", port))
        .map_err(|e| format!("cannot listen on port {port} ({flag}): {e}"))
}

/// Starts this program again in the same process with SIGTERM ignored. Ignored signals stay ignored across `exec`, and
/// a shell can ignore one without `unsafe` code here. Returns only on an error.
fn restart_without_sigterm() -> io::Error {
    match env::current_exe() {
        Ok(program) => Command::new("sh")
            .args(["-c", "trap '' TERM; exec \"$0\" \"$@\""])
            .arg(program)
            .args(env::args_os().skip(1))
            .env(SIGTERM_IGNORED, "1")
            .exec(),
        Err(error) => error,
    }
}
