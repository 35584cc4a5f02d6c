//! Warns about file descriptors that our parent process leaked to us.
//!
//! The files that we open are closed in our children, but descriptors that we inherited are not. Closing them needs
//! `unsafe`, so we only warn. A container runtime should leave none open.

use std::fs;

/// `O_CLOEXEC` among the flags in `/proc/self/fdinfo`: the file is closed in children.
const CLOSED_IN_CHILDREN: u32 = 0o2_000_000;

/// Logs a warning that lists the inherited descriptors beyond the standard streams. Call this before any thread opens
/// files.
pub fn warn() {
    let strays = strays();
    if !strays.is_empty() {
        log::warn!(
            "the parent process left files open, which child processes inherit too: {}",
            strays.join(", ")
        );
    }
}

/// Each inherited descriptor with the name of its file.
fn strays() -> Vec<String> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten();
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut numbers: Vec<u32> = numbers.filter(|&number| number > 2).collect();
    numbers.sort_unstable();
    let describe = |number: u32| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let flags = u32::from_str_radix(flags.trim(), 8).ok()?;
        let name = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
        (flags & CLOSED_IN_CHILDREN == 0).then(|| format!("{number} ({})", name.display()))
    };
    numbers.into_iter().filter_map(describe).collect()
}
