//! How many workers this machine, or the container that the server runs in, has CPUs and memory for: `--workers auto`.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the number of workers: one for each CPU that the process may use, fewer if the memory limit of its control
/// groups is small, and at least one.
pub fn workers() -> usize {
    let limits = Limits::read(Path::new("/"));
    limits.workers(usable_cpus())
}

/// Limits of the control groups of this process.
#[derive(Debug, Default, PartialEq)]
struct Limits {
    /// Number of CPUs whose time the groups may use. `None` without a quota.
    cpus: Option<f64>,
    /// Bytes of memory. `None` without a limit.
    memory: Option<u64>,
}

impl Limits {
    /// Reads the limits from `proc` and `sys` below `root`. Those of parent groups apply, too. What cannot be read is
    /// no limit.
    fn read(root: &Path) -> Self {
        let text = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let mut limits = Self::default();
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
            let has = |name: &str| controllers.split(',').any(|controller| controller == name);
            let mounts = root.join("sys/fs/cgroup");
            if controllers.is_empty() {
                for base in [mounts.clone(), mounts.join("unified")] {
                    limits.add_groups(&base, group, quota_v2, "memory.max");
                }
            } else if has("cpu") {
                limits.add_groups(&mounts.join(controllers), group, quota_v1, "");
                limits.add_groups(&mounts.join("cpu"), group, quota_v1, "");
            } else if has("memory") {
                limits.add_groups(&mounts.join("memory"), group, |_| None, MEMORY_V1);
            }
        }
        limits
    }

    /// Adds the limits of a group and of its parents. In a container the path may be that on the host: the limits are
    /// then in the directory where the controller is mounted.
    fn add_groups(
        &mut self,
        mount: &Path,
        group: &str,
        quota: fn(&Path) -> Option<f64>,
        memory: &str,
    ) {
        let mut directory = mount.join(group.trim_start_matches('/'));
        loop {
            self.cpus = least(self.cpus, quota(&directory), f64::min);
            let limit = read_number(&directory.join(memory)).filter(|bytes| *bytes < NO_LIMIT_V1);
            self.memory = least(self.memory, limit, u64::min);
            if directory == mount || !directory.pop() || !directory.starts_with(mount) {
                return;
            }
        }
    }

    fn workers(&self, usable_cpus: usize) -> usize {
        // A quota of 2.5 CPUs lets two workers run all the time.
        #[expect(
            clippy::cast_sign_loss,
            clippy::cast_possible_truncation,
            reason = "not negative, saturates"
        )]
        let quota = self.cpus.map_or(usize::MAX, |cpus| cpus as usize);
        let memory = self.memory.map_or(usize::MAX, |bytes| {
            usize::try_from(bytes / WORKER_BYTES).unwrap_or(usize::MAX)
        });
        usable_cpus.min(quota).min(memory).clamp(1, WORKERS_MAX)
    }
}

/// Returns the number of CPUs that the scheduler may run this process on.
fn usable_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Reads `cpu.max`: quota and period in microseconds, or "max".
fn quota_v2(group: &Path) -> Option<f64> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    ratio(quota.parse().ok()?, period.parse().ok()?)
}

/// Reads the quota, which is -1 for none, and the period, both in microseconds.
fn quota_v1(group: &Path) -> Option<f64> {
    let quota = read_number(&group.join("cpu.cfs_quota_us"))?;
    ratio(quota, read_number(&group.join("cpu.cfs_period_us"))?)
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a period of at most a second")]
fn ratio(quota: u64, period: u64) -> Option<f64> {
    (period > 0).then(|| quota as f64 / period as f64)
}

/// Reads a file that is one number. "max" and -1 are none.
fn read_number(path: &PathBuf) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn least<T>(one: Option<T>, other: Option<T>, min: fn(T, T) -> T) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(min(one, other)),
        (one, other) => one.or(other),
    }
}

const MEMORY_V1: &str = "memory.limit_in_bytes";
/// Version 1 shows "no limit" as the largest multiple of the page size in 63 bits.
const NO_LIMIT_V1: u64 = 1 << 62;
/// What a worker may need, for the purpose of counting workers: a Django project takes 30 to 100 MiB.
const WORKER_BYTES: u64 = 128 << 20;

/// Maximum number of worker processes: each has a slot in the scoreboard.
pub const WORKERS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with files for [`Limits::read`].
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = tree.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        tree
    }

    fn limits(files: &[(&str, &str)]) -> Limits {
        Limits::read(tree(files).path())
    }

    #[test]
    fn version_2_takes_the_least_of_all_parents() {
        let found = limits(&[
            ("proc/self/cgroup", "0::/a.slice/b.service\n"),
            ("sys/fs/cgroup/a.slice/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/a.slice/memory.max", "max\n"),
            ("sys/fs/cgroup/a.slice/b.service/cpu.max", "400000 100000\n"),
            ("sys/fs/cgroup/a.slice/b.service/memory.max", "1073741824\n"),
        ]);
        assert_eq!(found, Limits { cpus: Some(1.5), memory: Some(1 << 30) });
    }

    #[test]
    fn version_2_in_a_container_has_its_limits_at_the_root() {
        for group in ["/", "/../../kubepods/pod1"] {
            let found = limits(&[
                ("proc/self/cgroup", &format!("0::{group}\n")),
                ("sys/fs/cgroup/cpu.max", "200000 100000\n"),
                ("sys/fs/cgroup/memory.max", "536870912\n"),
            ]);
            assert_eq!(found, Limits { cpus: Some(2.0), memory: Some(512 << 20) }, "{group}");
        }
    }

    #[test]
    fn version_1_has_a_directory_for_each_controller() {
        for (mount, group) in [("cpu,cpuacct", "/docker/1"), ("cpu", "/")] {
            let found = limits(&[
                (
                    "proc/self/cgroup",
                    "9:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n1:name=systemd:/\n",
                ),
                (&format!("sys/fs/cgroup/{mount}{group}/cpu.cfs_quota_us"), "300000\n"),
                (&format!("sys/fs/cgroup/{mount}{group}/cpu.cfs_period_us"), "100000\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n"),
            ]);
            assert_eq!(found, Limits { cpus: Some(3.0), memory: Some(256 << 20) }, "{mount}");
        }
    }

    #[test]
    fn no_limit_is_none() {
        assert_eq!(limits(&[]), Limits::default());
        let found = limits(&[
            ("proc/self/cgroup", "4:cpu,cpuacct:/\n9:memory:/\n0::/\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/cpu.max", "max 100000\n"),
        ]);
        assert_eq!(found, Limits::default());
    }

    #[test]
    fn workers_fit_into_every_limit_and_there_is_one() {
        let workers = |cpus, memory, usable| Limits { cpus, memory }.workers(usable);
        assert_eq!(workers(None, None, 6), 6);
        assert_eq!(workers(Some(2.9), None, 160), 2);
        assert_eq!(workers(Some(0.5), None, 160), 1);
        assert_eq!(workers(None, Some(512 << 20), 160), 4);
        assert_eq!(workers(None, Some(1 << 20), 160), 1);
        assert_eq!(workers(None, None, 5000), WORKERS_MAX);
        assert!((1..=usable_cpus()).contains(&super::workers()));
    }
}
