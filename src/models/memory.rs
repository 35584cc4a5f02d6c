//! Whether memory is short: what a model that does not come up in time may be suffering from.

use std::fs;

/// Less than this share of the memory left counts as short.
const SHORT_BELOW: f64 = 0.05;

/// Whether the machine, or the container by its control group, has hardly any memory left.
pub fn is_short() -> bool {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let group = container_share(
        &read("/sys/fs/cgroup/memory.current"),
        &read("/sys/fs/cgroup/memory.max"),
    );
    let shares = [machine_share(&read("/proc/meminfo")), group];
    shares
        .into_iter()
        .flatten()
        .any(|share| share < SHORT_BELOW)
}

/// The share of memory that is available, by the text of `/proc/meminfo`.
fn machine_share(meminfo: &str) -> Option<f64> {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    Some(field("MemAvailable:")? / field("MemTotal:")?)
}

/// The share that is left of a control group's limit; `None` without a limit, which reads `max`.
fn container_share(current: &str, max: &str) -> Option<f64> {
    let (current, max): (f64, f64) = (current.trim().parse().ok()?, max.trim().parse().ok()?);
    Some(1.0 - current / max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_machine_and_container() {
        let meminfo = "MemTotal:  1000 kB\nMemFree: 10 kB\nMemAvailable:  40 kB\n";
        assert_eq!(machine_share(meminfo), Some(0.04));
        assert_eq!(machine_share(""), None);
        assert_eq!(container_share("75\n", "100\n"), Some(0.25));
        assert_eq!(container_share("75\n", "max\n"), None);
        assert_eq!(container_share("", ""), None);
    }
}
