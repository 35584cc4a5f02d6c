//! The executable: parse, build, run, exit code.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;

use sagemaker_tfs::cli::{self, Command};
use sagemaker_tfs::config::{Config, Vars};
use sagemaker_tfs::error::StartError;
use sagemaker_tfs::{allocator, app, logging};

fn main() -> ExitCode {
    let code = match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; the exit code still reports the failure.
            logging::say(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    };
    logging::finish();
    code
}

fn run() -> Result<(), StartError> {
    match cli::parse(std::env::args_os().skip(1), Vars::from_process())? {
        Command::Print(text) => {
            let mut stdout = io::stdout();
            let printed = stdout
                .write_all(text.as_bytes())
                .and_then(|()| stdout.flush());
            printed.map_err(|e| StartError::failed(format!("cannot write to standard output: {e}")))
        }
        Command::Serve(vars) => {
            allocator::settle();
            let cpus = thread::available_parallelism().map_or(1, |n| n.get() as u32);
            app::run(&Config::read(&vars, cpus)?)
        }
    }
}
