//! The flags we give TensorFlow Serving, and what to say when it does not know one.
//!
//! It only prints `unknown argument: ...` and goes on without the flag: what was asked for would silently not happen.

use crate::config::settings::Setting;
use crate::config::settings::model_server::{BATCHING, INSTANCE_COUNT, INTER_OP, INTRA_OP};

struct Flag {
    name: &'static str,
    /// The first version of TensorFlow Serving that has it.
    since: &'static str,
    /// Set by the user, it makes us pass the flag. `None`: it is always passed.
    setting: Option<&'static Setting>,
}

const fn flag(name: &'static str, since: &'static str, setting: Option<&'static Setting>) -> Flag {
    Flag {
        name,
        since,
        setting,
    }
}

/// All flags that we pass.
const FLAGS: &[Flag] = &[
    flag("port", "1.4", None),
    flag("model_config_file", "1.4", None),
    flag("rest_api_port", "1.8", None),
    flag("rest_api_num_threads", "1.8", None),
    flag("rest_api_timeout_in_ms", "1.8", None),
    flag("max_num_load_retries", "1.11", None),
    flag("enable_batching", "1.4", Some(&BATCHING.setting)),
    flag("batching_parameters_file", "1.4", Some(&BATCHING.setting)),
    flag(
        "per_process_gpu_memory_fraction",
        "1.5",
        Some(&INSTANCE_COUNT.setting),
    ),
    flag(
        "tensorflow_inter_op_parallelism",
        "1.13",
        Some(&INTER_OP.setting),
    ),
    flag(
        "tensorflow_intra_op_parallelism",
        "1.13",
        Some(&INTRA_OP.setting),
    ),
];

/// How the line begins that names a flag TensorFlow Serving does not know.
const UNKNOWN: &str = "unknown argument: ";

/// The argument that a line of TensorFlow Serving's output calls unknown.
pub fn unknown_argument(line: &str) -> Option<&str> {
    line.strip_prefix(UNKNOWN)
}

/// Says that TensorFlow Serving does not know `argument`. `version` is its version, as far as that can be found out.
pub fn refusal(argument: &str, version: Option<&str>) -> String {
    let name = argument.trim_start_matches('-');
    let name = name.split('=').next().unwrap_or(name);
    let known = FLAGS.iter().find(|flag| flag.name == name);
    let mut text = match version {
        Some(version) => format!("TensorFlow Serving {version} does not know the flag --{name}"),
        None => format!("this TensorFlow Serving does not know the flag --{name}"),
    };
    if let Some(flag) = known {
        text += &format!(", which it has from version {} on", flag.since);
    }
    text += &match known.and_then(|flag| flag.setting) {
        Some(setting) => format!("; unset {}, or use a newer version", setting.name),
        None => "; use a newer version".to_owned(),
    };
    text
}

/// The version in what `tensorflow_model_server --version` prints. That of the library is the release's; the one of the
/// server itself often reads `0.0.0` or like a development version.
pub fn parse_version(output: &str) -> Option<&str> {
    let after = |name: &str| output.lines().find_map(|line| line.strip_prefix(name));
    let version = after("TensorFlow Library:").or_else(|| after("TensorFlow ModelServer:"))?;
    Some(version.trim()).filter(|version| !version.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_named_with_versions_and_setting() {
        let argument = unknown_argument("unknown argument: --tensorflow_inter_op_parallelism=4");
        assert_eq!(
            refusal(argument.unwrap(), Some("1.12")),
            "TensorFlow Serving 1.12 does not know the flag --tensorflow_inter_op_parallelism, which it has from \
             version 1.13 on; unset SAGEMAKER_TFS_INTER_OP_PARALLELISM, or use a newer version"
        );
        assert_eq!(
            refusal("--max_num_load_retries=0", None),
            "this TensorFlow Serving does not know the flag --max_num_load_retries, which it has from version 1.11 \
             on; use a newer version"
        );
        assert_eq!(
            refusal("stray", None),
            "this TensorFlow Serving does not know the flag --stray; use a newer version"
        );
    }

    #[test]
    fn other_lines_name_no_argument() {
        for line in [
            "",
            "usage: tensorflow_model_server",
            "Unknown argument: --x",
            "2026-01-31 12:00:00: I main.cc:1] unknown argument: --x",
        ] {
            assert_eq!(unknown_argument(line), None, "{line}");
        }
    }

    #[test]
    fn the_version_is_that_of_the_library() {
        let output = "TensorFlow ModelServer: 0.0.0+dev.sha.no_git\nTensorFlow Library: 1.12.0\n";
        assert_eq!(parse_version(output), Some("1.12.0"));
        assert_eq!(
            parse_version("TensorFlow ModelServer: 2.19.0"),
            Some("2.19.0")
        );
        assert_eq!(parse_version("TensorFlow Library: \n"), None);
        assert_eq!(parse_version("something else"), None);
    }

    #[test]
    fn every_flag_that_is_passed_is_listed() {
        use crate::config::settings::model_server::TFS_VERSION;
        use crate::config::{Config, Vars};
        use crate::tfs::command::launches;
        use crate::tfs::files::Files;

        let vars = [
            (INTER_OP.name, "2"),
            (INTRA_OP.name, "2"),
            (INSTANCE_COUNT.name, "2"),
            (BATCHING.name, "true"),
            (TFS_VERSION.name, "1.12"),
        ];
        let vars = vars.map(|(name, value)| (name.into(), value.into()));
        let config = Config::read(&Vars::from_variables(vars), 1).unwrap();
        let files = Files::write(&config, &[]).unwrap();
        let launches = launches(&config, &files, &config.instance_ports, 2);
        let mut passed: Vec<_> = launches[0]
            .args
            .iter()
            .map(|arg| {
                let arg = arg.to_str().unwrap().trim_start_matches('-');
                arg.split('=').next().unwrap().to_owned()
            })
            .collect();
        let mut listed: Vec<_> = FLAGS.iter().map(|flag| flag.name.to_owned()).collect();
        passed.sort();
        listed.sort();
        assert_eq!(passed, listed);
        assert_eq!(launches[0].version.as_deref(), Some("1.12"));
    }
}
