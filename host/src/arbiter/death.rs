//! Why a process died, in words: its exit status, the signal and its sender, actions of the arbiter, what the
//! process was doing, and the kernel's count of processes killed for lack of memory.

use std::fmt::Write as _;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::clock;
use crate::process::{End, name_of, read_small};
use crate::scoreboard::{InFlightRequest, SlotSnapshot};

/// Returns the complete description of a worker's death, to follow "worker N …".
pub(super) fn describe_worker(
    end: End,
    kill_reason: Option<&str>,
    out_of_memory: bool,
    slot: &SlotSnapshot,
    arbiter: u32,
) -> String {
    if let Some(kill_reason) = kill_reason {
        return format!("was killed by the arbiter: {kill_reason}");
    }
    let mut text = end.describe();
    if out_of_memory && end.is_by(Signal::SIGKILL) {
        text.push_str(": out of memory");
    }
    if let Some(words) = &slot.last_words {
        let _ = write!(text, ": {words}");
    }
    if let Some(sender) = describe_sender(end, slot, arbiter) {
        text.push_str(&sender);
    }
    text
}

/// "(SIGTERM from process 812, "bash")", unless the arbiter sent it.
fn describe_sender(end: End, slot: &SlotSnapshot, arbiter: u32) -> Option<String> {
    let (signal, sender) = slot.ended_by?;
    let signal = Signal::try_from(signal).ok()?;
    if sender == arbiter || matches!(end, End::Signal(by) if by != signal as i32) {
        return None;
    }
    if sender == slot.pid {
        return Some(format!(" ({signal} from itself)"));
    }
    if sender == 0 {
        return Some(format!(" ({signal} from the kernel or from outside this PID namespace)"));
    }
    let name = name_of(sender).map_or_else(String::new, |name| format!(", {name:?}"));
    Some(format!(" ({signal} from process {sender}{name})"))
}

/// What a worker is doing, to follow a reason: ", busy with GET /slow for 31.0 s".
pub(super) fn describe_requests(requests: &[InFlightRequest], now_ns: u64) -> String {
    let Some(oldest) = requests.first() else { return String::new() };
    let duration = seconds(clock::between(oldest.start_ns, now_ns));
    let others = match requests.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    format!(", busy with {} for {duration}{others}", oldest.text)
}

/// Formats a duration for the log, in tenths of seconds.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// The kernel's count of processes in this control group that it killed for lack of memory.
pub(super) struct OutOfMemory {
    path: Option<String>,
    count: u64,
}

impl OutOfMemory {
    /// Finds the counter: `memory.events` of version 2, `memory.oom_control` of version 1.
    pub(super) fn find() -> Self {
        let groups = read_small("/proc/self/cgroup").unwrap_or_default();
        let path = counter_paths(&groups).into_iter().find(|path| count_in(path).is_some());
        let count = path.as_deref().and_then(count_in).unwrap_or(0);
        Self { path, count }
    }

    /// Returns whether the counter has increased since the previous call.
    pub(super) fn has_increased(&mut self) -> bool {
        let count = self.path.as_deref().and_then(count_in).unwrap_or(self.count);
        std::mem::replace(&mut self.count, count) < count
    }
}

/// Returns possible paths of the counter, from `/proc/self/cgroup`. In a container that path may be outside of
/// what is mounted; the root of the mount is then this group.
fn counter_paths(groups: &str) -> Vec<String> {
    groups
        .lines()
        .filter_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let (mount, file) = match controllers {
                "" => ("/sys/fs/cgroup", "memory.events"),
                _ if controllers.split(',').any(|name| name == "memory") => {
                    ("/sys/fs/cgroup/memory", "memory.oom_control")
                }
                _ => return None,
            };
            let path = path.trim_end_matches('/');
            Some([format!("{mount}{path}/{file}"), format!("{mount}/{file}")])
        })
        .flatten()
        .collect()
}

fn count_in(path: &str) -> Option<u64> {
    let text = read_small(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> SlotSnapshot {
        let board = crate::scoreboard::Scoreboard::new().unwrap();
        crate::scoreboard::tests::claim(&board, 1, 1).2.snapshot()
    }

    #[test]
    fn a_death_is_described_with_its_cause() {
        let killed = End::Signal(9);
        let plain = snapshot();
        let signalled = SlotSnapshot { ended_by: Some((15, 1)), ..plain.clone() };
        let panicked =
            SlotSnapshot { last_words: Some("panicked: no".to_owned()), ..plain.clone() };
        let describe = |end, kill_reason, oom, slot: &SlotSnapshot| {
            describe_worker(end, kill_reason, oom, slot, 999_999)
        };
        assert_eq!(
            describe(killed, Some("no heartbeat for 30.0 s"), false, &plain),
            "was killed by the arbiter: no heartbeat for 30.0 s"
        );
        assert_eq!(describe(killed, None, true, &plain), "was killed by SIGKILL: out of memory");
        assert_eq!(describe(killed, None, false, &signalled), "was killed by SIGKILL");
        assert_eq!(
            describe(End::Status(70), None, false, &panicked),
            "exited with status 70: panicked: no"
        );
        assert!(
            describe(End::Status(0), None, false, &signalled)
                .starts_with("exited with status 0 (SIGTERM from process 1")
        );
    }

    #[test]
    fn the_counter_is_found_in_both_versions() {
        let paths = counter_paths("4:memory:/a/b\n3:cpuset:/\n0::/user.slice\n");
        assert_eq!(
            paths,
            [
                "/sys/fs/cgroup/memory/a/b/memory.oom_control",
                "/sys/fs/cgroup/memory/memory.oom_control",
                "/sys/fs/cgroup/user.slice/memory.events",
                "/sys/fs/cgroup/memory.events",
            ]
        );
    }

    #[test]
    fn the_oldest_request_is_named() {
        let request = |text: &str, start_ns| InFlightRequest { text: text.to_owned(), start_ns };
        let requests = [request("GET /a", 1), request("GET /b", 2_000_000_000)];
        assert_eq!(
            describe_requests(&requests, 3_000_000_001),
            ", busy with GET /a for 3.0 s and 1 more"
        );
        assert_eq!(describe_requests(&[], 5), "");
    }
}
