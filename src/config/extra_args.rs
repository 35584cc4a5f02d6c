//! Checks `SAGEMAKER_TFS_EXTRA_ARGS` against what is known about the flags of TensorFlow Serving.
//!
//! TensorFlow Serving only prints `unknown argument: ...` and continues without the flag, and takes the last of two, so
//! a mistake would have no effect, or an unexpected one.

use std::collections::BTreeSet;

use crate::config::settings::reader::Reader;
use crate::config::settings::tuning::EXTRA_ARGS;
use crate::config::tfs_flags::{self, Own};

/// The most names that a message lists.
const MAX_LISTED: usize = 3;
/// Names that differ in more letters than this are not alike.
const MAX_DIFFERENCE: usize = 4;

/// The words of the setting. Notes a problem for each word that is not a flag, or not one that users may give.
/// `instances` is the number of processes of a model, and `version` that of TensorFlow Serving, if it is known.
pub fn read(r: &mut Reader, version: Option<&str>, instances: u32) -> Vec<String> {
    let words = r.optional(&EXTRA_ARGS).unwrap_or_default();
    let mut seen = BTreeSet::new();
    for word in &words {
        let problem = check(word, version, instances).err();
        let problem = problem.or_else(|| {
            let is_new = seen.insert(name_of(word));
            (!is_new).then(|| format!("--{} is given twice", name_of(word).unwrap_or_default()))
        });
        if let Some(problem) = problem {
            r.note(format!("{}: {problem}", EXTRA_ARGS.name));
        }
    }
    words
}

/// The name in `--name` or `--name=value`.
fn name_of(word: &str) -> Option<&str> {
    let name = word.strip_prefix("--")?;
    let name = name.split_once('=').map_or(name, |(name, _)| name);
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    is_name.then_some(name)
}

fn check(word: &str, version: Option<&str>, instances: u32) -> Result<(), String> {
    let name = name_of(word).ok_or_else(|| {
        format!("{word:?} is not a flag; write --flag=value or --flag, each in one word")
    })?;
    match tfs_flags::own(name) {
        // A fraction is passed only when several instances share a GPU.
        Some(Own::For(_)) if name == "per_process_gpu_memory_fraction" && instances == 1 => {}
        Some(own) => {
            let instead = tfs_flags::setting_instead(own);
            return Err(match (instead, own) {
                (Some(setting), _) => format!(
                    "the server decides about --{name}; set {} instead",
                    setting.name
                ),
                (None, Own::Never(_)) => format!("--{name} cannot be used with this server"),
                (None, _) => format!("the server decides about --{name}"),
            });
        }
        None => {}
    }
    let Some(flag) = tfs_flags::find(name) else {
        // A new version may have new flags. TensorFlow Serving itself will say if it does not know this one.
        return match version {
            Some(version) if tfs_flags::is_beyond_the_table(version) => Ok(()),
            _ => Err(unknown(name)),
        };
    };
    match version {
        Some(version) if flag.is_in(version) == Some(false) => {
            let last = flag
                .removed_after()
                .map(|last| format!(" and versions after {last} lack"));
            Err(format!(
                "TensorFlow Serving {version} does not have --{name}, which version {} added{}",
                flag.added(),
                last.unwrap_or_default()
            ))
        }
        _ => Ok(()),
    }
}

fn unknown(name: &str) -> String {
    let mut alike: Vec<_> = tfs_flags::all()
        .filter(|flag| tfs_flags::own(flag.name).is_none())
        .map(|flag| (difference(name, flag.name), flag.name))
        .filter(|&(difference, known)| difference <= MAX_DIFFERENCE.min(known.len() / 2))
        .collect();
    alike.sort_unstable();
    let names: Vec<_> = alike
        .iter()
        .take(MAX_LISTED)
        .map(|(_, name)| format!("--{name}"))
        .collect();
    let hint = match names.as_slice() {
        [] => String::new(),
        names => format!("; similar flags: {}", names.join(", ")),
    };
    format!("no version of TensorFlow Serving has --{name}{hint}")
}

/// The number of letters to insert, remove or replace to make `b` of `a`.
fn difference(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::read;

    const VERSION: &str = "SAGEMAKER_TFS_VERSION";

    fn words(text: &str, more: &[(&str, &str)]) -> Result<Vec<String>, Vec<String>> {
        let vars = [&[(EXTRA_ARGS.name, text)], more].concat();
        read(&vars).map(|config| config.extra_args)
    }

    #[test]
    fn quotes_and_backslashes_are_read_as_in_a_shell() {
        let text = "  --enable_profiler\n --ssl_config_file='/a b/c' --saved_model_tags=\"x,\\\"y\" --grpc_socket_path=a\\ #b";
        assert_eq!(
            words(text, &[]).unwrap(),
            [
                "--enable_profiler",
                "--ssl_config_file=/a b/c",
                "--saved_model_tags=x,\"y",
                "--grpc_socket_path=a #b",
            ]
        );
        assert_eq!(words("", &[]).unwrap(), [""; 0]);
        assert_eq!(words(" ", &[]).unwrap(), [""; 0]);
    }

    #[test]
    fn a_word_that_is_no_usable_flag_is_refused_with_the_reason() {
        let one = ("SAGEMAKER_TFS_INSTANCE_COUNT", "1");
        let two = ("SAGEMAKER_TFS_INSTANCE_COUNT", "2");
        for (text, vars, expected) in [
            (
                "--port=1",
                vec![one],
                "the server decides about --port; set SAGEMAKER_SAFE_PORT_RANGE instead",
            ),
            (
                "--max_num_load_retries=3",
                vec![],
                "the server decides about --max_num_load_retries",
            ),
            (
                "--enable_batching",
                vec![],
                "the server decides about --enable_batching; set SAGEMAKER_TFS_ENABLE_BATCHING instead",
            ),
            (
                "--version",
                vec![],
                "--version cannot be used with this server",
            ),
            (
                "--per_process_gpu_memory_fraction=0.5",
                vec![two],
                "the server decides about --per_process_gpu_memory_fraction; set SAGEMAKER_TFS_FRACTIONAL_GPU_MEM_MARGIN instead",
            ),
            (
                "--enable_profile=true",
                vec![],
                "no version of TensorFlow Serving has --enable_profile; similar flags: --enable_profiler",
            ),
            (
                "--zzz",
                vec![],
                "no version of TensorFlow Serving has --zzz",
            ),
            (
                "--enable_profiler=1 --enable_profiler=0",
                vec![],
                "--enable_profiler is given twice",
            ),
            (
                "--num_load_threads 2",
                vec![],
                "\"2\" is not a flag; write --flag=value or --flag, each in one word",
            ),
            (
                "# --num_load_threads=2",
                vec![],
                "\"#\" is not a flag; write --flag=value or --flag, each in one word",
            ),
            (
                "-enable_profiler",
                vec![],
                "\"-enable_profiler\" is not a flag; write --flag=value or --flag, each in one word",
            ),
            (
                "''",
                vec![],
                "\"\" is not a flag; write --flag=value or --flag, each in one word",
            ),
            (
                "--=1",
                vec![],
                "\"--=1\" is not a flag; write --flag=value or --flag, each in one word",
            ),
            (
                "--mixed_precision=bfloat16",
                vec![(VERSION, "2.12.1")],
                "TensorFlow Serving 2.12.1 does not have --mixed_precision, which version 2.15.1 added",
            ),
            (
                "--use_tflite_model",
                vec![(VERSION, "2.19")],
                "TensorFlow Serving 2.19 does not have --use_tflite_model, which version 1.15 added and versions after 2.2 lack",
            ),
        ] {
            let problems = words(text, &vars).unwrap_err();
            assert_eq!(
                problems,
                [format!("SAGEMAKER_TFS_EXTRA_ARGS: {expected}")],
                "{text}"
            );
        }
        let problems = words("--num_load_threads='2", &[]).unwrap_err();
        assert!(problems[0].contains("quoted as in a shell"), "{problems:?}");
    }

    #[test]
    fn flags_of_the_version_are_passed_on_and_so_are_those_of_a_version_beyond_the_table() {
        for (text, vars) in [
            ("--mixed_precision=bfloat16", vec![]),
            ("--mixed_precision=bfloat16", vec![(VERSION, "2.15.1")]),
            ("--mixed_precision=bfloat16", vec![(VERSION, "nightly")]),
            ("--per_process_gpu_memory_fraction=0.5", vec![]),
            ("--brand_new=1", vec![(VERSION, "2.21.0")]),
        ] {
            assert_eq!(words(text, &vars).unwrap(), [text]);
        }
    }
}
