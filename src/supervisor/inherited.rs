//! Files that were open when we were started, beside the standard streams.
//!
//! What we open ourselves is closed in children. What whoever started us left open is not, and children have it too:
//! only by its number could it be closed, which is `unsafe`. Container runtimes should leave nothing. So it is told.

use std::fs;

/// In `/proc/self/fdinfo`: the file is closed in children.
const CLOSED_IN_CHILDREN: u32 = 0o2_000_000;

/// Names them in the log. To be called before there are threads that open files.
pub fn warn() {
    let strays = strays();
    if !strays.is_empty() {
        log::warn!(
            "files were left open for us and are open in our children, too: {}",
            strays.join(", ")
        );
    }
}

/// Number and name of each.
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
