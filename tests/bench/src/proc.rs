//! Process information from the kernel: descendants, CPU time, memory.

use std::fs;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

/// Returns a process and all its descendants at this time.
pub fn tree(root: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = pids().filter_map(|pid| Some((pid, stat(pid)?.parent))).collect();
    let mut tree = vec![root];
    let mut at = 0;
    while let Some(&parent) = tree.get(at) {
        tree.extend(all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    tree
}

/// Returns the CPU time, in user and kernel mode, of these processes and of their children that have exited and
/// been waited for.
pub fn cpu(pids: &[u32]) -> Duration {
    pids.iter().map(|pid| cpu_of(*pid)).sum()
}

/// Returns the sum of the proportional set sizes of these processes in KiB: a shared page counts for each process
/// with its share.
pub fn pss_kib(pids: &[u32]) -> u64 {
    let of = |pid: &u32| field_kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:");
    pids.iter().filter_map(of).sum()
}

/// Returns the memory of a process that no other process shares, in KiB.
pub fn private_kib(pid: u32) -> Option<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    Some(field_kib(&path, "Private_Clean:")? + field_kib(&path, "Private_Dirty:")?)
}

/// Returns how often the threads of a process have slept voluntarily, and so have been woken.
pub fn sleeps(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of = |task: fs::DirEntry| {
        field_kib(&task.path().join("status").to_string_lossy(), "voluntary_ctxt_switches:")
    };
    tasks.filter_map(of).sum()
}

/// The larger of two lower bounds: `stat` counts whole ticks, including exited threads; `schedstat` counts
/// nanoseconds of living threads.
fn cpu_of(pid: u32) -> Duration {
    let ticks = stat(pid).map(|stat| stat.ticks + stat.child_ticks).unwrap_or_default();
    let children = stat(pid).map(|stat| stat.child_ticks).unwrap_or_default();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds: u64 = tasks
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    let by_ticks = duration_of(ticks);
    by_ticks.max(Duration::from_nanos(nanoseconds) + duration_of(children))
}

struct Stat {
    parent: u32,
    ticks: u64,
    child_ticks: u64,
}

/// See `proc_pid_stat(5)`. The name, in parentheses, may contain anything.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| words.get(at)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(1)?).ok()?,
        ticks: number(11)? + number(12)?,
        child_ticks: number(13)? + number(14)?,
    })
}

fn duration_of(ticks: u64) -> Duration {
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100).max(1);
    Duration::from_secs_f64(ticks as f64 / per_second as f64)
}

fn field_kib(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, id};

    use super::*;

    #[test]
    fn work_done_is_counted_and_so_are_children() {
        let before = cpu(&[id()]);
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(50) {
            std::hint::black_box(stat(id()).map(|stat| stat.ticks));
        }
        assert!(cpu(&[id()]) > before);
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(tree(id()).contains(&child.id()));
        assert!(pss_kib(&[id(), child.id()]) > pss_kib(&[child.id()]));
        assert!(private_kib(id()).unwrap() > 0);
        assert_eq!(private_kib(0), None, "no process has this ID");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
