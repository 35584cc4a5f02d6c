//! Settings of glibc's allocator that return freed memory to the system.
//!
//! By default (`mallopt(3)`, `M_MMAP_THRESHOLD`) the allocator raises its threshold for large allocations to the size
//! of a freed block, up to 32 MB, and keeps twice as much at the top of each of many arenas. A server whose threads
//! handle large bodies in turn then keeps hundreds of unused megabytes, whatever its own limit says. glibc reads the
//! settings from the environment when a process starts, and only unsafe code could change them later, so the program
//! executes itself again.

use std::env;
use std::ops::RangeInclusive;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

/// Bytes. Larger allocations get pages of their own: they grow without a copy, and freeing them returns the pages.
/// Smaller ones are worth keeping for the next request: with new pages, a request of 1 MB costs 2.5 times the CPU.
const MMAP_THRESHOLD: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "4194304");
/// Bytes that an arena keeps at its top.
const TRIM_THRESHOLD: (&str, &str) = ("MALLOC_TRIM_THRESHOLD_", "8388608");
/// One arena per CPU, within the limits of [`ARENAS`], because no more threads run at the same time.
const ARENA_MAX: &str = "MALLOC_ARENA_MAX";
const ARENAS: RangeInclusive<usize> = 2..=8;
const NAMES: [&str; 3] = [MMAP_THRESHOLD.0, TRIM_THRESHOLD.0, ARENA_MAX];
/// This variable can contain all of these settings, so when an operator sets it, the program changes nothing.
const OTHER_SETTINGS: &str = "GLIBC_TUNABLES";
/// Marks the settings as the program's own, which children must not get.
const MARK: &str = "_SAGEMAKER_TFS_ALLOCATOR";

/// Executes the program again with the settings, unless the environment has allocator settings already. To be called
/// before the program starts threads or opens files. Returns when the program has nothing to do, or when executing
/// fails: the program then only uses more memory.
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

/// Removes the program's own settings from the environment of a child, whose memory use they are not made for.
pub fn keep_from(child: &mut Command) {
    if env::var_os(MARK).is_some() {
        for name in NAMES.into_iter().chain([MARK]) {
            child.env_remove(name);
        }
    }
}
