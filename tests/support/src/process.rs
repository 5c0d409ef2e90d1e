//! Processes as reported by the kernel, and process groups that are killed when dropped.

use std::{
    fs,
    os::fd::{AsFd, FromRawFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, User, geteuid},
};

use crate::wait;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this exit status.
    Status(i32),
    /// By this signal.
    Signal(Signal),
}

/// A process group: a server and all its descendants. Killed when dropped.
#[derive(Debug)]
pub struct Group {
    leader: Pid,
    end: Option<End>,
    destroyed: bool,
}

impl Group {
    /// The group whose leader is `leader`, a child of this process.
    pub fn new(leader: Pid) -> Self {
        Self { leader, end: None, destroyed: false }
    }

    /// Returns the first process of the group.
    pub fn leader(&self) -> Pid {
        self.leader
    }

    /// Waits for the leader to exit.
    pub fn wait(&mut self, limit: Duration) -> Option<End> {
        if self.end.is_none() && gone(self.leader, limit) {
            self.end = reap(self.leader);
        }
        self.end
    }

    /// Kills every process of the group and reaps those that became children of this process.
    pub fn destroy(&mut self) {
        // Afterwards the number may be that of another group.
        if std::mem::replace(&mut self.destroyed, true) {
            return;
        }
        let _ = killpg(self.leader, Signal::SIGKILL);
        if self.end.is_none() {
            self.end = reap(self.leader);
        }
        let group = Pid::from_raw(-self.leader.as_raw());
        while !matches!(waitpid(group, None), Err(Errno::ECHILD)) {
            let _ = killpg(self.leader, Signal::SIGKILL);
        }
    }

    /// Returns the living processes of the group.
    pub fn members(&self) -> Vec<Pid> {
        all().filter(|stat| stat.group == self.leader && stat.state != 'Z').map(|s| s.pid).collect()
    }

    /// Waits until no process of the group is alive.
    pub fn empty(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        self.members()
            .into_iter()
            .all(|pid| gone(pid, deadline.saturating_duration_since(Instant::now())))
            && self.members().is_empty()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.destroy();
    }
}

/// Contents of `/proc/PID/stat`.
#[derive(Clone, Debug)]
pub struct Stat {
    /// Process ID.
    pub pid: Pid,
    /// Letter of its state: `R`, `S`, `T`, `Z`, …
    pub state: char,
    /// Parent.
    pub parent: Pid,
    /// Process group.
    pub group: Pid,
    /// CPU time in clock ticks.
    pub ticks: u64,
}

/// Returns the kernel's information on a process; `None` if it no longer exists.
pub fn stat(pid: Pid) -> Option<Stat> {
    stat_in(Path::new(&format!("/proc/{pid}")))
}

/// Reads the `stat` of a process or thread from its directory in `/proc`.
fn stat_in(directory: &Path) -> Option<Stat> {
    let text = fs::read_to_string(directory.join("stat")).ok()?;
    let pid = Pid::from_raw(text.split(' ').next()?.parse().ok()?);
    let mut words = text.rsplit_once(')')?.1.split_whitespace();
    let state = words.next()?.chars().next()?;
    let parent = Pid::from_raw(words.next()?.parse().ok()?);
    let group = Pid::from_raw(words.next()?.parse().ok()?);
    let times: Vec<u64> = words.skip(8).take(2).filter_map(|word| word.parse().ok()).collect();
    Some(Stat { pid, state, parent, group, ticks: times.iter().sum() })
}

/// Returns the children of a process, including zombies.
pub fn children(parent: Pid) -> Vec<Stat> {
    all().filter(|stat| stat.parent == parent).collect()
}

/// Returns the number of open descriptors of a process.
pub fn descriptors(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Returns the anonymous memory of a process in KiB, whether or not it is shared.
pub fn anonymous_kib(pid: Pid) -> u64 {
    field(&format!("/proc/{pid}/status"), "RssAnon:")
}

/// Returns the resident set size of a process in KiB.
pub fn rss_kib(pid: Pid) -> u64 {
    field(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// Returns the largest resident set size that a process has had, in KiB.
pub fn peak_kib(pid: Pid) -> u64 {
    field(&format!("/proc/{pid}/status"), "VmHWM:")
}

/// Returns how often a process has slept voluntarily: an upper bound of its wake-ups.
pub fn sleeps(pid: Pid) -> u64 {
    field(&format!("/proc/{pid}/status"), "voluntary_ctxt_switches:")
}

/// Sets the descriptor limit of a process, and returns the previous one.
pub fn limit_descriptors(pid: Pid, count: u64) -> u64 {
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let (pid, what) = (pid.as_raw(), libc::RLIMIT_NOFILE);
    // SAFETY: prlimit writes one structure, which outlives the call, and reads none.
    let read = unsafe { libc::prlimit(pid, what, std::ptr::null(), &raw mut before) };
    // The hard limit stays, so that the soft limit can be raised again.
    let limit = libc::rlimit { rlim_cur: count, ..before };
    // SAFETY: prlimit reads one structure, which outlives the call, and writes none.
    let set = unsafe { libc::prlimit(pid, what, &raw const limit, std::ptr::null_mut()) };
    assert_eq!((read, set), (0, 0), "prlimit of {pid}");
    before.rlim_cur
}

/// Sends a signal to a process that must exist.
pub fn signal(pid: Pid, signal: Signal) {
    kill(pid, signal).unwrap_or_else(|error| panic!("{signal} to {pid}: {error}"));
}

/// Stops a process with SIGSTOP, and waits until all of its threads have stopped: one thread takes the signal, and
/// until it does the others go on.
pub fn stop(pid: Pid) {
    signal(pid, Signal::SIGSTOP);
    wait::until("every thread stops", Duration::from_secs(10), || {
        let running = threads(pid).into_iter().find(|stat| !matches!(stat.state, 'T' | 't' | 'Z'));
        running.map_or(Ok(()), |stat| Err(format!("{} is in state {}", stat.pid, stat.state)))
    });
}

/// Returns the kernel's information on the threads of a process.
fn threads(pid: Pid) -> Vec<Stat> {
    let directory = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| stat_in(&entry.path())).collect()
}

/// Waits until a process has ended (a zombie counts as ended).
pub fn gone(pid: Pid, limit: Duration) -> bool {
    let Some(descriptor) = pidfd(pid) else { return true };
    ready(&descriptor, PollFlags::POLLIN, limit)
}

/// Waits until one of `events` occurs on a descriptor.
pub fn ready(descriptor: &impl AsFd, events: PollFlags, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(descriptor.as_fd(), events)], timeout) {
            Ok(0) if left.is_zero() => return false,
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return true,
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// Returns whether a server may run its workers as [`nobody`].
pub fn may_change_user() -> bool {
    geteuid().is_root() && nobody().is_some()
}

/// Returns the user without rights that most systems have.
pub fn nobody() -> Option<User> {
    User::from_name("nobody").ok().flatten()
}

/// Makes this process the parent of its descendants' orphans, so that it can reap them.
pub fn adopt_orphans() {
    nix::sys::prctl::set_child_subreaper(true).expect("every Linux since 3.4 has subreapers");
}

fn reap(pid: Pid) -> Option<End> {
    loop {
        match waitpid(pid, Some(WaitPidFlag::empty())) {
            Ok(WaitStatus::Exited(_, status)) => return Some(End::Status(status)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Some(End::Signal(signal)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

fn pidfd(pid: Pid) -> Option<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and accesses no memory.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    // SAFETY: a non-negative result is a new descriptor that is not owned elsewhere.
    (descriptor >= 0).then(|| unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}

fn all() -> impl Iterator<Item = Stat> {
    fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        stat(Pid::from_raw(pid))
    })
}

fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("{path} has no {name}"))
}
