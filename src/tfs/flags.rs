//! The error message for a version of TFS that does not know a flag which we pass.
//!
//! TFS itself only prints `unknown argument: ...` and continues without the flag, so the setting behind it would
//! silently have no effect. `config/tfs_flags.rs` has the flags of all versions.

use crate::config::settings::tuning::EXTRA_ARGS;
use crate::config::tfs_flags::{self, Own};

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
    let mut text = match version {
        Some(version) => format!("TensorFlow Serving {version} does not know the flag --{name}"),
        None => format!("this TensorFlow Serving does not know the flag --{name}"),
    };
    if let Some(flag) = tfs_flags::find(name) {
        text += &format!(", which version {} added", flag.added());
    }
    text += &match tfs_flags::own(name) {
        Some(Own::For(setting)) => format!("; unset {}, or use a newer version", setting.name),
        Some(_) => "; use a newer version".to_owned(),
        None => format!(
            "; remove it from {}, or use a version that has it",
            EXTRA_ARGS.name
        ),
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
            refusal("--mixed_precision=bfloat16", Some("2.12")),
            "TensorFlow Serving 2.12 does not know the flag --mixed_precision, which version 2.15.1 added; remove it \
             from SAGEMAKER_TFS_EXTRA_ARGS, or use a version that has it"
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
            let since = tfs_flags::find(name).map(|flag| flag.added());
            assert_eq!(since, version.split('"').next(), "{name}");
        }
    }

    #[test]
    fn the_table_lists_exactly_the_flags_that_we_pass() {
        use std::collections::BTreeMap;

        use crate::config::settings::{batching, model_server, tuning};
        use crate::config::{Config, Vars};
        use crate::tfs::command::launches;
        use crate::tfs::files::Files;

        let passed = |more: &[(&'static str, &str)]| {
            let vars = [
                (model_server::INSTANCE_COUNT.name, "2"),
                (batching::BATCHING.name, "true"),
                (batching::PER_MODEL_BATCHING.name, "true"),
                (tuning::WARMUP_ITERATIONS.name, "3"),
                (tuning::XLA_CPU.name, "true"),
                (tuning::VERSION_LABELS.name, "stable=1"),
                (model_server::TFS_VERSION.name, "2.19"),
            ];
            let vars = [&vars, more].concat().into_iter();
            let vars = vars.map(|(name, value)| (name.into(), value.into()));
            let config = Config::read(&Vars::from_variables(vars), 1).unwrap();
            let files = Files::write(&config, &[], &BTreeMap::new()).unwrap();
            let launches = launches(&config, &files, &config.instance_ports, 2);
            assert_eq!(launches[0].version.as_deref(), Some("2.19"));
            let args = launches[0]
                .args
                .iter()
                .map(|arg| arg.to_str().unwrap().to_owned());
            args.collect::<Vec<_>>()
        };
        let name = |arg: &String| {
            arg.trim_start_matches('-')
                .split('=')
                .next()
                .unwrap()
                .to_owned()
        };
        let one = passed(&[
            (model_server::INTER_OP.name, "2"),
            (model_server::INTRA_OP.name, "2"),
        ]);
        let other = passed(&[
            (tuning::SESSION_PARALLELISM.name, "2"),
            (
                tuning::EXTRA_ARGS.name,
                "--enable_profiler '--saved_model_tags=a b'",
            ),
        ]);
        assert_eq!(
            other[other.len() - 2..],
            ["--enable_profiler", "--saved_model_tags=a b"]
        );
        let mut passed: Vec<_> = one
            .iter()
            .chain(&other[..other.len() - 2])
            .map(name)
            .collect();
        let mut listed: Vec<_> = tfs_flags::passed().collect();
        passed.sort();
        passed.dedup();
        listed.sort_unstable();
        assert_eq!(passed, listed);
    }
}
