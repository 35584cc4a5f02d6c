//! The executable: parse, build, run, exit code.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;

use sagemaker_tfs::cli::{self, Command};
use sagemaker_tfs::config::{Config, Vars};
use sagemaker_tfs::error::StartError;
use sagemaker_tfs::logging::printable;
use sagemaker_tfs::serve;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.to_string().lines() {
                // Standard error may be closed; the exit code still tells.
                let _ = writeln!(io::stderr(), "sagemaker-tfs: {}", printable(line));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn run() -> Result<(), StartError> {
    match cli::parse(std::env::args_os().skip(1), Vars::from_process())? {
        Command::Print(text) => {
            print!("{text}");
            Ok(())
        }
        Command::Serve(vars) => {
            let cpus = thread::available_parallelism().map_or(1, |n| n.get() as u32);
            serve::run(&Config::read(&vars, cpus)?)
        }
    }
}
