//! Settings: every wrong value is listed, and accepted values are consistent.
//!
//! Input: `NAME=value` or `--option=value`, each up to a zero byte, as in `/proc/<pid>/environ`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use sagemaker_tfs::cli::{self, Command};
use sagemaker_tfs::config::settings::{Setting, multi_model};
use sagemaker_tfs::config::{Config, Vars};
use sagemaker_tfs::error::StartError;

const CPUS: u32 = 4;

pub fn check(data: &[u8]) {
    let entries = data.split(|&b| b == 0).filter(|entry| !entry.is_empty());
    let (options, entries): (Vec<_>, Vec<_>) = entries.partition(|e| e.starts_with(b"-"));
    let variables: BTreeMap<&[u8], &[u8]> = entries
        .into_iter()
        .filter_map(|entry| {
            let equals = entry.iter().position(|&b| b == b'=')?;
            Some((&entry[..equals], &entry[equals + 1..]))
        })
        .collect();

    let Some(vars) = parsed(&options, &variables) else {
        return; // an unknown option
    };
    match Config::read(&vars, CPUS) {
        Ok(config) => {
            assert_eq!(problems_alone(&options, &variables), BTreeSet::new());
            assert_fits(&config);
        }
        Err(StartError::Settings(problems)) => {
            assert!(!problems.is_empty());
            for problem in &problems {
                assert!(!problem.contains('\n'), "{problem}");
                let named = |s: &Setting| {
                    let flag = s
                        .flag
                        .is_some_and(|f| problem.starts_with(&format!("--{f} is ")));
                    flag || problem.starts_with(&format!("{} is ", s.name))
                };
                assert!(Setting::all().any(named), "{problem}");
            }
            let problems: BTreeSet<_> = problems.into_iter().collect();
            let alone = problems_alone(&options, &variables);
            assert!(
                alone.is_subset(&problems),
                "not all of {alone:?} are in {problems:?}"
            );
        }
        Err(other) => panic!("{other}"),
    }
}

fn parsed(options: &[&[u8]], variables: &BTreeMap<&[u8], &[u8]>) -> Option<Vars> {
    let os = |bytes: &&[u8]| OsStr::from_bytes(bytes).to_owned();
    let vars = Vars::from_variables(variables.iter().map(|(name, value)| (os(name), os(value))));
    let mut args = vec![OsString::from("serve")];
    args.extend(options.iter().map(os));
    match cli::parse(args, vars) {
        Ok(Command::Serve(vars)) => Some(vars),
        Ok(Command::Print(text)) => {
            assert!(!text.is_empty());
            None
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}

/// The problems of values that are wrong regardless of other settings. Skips options and the variables that they
/// override.
fn problems_alone(options: &[&[u8]], variables: &BTreeMap<&[u8], &[u8]>) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (name, value) in variables {
        let setting = Setting::all().find(|s| s.name.as_bytes() == *name);
        let Some(setting) = setting else {
            continue;
        };
        let hidden = setting.flag.is_some_and(|flag| {
            let flag = format!("--{flag}");
            options
                .iter()
                .any(|option| option.starts_with(flag.as_bytes()))
        });
        // A prefix is wrong only without its bucket.
        if hidden || setting.name == multi_model::UNIVERSAL_PREFIX.name {
            continue;
        }
        let alone = parsed(&[], &BTreeMap::from([(*name, *value)])).expect("no options");
        if let Err(StartError::Settings(problems)) = Config::read(&alone, CPUS) {
            let value = String::from_utf8_lossy(value);
            let own = format!(
                "{} is {value:?}; accepted: {}",
                setting.name, setting.accepts
            );
            all.extend(problems.into_iter().filter(|problem| *problem == own));
        }
    }
    all
}

fn assert_fits(config: &Config) {
    assert!(config.port > 0);
    assert!(config.deadline >= config.handlers.timeout.unwrap_or_default());
    assert!((0.0..1.0).contains(&config.gpu_memory_margin));
    assert!(!config.handlers.program.contains('/'));
    assert!(
        config
            .default_model_name
            .as_deref()
            .is_none_or(|name| !name.is_empty())
    );
    assert_eq!(
        config.instance_ports.is_empty(),
        config.multi_model.is_some()
    );
    let ports = config.instance_ports.iter().flat_map(|p| [p.grpc, p.rest]);
    let mut ports: Vec<u16> = ports.chain([config.port]).collect();
    let count = ports.len();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), count, "a port has two uses");
    assert!(ports[0] > 0);
    if let Some(multi_model) = &config.multi_model {
        let (low, high) = multi_model.ports;
        assert!(low > 0 && low <= high && multi_model.instances > 0);
    }
}
