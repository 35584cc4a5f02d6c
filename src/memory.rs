//! How much memory the machine or the container has, and whether it is nearly used up.
//!
//! Memory limits of the requests derive from the total. Messages about a model that does not start in time, or does not
//! respond, mention a lack of memory. The limit of a container may be set in this process's control group or in any
//! group above it, in version 1 or version 2 of control groups (`cgroups(7)`).

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Memory counts as short when a smaller share of it is available.
const SHORT_BELOW: f64 = 0.05;

/// Whether the machine or any of this process's control groups has hardly any memory left.
pub fn is_short() -> bool {
    is_short_below(Path::new("/"))
}

/// The machine's memory, or the lowest limit of this process's control groups if that is less, in bytes. `None` when
/// `/proc` cannot be read.
pub fn total() -> Option<u64> {
    total_below(Path::new("/"))
}

/// The memory for requests, bytes: the configured number, or a quarter of all memory, because TensorFlow Serving needs
/// memory for each request, too.
pub fn for_requests(configured: Option<u64>) -> usize {
    /// When neither a setting nor the system gives a number.
    const DEFAULT: u64 = 1 << 30;
    const DIVISOR: u64 = 4;
    let memory = configured.unwrap_or_else(|| total().map_or(DEFAULT, |total| total / DIVISOR));
    usize::try_from(memory).unwrap_or(usize::MAX)
}

fn is_short_below(root: &Path) -> bool {
    let machine = machine_share(&read(&root.join("proc/meminfo")));
    let groups = levels(root).into_iter().filter_map(|level| level.share());
    machine
        .into_iter()
        .chain(groups)
        .any(|share| share < SHORT_BELOW)
}

fn total_below(root: &Path) -> Option<u64> {
    let machine = field(&read(&root.join("proc/meminfo")), "MemTotal:");
    let machine = machine.map(|kibibytes| kibibytes as u64 * 1024);
    let groups = levels(root).into_iter().filter_map(|level| level.limit());
    groups.chain(machine).min()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A control group: its folder, and the names of the files in it.
struct Level {
    folder: PathBuf,
    names: &'static Names,
}

/// The names that one version of control groups gives to its files and to a field of `memory.stat`.
struct Names {
    limit: &'static str,
    used: &'static str,
    cached: &'static str,
}

const VERSION_1: Names = Names {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cached: "total_inactive_file ",
};
const VERSION_2: Names = Names {
    limit: "memory.max",
    used: "memory.current",
    cached: "inactive_file ",
};

impl Level {
    fn number(&self, name: &str) -> Option<u64> {
        read(&self.folder.join(name)).trim().parse().ok()
    }

    /// The group's limit, bytes. Without a limit the file of version 2 contains `max`, which gives `None`; that of
    /// version 1 contains a number larger than any machine's memory.
    fn limit(&self) -> Option<u64> {
        self.number(self.names.limit)
    }

    /// The share of the limit that is still available.
    fn share(&self) -> Option<f64> {
        let (limit, used) = (self.limit()? as f64, self.number(self.names.used)? as f64);
        let stat = read(&self.folder.join("memory.stat"));
        // The kernel drops cached files when it needs memory.
        let cached = stat
            .lines()
            .find_map(|line| line.strip_prefix(self.names.cached));
        let cached: f64 = cached
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0.0);
        Some(1.0 - (used - cached) / limit)
    }
}

/// The control groups that limit this process's memory: its own, and all visible groups above it.
fn levels(root: &Path) -> Vec<Level> {
    let ours = read(&root.join("proc/self/cgroup"));
    let mounts = read(&root.join("proc/self/mountinfo"));
    let mut levels = Vec::new();
    for line in ours.lines() {
        // A line is `hierarchy:controllers:path`; version 2 has hierarchy 0 and no controllers.
        let mut parts = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) =
            (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let is_version_2 = number == "0" && controllers.is_empty();
        if !is_version_2 && !controllers.split(',').any(|name| name == "memory") {
            continue;
        }
        let mut mounts = mounts.lines().filter_map(Mount::parse);
        let Some(mount) = mounts.find(|mount| mount.has_memory(is_version_2)) else {
            continue;
        };
        let top = root.join(mount.place.trim_start_matches('/'));
        // In a container the mount may begin at our group, or the path may be one outside the mount. In both cases the
        // top of the mount is our group.
        let below = Path::new(path).strip_prefix(mount.root).ok();
        let below =
            below.filter(|path| path.components().all(|c| matches!(c, Component::Normal(_))));
        let own = top.join(below.unwrap_or(Path::new("")));
        let folders = own
            .ancestors()
            .take_while(|folder| folder.starts_with(&top));
        levels.extend(folders.map(|folder| Level {
            folder: folder.to_owned(),
            names: match is_version_2 {
                true => &VERSION_2,
                false => &VERSION_1,
            },
        }));
    }
    levels
}

/// A line of `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`).
struct Mount<'a> {
    /// The folder of the file system that is mounted.
    root: &'a str,
    /// The folder where it is mounted.
    place: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let mut system = system.split(' ');
        Some(Self {
            root: mount.next()?,
            place: mount.next()?,
            kind: system.next()?,
            options: system.nth(1)?,
        })
    }

    fn has_memory(&self, is_version_2: bool) -> bool {
        match is_version_2 {
            true => self.kind == "cgroup2",
            false => self.kind == "cgroup" && self.options.split(',').any(|name| name == "memory"),
        }
    }
}

/// The available share of the machine's memory, from the text of `/proc/meminfo`.
fn machine_share(meminfo: &str) -> Option<f64> {
    Some(field(meminfo, "MemAvailable:")? / field(meminfo, "MemTotal:")?)
}

/// A field of `/proc/meminfo`, KiB.
fn field(meminfo: &str, name: &str) -> Option<f64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_machines_available_share() {
        let meminfo = "MemTotal:  1000 kB\nMemFree: 10 kB\nMemAvailable:  40 kB\n";
        assert_eq!(machine_share(meminfo), Some(0.04));
        assert_eq!(machine_share(""), None);
    }

    /// The files of a machine with 1000 kB of memory, half of it available.
    struct Tree(tempfile::TempDir);

    const VERSION_2_MOUNT: &str =
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const VERSION_1_MOUNTS: &str = "33 32 0:28 / /sys/fs/cgroup/cpu rw,nosuid shared:10 - cgroup cgroup rw,cpu,cpuacct\n\
         34 32 0:29 / /sys/fs/cgroup/memory rw,nosuid shared:11 - cgroup cgroup rw,memory\n";

    impl Tree {
        fn new(cgroup: &str, mountinfo: &str) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            let meminfo = "MemTotal:  1000 kB\nMemAvailable:  500 kB\n";
            tree.file("proc/meminfo", meminfo)
                .file("proc/self/cgroup", cgroup)
                .file("proc/self/mountinfo", mountinfo)
        }

        fn file(self, path: &str, text: &str) -> Self {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        /// Adds a group of version 2; `limit` is in bytes, or `max`.
        fn group_2(self, folder: &str, limit: &str, used: u64, cached: u64) -> Self {
            let folder = format!("sys/fs/cgroup/{folder}");
            let stat = format!("anon 1\ninactive_file {cached}\ntotal_inactive_file 0\n");
            self.file(&format!("{folder}/memory.max"), &format!("{limit}\n"))
                .file(&format!("{folder}/memory.current"), &format!("{used}\n"))
                .file(&format!("{folder}/memory.stat"), &stat)
        }

        fn group_1(self, folder: &str, limit: u64, used: u64, cached: u64) -> Self {
            let folder = format!("sys/fs/cgroup/memory/{folder}");
            let stat = format!("inactive_file 0\ntotal_inactive_file {cached}\n");
            let (limit, used) = (format!("{limit}\n"), format!("{used}\n"));
            self.file(&format!("{folder}/memory.limit_in_bytes"), &limit)
                .file(&format!("{folder}/memory.usage_in_bytes"), &used)
                .file(&format!("{folder}/memory.stat"), &stat)
        }

        #[track_caller]
        fn assert(&self, total: u64, is_short: bool) {
            assert_eq!(total_below(self.0.path()), Some(total));
            assert_eq!(is_short_below(self.0.path()), is_short);
        }
    }

    const MACHINE: u64 = 1000 * 1024;
    /// The number that version 1 shows for a group without a limit.
    const NO_LIMIT: u64 = 9_223_372_036_854_771_712;

    #[test]
    fn machine_counts_without_control_groups() {
        Tree::new("", "").assert(MACHINE, false);
        let tree =
            Tree::new("", "").file("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 40 kB\n");
        tree.assert(MACHINE, true);
    }

    #[test]
    fn version_2_uses_the_lowest_limit_on_the_path() {
        let tree = || Tree::new("0::/pod/container\n", VERSION_2_MOUNT);
        // The root group has no memory files.
        tree()
            .group_2("pod", "5000", 1000, 0)
            .group_2("pod/container", "max", 1000, 0)
            .assert(5000, false);
        tree()
            .group_2("pod", "5000", 4900, 0)
            .group_2("pod/container", "4000", 1000, 0)
            .assert(4000, true);
        // Other groups do not count.
        tree()
            .group_2("pod/other", "3000", 3000, 0)
            .group_2("pod/container", "4000", 1000, 0)
            .assert(4000, false);
        tree()
            .group_2("pod/container", "max", 1000, 0)
            .assert(MACHINE, false);
    }

    #[test]
    fn version_2_in_its_own_namespace_has_its_limit_at_the_top() {
        let tree =
            |used, cached| Tree::new("0::/\n", VERSION_2_MOUNT).group_2("", "4000", used, cached);
        tree(1000, 0).assert(4000, false);
        tree(3900, 0).assert(4000, true);
        tree(3900, 2000).assert(4000, false);
    }

    #[test]
    fn version_1_uses_the_lowest_limit_on_the_path() {
        let groups = "12:cpu,cpuacct:/pod\n11:memory:/pod/container\n0::/elsewhere\n";
        let tree = || Tree::new(groups, VERSION_1_MOUNTS);
        tree()
            .group_1("", NO_LIMIT, 9000, 0)
            .group_1("pod", 5000, 4900, 3000)
            .group_1("pod/container", NO_LIMIT, 100, 0)
            .assert(5000, false);
        tree()
            .group_1("", NO_LIMIT, 9000, 0)
            .group_1("pod/container", 4000, 3900, 0)
            .assert(4000, true);
        tree().group_1("", NO_LIMIT, 9000, 0).assert(MACHINE, false);
    }

    #[test]
    fn path_outside_the_mount_means_its_top() {
        // Version 1 without a namespace: the mount begins at the container's group.
        let mount = VERSION_1_MOUNTS.replace("0:29 / ", "0:29 /docker/abc ");
        for path in ["/docker/abc", "/docker/other", "/"] {
            Tree::new(&format!("11:memory:{path}\n"), &mount)
                .group_1("", 4000, 3900, 0)
                .assert(4000, true);
        }
        // A group of this process's own inside the container's.
        Tree::new("11:memory:/docker/abc/inner\n", &mount)
            .group_1("", 4000, 100, 0)
            .group_1("inner", 3000, 100, 0)
            .assert(3000, false);
        // Version 2 with a namespace that does not contain our group.
        Tree::new("0::/../other\n", VERSION_2_MOUNT)
            .group_2("", "4000", 100, 0)
            .file("sys/fs/other/memory.max", "10\n")
            .assert(4000, false);
        // The path is not mounted at all.
        Tree::new("0::/pod/gone\n", VERSION_2_MOUNT)
            .group_2("", "4000", 100, 0)
            .assert(4000, false);
    }

    #[test]
    fn looks_at_both_versions_when_both_are_mounted() {
        let mounts = VERSION_1_MOUNTS.to_owned()
            + "35 32 0:30 / /sys/fs/cgroup/unified rw shared:12 - cgroup2 cgroup2 rw\n";
        let tree = Tree::new("11:memory:/a\n0::/a\n", &mounts);
        let tree = tree.file("sys/fs/cgroup/unified/a/cgroup.procs", "1\n");
        tree.group_1("a", 4000, 3900, 0).assert(4000, true);
    }

    #[test]
    fn malformed_files_count_as_no_limit() {
        let tree = Tree::new("0::/a\nx\n:::\n7:memory\n", "short - line\n - \n\n");
        tree.group_2("a", "10", 10, 0).assert(MACHINE, false);
        let tree = Tree::new("0::/a\n", VERSION_2_MOUNT);
        tree.group_2("a", "-5", 10, 0).assert(MACHINE, false);
    }
}
