//! `sagemaker-tfs-python`: one Python worker. It loads a handler script and runs the script's functions.
//!
//! Only `sagemaker-tfs` starts this program. It passes the sockets on which it sends calls, and the record of begun
//! calls; `sagemaker_tfs::worker_protocol` defines both. This program embeds Python; watching and restarting it is left
//! to the server.

// Coroutines do not exist in this program, so blocking locks are fine.
#![allow(clippy::disallowed_types)]

mod channels;
mod convert;
mod embed;
mod hub;
mod options;
mod script;
mod source;

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

/// Stack of a thread that runs Python: the size that Python's own threads have on Linux, for which its recursion limit
/// is chosen.
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

/// Runs the worker until the server closes the channels. `false` when the script cannot be loaded, which the server
/// then knows.
fn run() -> Result<bool, String> {
    let options = Options::parse(std::env::args_os().skip(1)).map_err(|e| e.to_string())?;
    // The worker must not outlive the server, however the server ends. The signal comes when the thread that started
    // the worker ends (`PR_SET_PDEATHSIG`, `prctl(2)`); that thread is the watchdog, which lives as long as the server.
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
            let reported = say_failed(&channels[0], &why);
            interpreter.end();
            return reported;
        }
    };
    let (shape, has_gevent) = (script.shape(), script.greenlets().is_some());
    let overlap = options.overlap(shape, has_gevent);
    if overlap == Overlap::None {
        // Other requests wait in the server, which sends each to the first free worker.
        channels.truncate(1);
    }
    let loaded = Answer::Loaded {
        channels: channels.len(),
        shape,
        has_gevent,
        converts: script.converts(),
    };
    if overlap == Overlap::Threads && channels.len() > 1 {
        script.share_event_loop()?;
    }
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

/// Serves each channel on its own thread.
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
        // The main thread serves the first channel, because some libraries work on the main thread only.
        channels::serve(script, channels);
    });
}

/// Tells the server why the script cannot be loaded. Returns `Ok(false)`, the result of [`run`].
fn say_failed(channel: &Channel, why: &str) -> Result<bool, String> {
    frame::write(&channel.socket, &Answer::Failed, why.as_bytes()).map_err(|e| e.to_string())?;
    Ok(false)
}
