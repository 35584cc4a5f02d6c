//! `sagemaker-tfs-python`: one Python worker. It loads a handler script and runs its functions as `sagemaker-tfs`
//! asks, which starts it and passes it the sockets; nobody else has a use for it.
//!
//! What passes over the sockets is in `worker_protocol/frame.rs` of the library.

// Each channel has a thread here, or all share gevent's.
#![allow(clippy::disallowed_types)]

mod channels;
mod embed;
mod hub;
mod options;
mod script;

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use pyo3::Python;
use rustix::process::{Signal, set_parent_process_death_signal};
use sagemaker_tfs::worker_protocol::frame::{self, Answer};

use crate::channels::Channel;
use crate::embed::Interpreter;
use crate::options::{Options, Overlap};
use crate::script::Script;

/// Python's own threads have this much on Linux, and its limit of recursion is made for it.
const STACK_BYTES: usize = 8 << 20;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sagemaker-tfs-python: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the script could be loaded.
fn run() -> Result<bool, String> {
    let options = Options::parse(std::env::args_os().skip(1)).map_err(|e| e.to_string())?;
    // However the server ends, nothing of it is left. This is asked of the thread that started us, which is the
    // watchdog.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|e| e.to_string())?;
    let mut channels = embed::channels(&options)?;
    let interpreter = match Interpreter::start(&options.python, &options.python_version) {
        Ok(interpreter) => interpreter,
        Err(why) => return say_failed(&channels[0], &why),
    };
    let process = std::process::id();
    let script = Script::load(&options);
    if std::process::id() != process {
        if let Err(why) = &script {
            eprintln!("{why}");
        }
        Python::attach(|py| channels::exit_fork(py, "has loaded the script"));
    }
    let script = match script {
        Ok(script) => Arc::new(script),
        Err(why) => {
            let said = say_failed(&channels[0], &why);
            interpreter.end();
            return said;
        }
    };
    let (shape, has_gevent) = (script.shape(), script.greenlets().is_some());
    let overlap = options.overlap(shape, has_gevent);
    if overlap == Overlap::None {
        // Others wait in the server, and go to the worker that is free first.
        channels.truncate(1);
    }
    let loaded = Answer::Loaded {
        channels: channels.len(),
        shape,
        has_gevent,
    };
    frame::write(&channels[0].socket, &loaded, b"").map_err(|e| e.to_string())?;
    match overlap {
        Overlap::None | Overlap::Alternating => channels::serve(&script, channels),
        Overlap::Greenlets => channels::serve_in_greenlets(&script, channels),
        Overlap::Threads => serve_on_threads(&script, channels),
    }
    drop(script);
    interpreter.end();
    Ok(true)
}

/// Each channel has its thread.
fn serve_on_threads(script: &Script, mut channels: Vec<Channel>) {
    let others = channels.split_off(1);
    thread::scope(|scope| {
        for channel in others {
            let run = move || channels::serve(script, vec![channel]);
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            if let Err(e) = thread.spawn_scoped(scope, run) {
                eprintln!("sagemaker-tfs-python: cannot start a thread: {e}");
                std::process::exit(1);
            }
        }
        // The main thread is one of them: some libraries work there alone.
        channels::serve(script, channels);
    });
}

fn say_failed(channel: &Channel, why: &str) -> Result<bool, String> {
    frame::write(&channel.socket, &Answer::Failed, why.as_bytes()).map_err(|e| e.to_string())?;
    Ok(false)
}
