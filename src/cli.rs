//! The command line: `sagemaker-tfs serve [OPTIONS]`.
//!
//! The options are the settings that have a flag. Parsing stores their values in [`Vars`];
//! [`Config::read`](crate::config::Config::read) checks them.

use std::ffi::OsString;

use lexopt::prelude::*;

use crate::config::Vars;
use crate::config::settings::Setting;
use crate::error::StartError;

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Serve models with these variables, into which the given options are written.
    Serve(Vars),
    /// Print this text and exit.
    Print(String),
}

/// Parses the arguments, which come without the program's name.
///
/// # Errors
/// [`StartError::Settings`] for a missing or unknown command, an unknown option, or an option without its value.
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
        Err("the command is missing: run sagemaker-tfs serve".into())
    }
}

fn help() -> String {
    let mut text = String::from(
        "Serves TensorFlow models on Amazon SageMaker, with TensorFlow Serving behind it.\n\n\
         Usage: sagemaker-tfs serve [OPTIONS]\n\nOptions of serve, with their environment variables:\n",
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
    text += "\nOther options:\n  -h, --help     Print this help\n  -V, --version  Print the version\n\n\
             Settings without an option, as environment variables:\n";
    for setting in Setting::all().filter(|s| s.flag.is_none()) {
        text += &format!("  {} [default: {}]\n", setting.name, setting.default);
    }
    text += "\ndocs/SETTINGS.md says what each setting means and accepts.\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<Command, String> {
        parse(args.iter().map(OsString::from), Vars::default()).map_err(|e| e.to_string())
    }

    #[test]
    fn help_and_version_print_and_exit() {
        for args in [&["--help"][..], &["serve", "-h"], &["-V"], &["--version"]] {
            assert!(matches!(run(args), Ok(Command::Print(_))), "{args:?}");
        }
    }

    #[test]
    fn serve_accepts_the_options_of_settings() {
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
    fn refuses_other_arguments_with_a_reason() {
        for (args, part) in [
            (&[][..], "the command is missing"),
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
