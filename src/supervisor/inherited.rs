//! Files our parent left open for us, besides the standard streams.
//!
//! The files we open are closed in children. Descriptors our parent leaked reach our children; closing them needs
//! `unsafe`, so we only warn. A container runtime should leave none.

use std::fs;

/// `O_CLOEXEC` as `/proc/self/fdinfo` shows it: the file is closed in children.
const CLOSED_IN_CHILDREN: u32 = 0o2_000_000;

/// Names them in the log. Call this before any thread opens files.
pub fn warn() {
    let strays = strays();
    if !strays.is_empty() {
        log::warn!(
            "files were left open for us and are open in our children too: {}",
            strays.join(", ")
        );
    }
}

/// Descriptor and name of each.
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
