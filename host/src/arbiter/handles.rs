//! Handles of the processes of a generation: its mold, its workers, and the process that watches its files.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock;
use crate::message::{Channel, Refusal, ToMold};
use crate::process::{Child, End};

/// A running mold.
pub(super) struct Mold {
    pub(super) pid: Pid,
    /// Slot in the scoreboard.
    pub(super) slot: u32,
    pub(super) command: Channel,
    pub(super) stage: MoldStage,
    /// Deadline for loading or quitting; the mold is killed then.
    pub(super) kill_at_ns: Option<u64>,
    /// Last action that the mold reported while loading.
    pub(super) doing: Option<String>,
    /// Why the arbiter killed it.
    pub(super) killed_for: Option<String>,
    /// Whether the arbiter has sent SIGABRT.
    pub(super) is_aborted: bool,
    /// Refusal that the mold reported.
    pub(super) refusal: Option<Refusal>,
    /// Exits that were sent and are not confirmed yet.
    pub(super) unread_exits: Vec<Exit>,
    /// Number of stacks that it was sent and has not confirmed.
    pub(super) untaken_stacks: usize,
}

/// State of a mold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MoldStage {
    Loading,
    Loaded,
    Quitting,
}

impl MoldStage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Loaded => "loaded",
            Self::Quitting => "quitting",
        }
    }
}

impl Mold {
    /// Tells the mold to exit. A loading mold reads no messages and is killed.
    pub(super) fn quit(&mut self, now_ns: u64) {
        let loading = self.stage == MoldStage::Loading;
        if loading || self.command.send(&ToMold::Quit).is_err() {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
        self.stage = MoldStage::Quitting;
        self.kill_at_ns = Some(now_ns + MOLD_QUIT_NS);
    }

    /// Handles a mold's confirmation that it has read the exit of this process.
    pub(super) fn has_read_exit(&mut self, pid: i32) {
        self.unread_exits.retain(|exit| exit.pid.as_raw() != pid);
    }
}

/// A worker that runs, or that a mold was asked to fork.
pub(super) struct WorkerHandle {
    /// `None` until the worker itself has reported.
    pub(super) process: Option<Child>,
    /// Process ID that the mold reported: see [`super::children`].
    pub(super) claimed: Option<Pid>,
    pub(super) slot: u32,
    pub(super) age: u64,
    pub(super) stage: WorkerStage,
    pub(super) forked_ns: u64,
    pub(super) ready_ns: u64,
    /// Deadline for exiting, once the worker was stopped.
    pub(super) end_until_ns: u64,
    /// The worker asked to be replaced. It serves until its replacement is ready.
    pub(super) wants_to_retire: bool,
    /// Deadline after which the worker is killed.
    pub(super) kill_at_ns: Option<u64>,
    /// Why the arbiter kills it, for the log.
    pub(super) kill_reason: Option<String>,
    /// When a debugger was last seen to trace it, and whether one does now.
    pub(super) traced_ns: u64,
    pub(super) is_traced: bool,
    /// Refusal that the worker reported when it could not boot.
    pub(super) refusal: Option<Refusal>,
    /// Memory at the last log line about it, or at the first measurement.
    pub(super) mentioned_kib: u64,
}

/// State of a worker as the arbiter sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkerStage {
    Booting,
    Ready,
    /// It was sent a signal to stop.
    Draining,
}

impl WorkerHandle {
    /// Returns the process ID, once it is verified.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(Child::pid)
    }

    /// Records the verified process, and sends the signal that was not sent yet.
    pub(super) fn become_known(&mut self, child: Child) {
        self.process = Some(child);
        if self.stage == WorkerStage::Draining {
            self.signal(Signal::SIGTERM);
        }
    }

    /// Sends a signal if the process is known.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// Returns whether it counts toward the configured number of workers. A worker that is being killed
    /// because it did not boot counts until it has exited: only then is the boot known to have failed.
    pub(super) fn counts(&self) -> bool {
        let dies = self.kill_reason.is_some() && self.stage != WorkerStage::Booting;
        self.stage != WorkerStage::Draining && !self.wants_to_retire && !dies
    }

    /// Returns whether it serves and will continue to.
    pub(super) fn serves(&self) -> bool {
        self.stage == WorkerStage::Ready && self.counts()
    }

    /// Sends SIGTERM or SIGQUIT, as soon as the process ID is known. The worker has to exit within `limit_ns`. A booting
    /// worker has nothing to finish and may not handle the signal, so it gets only a short time.
    pub(super) fn tell_to_stop(&mut self, signal: Signal, limit_ns: u64) {
        let now_ns = clock::now_ns();
        self.stage = WorkerStage::Draining;
        self.end_until_ns = now_ns.saturating_add(limit_ns);
        if self.kill_reason.is_none() {
            let unready = now_ns + BOOTING_END_NS;
            let until_ns = self.end_until_ns;
            let kill_at_ns = if self.ready_ns == 0 { unready.min(until_ns) } else { until_ns };
            self.kill_at_ns = Some(kill_at_ns);
        }
        self.signal(signal);
    }
}

/// The process that watches a generation's files. It is killed when this is dropped: it has nothing to finish.
pub(super) struct Watcher {
    pub(super) pid: Pid,
    pub(super) changes: Channel,
    /// The end on which workers report files.
    pub(super) files: Arc<Channel>,
}

impl Watcher {
    /// Channel for reported changes.
    pub(super) fn changes(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }

    /// Returns the end of the channel on which workers report files.
    pub(super) fn files(&self) -> Arc<Channel> {
        Arc::clone(&self.files)
    }

    /// Returns whether `pid` is this process.
    pub(super) fn is(&self, pid: Pid) -> bool {
        self.pid == pid
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Its exit is noticed like that of any other child.
        let _ = kill(self.pid, Signal::SIGKILL);
    }
}

/// Arguments of the hook: a process that has exited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exit {
    pid: Pid,
    /// 0 for a mold.
    age: u64,
    /// Negative for a signal.
    status: i32,
}

impl Exit {
    pub(super) fn new(pid: Pid, age: u64, end: End) -> Self {
        let status = match end {
            End::Status(status) => status,
            End::Signal(number) => -number,
        };
        Self { pid, age, status }
    }

    /// Returns the arguments of the hook.
    pub(super) fn facts(self) -> [i64; 3] {
        [self.pid.as_raw().into(), self.age as i64, self.status.into()]
    }
}

/// Time from SIGABRT to SIGKILL.
pub(super) const ABORT_NS: u64 = 1_000_000_000;
/// Time limit for a mold to exit.
const MOLD_QUIT_NS: u64 = 2_000_000_000;
/// Time limit for a booting worker to stop.
pub(super) const BOOTING_END_NS: u64 = 1_000_000_000;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::arbiter) fn worker(age: u64, stage: WorkerStage) -> WorkerHandle {
        WorkerHandle {
            process: None,
            claimed: None,
            slot: age as u32,
            age,
            stage,
            forked_ns: 1,
            ready_ns: 0,
            end_until_ns: 0,
            wants_to_retire: false,
            kill_at_ns: None,
            kill_reason: None,
            traced_ns: 0,
            is_traced: false,
            refusal: None,
            mentioned_kib: 0,
        }
    }
}
