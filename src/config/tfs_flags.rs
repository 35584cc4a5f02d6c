//! The flags of TensorFlow Serving: which versions have them, and which ones the server sets itself.
//!
//! `tfs_flags.tsv` has a line for each flag: its name, the first version that has it, and the last one seen.

use crate::config::settings::Setting;
use crate::config::settings::batching::{BATCHING, PER_MODEL_BATCHING};
use crate::config::settings::model_server::{
    DEFAULT_MODEL_NAME, GPU_MARGIN, INSTANCE_COUNT, INTER_OP, INTRA_OP, PORT_RANGE,
};
use crate::config::settings::server::DEADLINE;
use crate::config::settings::tuning::{
    SESSION_PARALLELISM, VERSION_LABELS, WARMUP_ITERATIONS, XLA_CPU,
};

const TABLE: &str = include_str!("tfs_flags.tsv");

/// A flag of some version of TensorFlow Serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    first: &'static str,
    last: &'static str,
}

/// How the server uses a flag.
#[derive(Debug, Clone, Copy)]
pub enum Own {
    /// It passes the flag always. The setting decides about its value, if there is one.
    Always(Option<&'static Setting>),
    /// It passes the flag because of this setting.
    For(&'static Setting),
    /// It never passes the flag, which contradicts another one that it passes. The setting is there instead, if any.
    Never(Option<&'static Setting>),
}

/// The flags that users cannot give, because the server does.
static OWN: &[(&str, Own)] = &[
    ("port", Own::Always(Some(&PORT_RANGE.setting))),
    ("rest_api_port", Own::Always(Some(&PORT_RANGE.setting))),
    ("model_config_file", Own::Always(None)),
    ("rest_api_num_threads", Own::Always(None)),
    (
        "rest_api_timeout_in_ms",
        Own::Always(Some(&DEADLINE.setting)),
    ),
    ("max_num_load_retries", Own::Always(None)),
    ("file_system_poll_wait_seconds", Own::Always(None)),
    ("enable_batching", Own::For(&BATCHING.setting)),
    ("batching_parameters_file", Own::For(&BATCHING.setting)),
    (
        "enable_per_model_batching_parameters",
        Own::For(&PER_MODEL_BATCHING.setting),
    ),
    (
        "tensorflow_inter_op_parallelism",
        Own::For(&INTER_OP.setting),
    ),
    (
        "tensorflow_intra_op_parallelism",
        Own::For(&INTRA_OP.setting),
    ),
    (
        "tensorflow_session_parallelism",
        Own::For(&SESSION_PARALLELISM.setting),
    ),
    (
        "num_request_iterations_for_warmup",
        Own::For(&WARMUP_ITERATIONS.setting),
    ),
    ("xla_cpu_compilation_enabled", Own::For(&XLA_CPU.setting)),
    (
        "allow_version_labels_for_unavailable_models",
        Own::For(&VERSION_LABELS.setting),
    ),
    (
        "per_process_gpu_memory_fraction",
        Own::For(&INSTANCE_COUNT.setting),
    ),
    ("model_name", Own::Never(Some(&DEFAULT_MODEL_NAME.setting))),
    ("model_base_path", Own::Never(None)),
    // It makes TensorFlow Serving ignore the flags for batching, threads and GPUs.
    ("platform_config_file", Own::Never(None)),
    // It makes TensorFlow Serving print its version and end.
    ("version", Own::Never(None)),
];

/// How the server uses the flag with this name, if it does.
pub fn own(name: &str) -> Option<Own> {
    OWN.iter()
        .find(|(own, _)| *own == name)
        .map(|(_, own)| *own)
}

/// The names of the flags that the server passes, always or because of a setting.
pub fn passed() -> impl Iterator<Item = &'static str> {
    let is_passed = |own: &Own| !matches!(own, Own::Never(_));
    OWN.iter()
        .filter(move |(_, own)| is_passed(own))
        .map(|(name, _)| *name)
}

/// The setting to name in a message that refuses a flag which only the server may give.
pub fn setting_instead(own: Own) -> Option<&'static Setting> {
    match own {
        Own::Always(setting) | Own::Never(setting) => setting,
        // The number of instances decides whether there is a fraction, and the margin how large it is.
        Own::For(setting) if setting.name == INSTANCE_COUNT.name => Some(&GPU_MARGIN.setting),
        Own::For(setting) => Some(setting),
    }
}

/// All flags.
pub fn all() -> impl Iterator<Item = Flag> {
    TABLE.lines().skip(1).map(|line| {
        let mut fields = line.split('\t');
        let mut field = || fields.next().unwrap_or_default();
        Flag {
            name: field(),
            first: field(),
            last: field(),
        }
    })
}

/// The flag with this name.
pub fn find(name: &str) -> Option<Flag> {
    all().find(|flag| flag.name == name)
}

impl Flag {
    /// The version that added the flag, such as `1.13` or `2.5.1`.
    pub fn added(&self) -> &'static str {
        short(self.first)
    }

    /// The last version that has the flag; `None` if the newest version in the table has it.
    pub fn removed_after(&self) -> Option<&'static str> {
        (self.last != newest()).then(|| short(self.last))
    }

    /// Whether this version has the flag. Of two versions, only the numbers that both name are compared: `2.5` stands
    /// for every 2.5.x. `None` if `version` is no version.
    pub fn is_in(&self, version: &str) -> Option<bool> {
        let is_late_enough = is_at_least(version, self.first)?;
        let is_early_enough = match self.removed_after() {
            Some(last) => is_at_least(last, version)?,
            None => true,
        };
        Some(is_late_enough && is_early_enough)
    }
}

/// Whether the table ends before this version, which may have flags that the table lacks.
pub fn is_beyond_the_table(version: &str) -> bool {
    // A later patch of the newest version has no new flags.
    let minor = |version: &str| numbers(version).map(|n| (n.first().copied(), n.get(1).copied()));
    minor(version).is_some_and(|version| Some(version) > minor(newest()))
}

/// Whether `version` is `other` or a later version, as far as both name numbers; `None` if one of them is no version.
pub fn is_at_least(version: &str, other: &str) -> Option<bool> {
    let (version, other) = (numbers(version)?, numbers(other)?);
    let both = version.len().min(other.len());
    Some(version[..both] >= other[..both])
}

fn newest() -> &'static str {
    // Every version has this flag.
    find("port").map_or("", |flag| flag.last)
}

fn short(version: &str) -> &str {
    version.strip_suffix(".0").unwrap_or(version)
}

/// The numbers of a version such as `2.19` or `2.19.0-rc1`, without what follows them.
fn numbers(version: &str) -> Option<Vec<u32>> {
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.');
    let version = &version[..end.unwrap_or(version.len())];
    version
        .split('.')
        .map(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_has_a_flag_and_two_versions_in_order() {
        let mut names: Vec<_> = all().map(|flag| flag.name).collect();
        assert!(names.len() > 40, "{names:?}");
        for flag in all() {
            assert_eq!(is_at_least(flag.last, flag.first), Some(true), "{flag:?}");
            assert_eq!(flag.is_in(flag.first), Some(true), "{flag:?}");
            assert_eq!(flag.is_in("1.3"), Some(false), "{flag:?}");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().count(), "names are unique");
        for (name, _) in OWN {
            assert!(find(name).is_some(), "{name}");
        }
    }

    #[test]
    fn versions_are_compared_as_far_as_both_name_numbers() {
        for (flag, version, expected) in [
            ("xla_cpu_compilation_enabled", "2.5.1", Some(true)),
            ("xla_cpu_compilation_enabled", "2.5", Some(true)),
            ("xla_cpu_compilation_enabled", "2.5.0", Some(false)),
            ("xla_cpu_compilation_enabled", "2.4.4", Some(false)),
            ("xla_cpu_compilation_enabled", "2.19.0-rc1", Some(true)),
            ("xla_cpu_compilation_enabled", "2.21.0", Some(true)),
            ("xla_cpu_compilation_enabled", "latest", None),
            ("xla_cpu_compilation_enabled", "", None),
            ("use_tflite_model", "2.2", Some(true)),
            ("use_tflite_model", "2.3.0", Some(false)),
            ("use_tflite_model", "1.15.0", Some(true)),
            ("num_request_iterations_for_warmup", "2.10", Some(true)),
        ] {
            let found = find(flag).unwrap();
            assert_eq!(found.is_in(version), expected, "{flag} in {version}");
        }
        assert!(is_beyond_the_table("2.21"));
        assert!(!is_beyond_the_table("2.20.1") && !is_beyond_the_table("2.9"));
        let removed = find("use_tflite_model").unwrap();
        assert_eq!(
            (removed.added(), removed.removed_after()),
            ("1.15", Some("2.2"))
        );
        assert_eq!(find("port").unwrap().removed_after(), None);
    }
}
