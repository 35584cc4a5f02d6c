//! Settings of glibc's allocator: what is freed goes back to the system.
//!
//! By default the allocator raises its threshold for large allocations to the size of what is freed, up to 32 MB, and
//! keeps twice as much at the top of each of many arenas. A server whose threads handle large bodies in turn then
//! keeps hundreds of megabytes that nobody uses, whatever its own limit says. The settings are read from the environment
//! when a process starts, and nothing but unsafe code can change them later, so the program starts itself once more.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Larger allocations are pages of their own: they grow without a copy, and are gone when they are freed. Smaller ones are
/// worth keeping for the next request: pages anew cost three times the CPU of a request of 1 MB. Each arena keeps 8 MB
/// at its top, and what is free below something in use. Four arenas are enough for the threads that run at the same time.
const SETTINGS: [(&str, &str); 3] = [
    ("MALLOC_MMAP_THRESHOLD_", "4194304"),
    ("MALLOC_TRIM_THRESHOLD_", "8388608"),
    ("MALLOC_ARENA_MAX", "4"),
];
/// Whoever sets this knows better.
const OTHER_SETTINGS: &str = "GLIBC_TUNABLES";
/// Says that the settings are ours, and not for children.
const MARK: &str = "_SAGEMAKER_TFS_ALLOCATOR";

/// Starts the program again with the settings, unless it has some. To be called before anything else is under way; returns
/// when there is nothing to do, or when that fails, which costs memory only.
pub fn settle() {
    let is_set = |name: &str| env::var_os(name).is_some();
    let mut names = SETTINGS.iter().map(|(name, _)| *name);
    if !cfg!(target_env = "gnu") || is_set(MARK) || is_set(OTHER_SETTINGS) || names.any(is_set) {
        return;
    }
    let Ok(program) = env::current_exe() else {
        return;
    };
    let mut args = env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    command.args(args).envs(SETTINGS).env(MARK, "1");
    let _ = command.exec();
}

/// Keeps the settings from a child, which may be another program's or have its own.
pub fn keep_from(child: &mut Command) {
    if env::var_os(MARK).is_some() {
        for (name, _) in SETTINGS {
            child.env_remove(name);
        }
        child.env_remove(MARK);
    }
}
