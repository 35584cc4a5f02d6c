//! Settings of glibc's allocator: what is freed goes back to the system.
//!
//! By default the allocator raises its threshold for large allocations to the size of what is freed, up to 32 MB, and
//! keeps twice as much at the top of each of many arenas. A server whose threads handle large bodies in turn then
//! keeps hundreds of megabytes that nobody uses, whatever its own limit says. The settings are read from the environment
//! when a process starts, and nothing but unsafe code can change them later, so the program starts itself once more.

use std::env;
use std::ops::RangeInclusive;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

/// Larger allocations are pages of their own: they grow without a copy, and are gone when they are freed. Smaller ones are
/// worth keeping for the next request: new pages make a request of 1 MB cost 2.5 times the CPU.
const MMAP_THRESHOLD: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "4194304");
/// What an arena keeps at its top.
const TRIM_THRESHOLD: (&str, &str) = ("MALLOC_TRIM_THRESHOLD_", "8388608");
/// One arena for each CPU, within these limits: more threads do not run at the same time.
const ARENA_MAX: &str = "MALLOC_ARENA_MAX";
const ARENAS: RangeInclusive<usize> = 2..=8;
const NAMES: [&str; 3] = [MMAP_THRESHOLD.0, TRIM_THRESHOLD.0, ARENA_MAX];
/// When this is set, it is left alone: it can say all that we would.
const OTHER_SETTINGS: &str = "GLIBC_TUNABLES";
/// Says that the settings are ours, and not for children.
const MARK: &str = "_SAGEMAKER_TFS_ALLOCATOR";

/// Starts the program again with the settings, unless it has some. To be called before anything else is under way; returns
/// when there is nothing to do, or when that fails, which costs memory only.
pub fn settle() {
    let is_set = |name: &str| env::var_os(name).is_some();
    let is_settled = [OTHER_SETTINGS, MARK].into_iter().chain(NAMES).any(is_set);
    if !cfg!(target_env = "gnu") || is_settled {
        return;
    }
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let arenas = cpus.clamp(*ARENAS.start(), *ARENAS.end());
    let Ok(program) = env::current_exe() else {
        return;
    };
    let mut args = env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    command
        .args(args)
        .envs([MMAP_THRESHOLD, TRIM_THRESHOLD])
        .env(ARENA_MAX, arenas.to_string())
        .env(MARK, "1");
    let _ = command.exec();
}

/// Keeps the settings from a child, which may be another program's or have its own.
pub fn keep_from(child: &mut Command) {
    if env::var_os(MARK).is_some() {
        for name in NAMES.into_iter().chain([MARK]) {
            child.env_remove(name);
        }
    }
}
