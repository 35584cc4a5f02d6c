//! The command line: `sagemaker-tfs serve [options]`. Options are the settings that have a flag.

use std::ffi::OsString;

use lexopt::prelude::*;

use crate::config::Vars;
use crate::config::settings::Setting;
use crate::error::StartError;

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Serve models, with the options given written into the variables.
    Serve(Vars),
    /// Print this text and end.
    Print(String),
}

/// Parses the arguments (without the program's name).
///
/// # Errors
/// [`StartError::Settings`] for unknown commands, options and missing values.
pub fn parse(args: impl IntoIterator<Item = OsString>, vars: Vars) -> Result<Command, StartError> {
    parse_lexopt(lexopt::Parser::from_args(args), vars)
        .map_err(|e| StartError::Settings(vec![format!("{e}; see sagemaker-tfs --help")]))
}

fn parse_lexopt(mut parser: lexopt::Parser, mut vars: Vars) -> Result<Command, lexopt::Error> {
    let mut serve = false;
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(Command::Print(help())),
            Short('V') | Long("version") => {
                return Ok(Command::Print(format!(
                    "sagemaker-tfs {}\n",
                    env!("CARGO_PKG_VERSION")
                )));
            }
            Value(command) if !serve && command == "serve" => serve = true,
            Value(other) if !serve => {
                return Err(format!("unknown command {:?}", other.to_string_lossy()).into());
            }
            Long(name) if serve => match Setting::all().find(|s| s.flag == Some(name)) {
                Some(setting) if setting.is_switch() => vars.set_flag(setting, "true".into()),
                Some(setting) => vars.set_flag(setting, parser.value()?.string()?),
                None => return Err(arg.unexpected()),
            },
            _ => return Err(arg.unexpected()),
        }
    }
    if serve {
        Ok(Command::Serve(vars))
    } else {
        Err("a command is missing: sagemaker-tfs serve".into())
    }
}

fn help() -> String {
    let mut text = String::from(
        "Serves TensorFlow models on Amazon SageMaker, in front of TensorFlow Serving.\n\n\
         Usage: sagemaker-tfs serve [OPTIONS]\n\nOptions of serve, each with its environment variable:\n",
    );
    for setting in Setting::all() {
        if let Some(flag) = setting.flag {
            let value = if setting.is_switch() { "" } else { " VALUE" };
            text += &format!(
                "  --{flag}{value}\n      {} [{}; default: {}]\n",
                setting.doc, setting.name, setting.default
            );
        }
    }
    text += "\nOptions:\n  -h, --help     Print this text\n  -V, --version  Print the version\n\n\
             Environment variables:\n";
    for setting in Setting::all().filter(|s| s.flag.is_none()) {
        text += &format!("  {} [default: {}]\n", setting.name, setting.default);
    }
    text += "\nWhat they accept and mean: docs/SETTINGS.md.\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<Command, String> {
        parse(args.iter().map(OsString::from), Vars::default()).map_err(|e| e.to_string())
    }

    #[test]
    fn help_and_version_print() {
        for args in [&["--help"][..], &["serve", "-h"], &["-V"], &["--version"]] {
            assert!(matches!(run(args), Ok(Command::Print(_))), "{args:?}");
        }
    }

    #[test]
    fn serve_takes_the_options_of_the_settings() {
        let Ok(Command::Serve(_)) = run(&[
            "serve",
            "--model-dir",
            "/m",
            "--port=1",
            "--model-server",
            "x",
        ]) else {
            panic!()
        };
    }

    #[test]
    fn everything_else_is_refused_with_a_reason() {
        for (args, part) in [
            (&[][..], "a command is missing"),
            (&["train"], "unknown command \"train\""),
            (&["serve", "--prot", "1"], "--prot"),
            (&["serve", "--port"], "--port"),
            (&["serve", "serve"], "serve"),
            (&["--port", "1", "serve"], "--port"),
        ] {
            let error = run(args).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
