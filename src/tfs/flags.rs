//! The flags that we pass to TFS, and the error message for a version that does not know one of them.
//!
//! TFS itself only prints `unknown argument: ...` and continues without the flag, so the setting behind it would
//! silently have no effect.

use crate::config::settings::Setting;
use crate::config::settings::model_server::{BATCHING, INSTANCE_COUNT, INTER_OP, INTRA_OP};

struct Flag {
    name: &'static str,
    /// The first version of TFS that has the flag.
    since: &'static str,
    /// The setting that makes us pass the flag; `None` if we always pass it.
    setting: Option<&'static Setting>,
}

const fn flag(name: &'static str, since: &'static str, setting: Option<&'static Setting>) -> Flag {
    Flag {
        name,
        since,
        setting,
    }
}

/// All flags that we pass. The versions are those of the TFS releases that added them.
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

/// The beginning of TFS's message about a flag that it does not know.
const UNKNOWN: &str = "unknown argument: ";

/// The argument that this line of TFS's output calls unknown; `None` for any other line.
pub fn unknown_argument(line: &str) -> Option<&str> {
    line.strip_prefix(UNKNOWN)
}

/// The error message when TFS does not know `argument`. `version` is the version of TFS, if we know it.
pub fn refusal(argument: &str, version: Option<&str>) -> String {
    let name = argument.trim_start_matches('-');
    let name = name.split('=').next().unwrap_or(name);
    let known = FLAGS.iter().find(|flag| flag.name == name);
    let mut text = match version {
        Some(version) => format!("TensorFlow Serving {version} does not know the flag --{name}"),
        None => format!("this TensorFlow Serving does not know the flag --{name}"),
    };
    if let Some(flag) = known {
        text += &format!(", which version {} added", flag.since);
    }
    text += &match known.and_then(|flag| flag.setting) {
        Some(setting) => format!("; unset {}, or use a newer version", setting.name),
        None => "; use a newer version".to_owned(),
    };
    text
}

/// The version of TFS in the output of `tensorflow_model_server --version`. The version of the TensorFlow library is
/// that of the release; the server's own version is often `0.0.0` or that of a development build, so it comes second.
pub fn parse_version(output: &str) -> Option<&str> {
    let after = |name: &str| output.lines().find_map(|line| line.strip_prefix(name));
    let version = after("TensorFlow Library:").or_else(|| after("TensorFlow ModelServer:"))?;
    Some(version.trim()).filter(|version| !version.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_names_the_flag_the_versions_and_the_setting() {
        let argument = unknown_argument("unknown argument: --tensorflow_inter_op_parallelism=4");
        assert_eq!(
            refusal(argument.unwrap(), Some("1.12")),
            "TensorFlow Serving 1.12 does not know the flag --tensorflow_inter_op_parallelism, which version \
             1.13 added; unset SAGEMAKER_TFS_INTER_OP_PARALLELISM, or use a newer version"
        );
        assert_eq!(
            refusal("--max_num_load_retries=0", None),
            "this TensorFlow Serving does not know the flag --max_num_load_retries, which version 1.11 added; \
             use a newer version"
        );
        assert_eq!(
            refusal("stray", None),
            "this TensorFlow Serving does not know the flag --stray; use a newer version"
        );
    }

    #[test]
    fn unknown_argument_is_none_for_other_lines() {
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
    fn parse_version_prefers_the_version_of_the_library() {
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
    fn versions_toml_has_the_versions_of_this_table() {
        let versions = include_str!("../../docker/versions.toml");
        let needs = versions.split_once("\n[needs]\n").unwrap().1;
        let needs = needs.lines().map_while(|line| line.split_once(" = \""));
        let mut flags: Vec<_> = needs.collect();
        flags.retain(|(name, _)| *name != "model_status"); // a route, not a flag
        assert_eq!(flags.len(), 4);
        for (name, version) in flags {
            let flag = FLAGS.iter().find(|flag| flag.name == name);
            let since = flag.map(|flag| flag.since);
            assert_eq!(since, version.split('"').next(), "{name}");
        }
    }

    #[test]
    fn the_table_lists_exactly_the_flags_that_we_pass() {
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
