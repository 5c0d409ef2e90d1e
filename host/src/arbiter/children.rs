//! Matches processes with workers. A process ID counts only if the kernel vouches for it: the worker itself
//! reports on the channel of its generation, and it is a child of the arbiter that is not known as anything else.
//!
//! A process ID that a mold reports is only a claim. It is used if a worker dies or hangs before it can report,
//! and never for a process that the arbiter knows.

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Arbiter;
use super::generation::{Generation, WorkerHandle};
use crate::message::{FromWorker, Received, ToStatus};
use crate::process::{self, Child, End};
use crate::scoreboard::{ClaimError, Claimed};

/// Children that exited before any message named them, the oldest first.
#[derive(Default)]
pub(super) struct Unnamed(Vec<(Pid, End)>);

impl Unnamed {
    pub(super) fn push(&mut self, pid: Pid, end: End) {
        if self.0.len() == UNNAMED_MAX {
            self.0.remove(0);
        }
        self.0.push((pid, end));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn end_of(&self, pid: Pid) -> Option<End> {
        self.0.iter().rev().find(|(known, _)| *known == pid).map(|(_, end)| *end)
    }
}

impl Arbiter {
    /// Reserves a slot, and passes it to the status process.
    pub(super) fn claim_slot(&mut self, generation: u32, age: u64) -> Result<Claimed, ClaimError> {
        let claimed = self.scoreboard.claim(generation, age)?;
        let Claimed { index, serial, .. } = claimed;
        self.status.show_slot(&ToStatus::Slot { index, serial }, claimed.memory.descriptor());
        Ok(claimed)
    }

    /// Returns whether the process has a known role, which no message can change.
    pub(super) fn knows(&self, pid: Pid) -> bool {
        self.successor.as_ref().is_some_and(|successor| successor.pid() == pid)
            || self.status.is(pid)
            || self.generations.iter().any(|generation| generation.knows(pid))
    }

    /// Handles the first message of a process that claims to be a requested worker.
    pub(super) fn on_started(&mut self, id: u32, age: u64, sender: Pid) {
        if self.knows(sender) {
            return tracing::warn!("process {sender} claims to be a new worker: ignored");
        }
        let Some(child) = Child::verify(sender) else {
            return tracing::warn!(
                "process {sender} claims to be a worker but is not a child: ignored"
            );
        };
        let Some(generation) = self.generation(id) else { return };
        let is_meant = |worker: &&mut WorkerHandle| worker.age == age && worker.process.is_none();
        let Some(worker) = generation.workers.iter_mut().find(is_meant) else {
            // Its mold has died, and it was given up.
            tracing::debug!(
                "process {sender} killed: a worker whose mold died and that was given up"
            );
            return child.signal(Signal::SIGKILL);
        };
        worker.become_known(child);
        let slot = worker.slot;
        self.scoreboard.note_pid(slot, process::number(sender));
    }

    /// Handles a mold's report of the process ID of a requested worker.
    pub(super) fn on_forked(&mut self, index: usize, age: u64, pid: Pid) {
        let workers = &mut self.generations[index].workers;
        let is_meant = |worker: &WorkerHandle| worker.age == age && worker.process.is_none();
        let Some(position) = workers.iter().position(is_meant) else { return };
        workers[position].claimed = Some(pid);
        if let Some(end) = self.unnamed.end_of(pid) {
            self.on_worker_end(index, position, pid, end);
        }
    }

    /// Handles the exit of an unknown child: the exit of each worker that its mold claimed to be this
    /// process.
    pub(super) fn on_unknown_end(&mut self, pid: Pid, end: End) {
        let mut is_claimed = false;
        for index in 0..self.generations.len() {
            let workers = &self.generations[index].workers;
            let is_meant =
                |worker: &WorkerHandle| worker.process.is_none() && worker.claimed == Some(pid);
            if let Some(position) = workers.iter().position(is_meant) {
                is_claimed = true;
                self.on_worker_end(index, position, pid, end);
            }
        }
        if !is_claimed {
            tracing::debug!("adopted process {pid} {}", end.describe());
            self.unnamed.push(pid, end);
        }
    }

    /// Reads all pending messages of generations that expect workers: a child that has exited may have
    /// reported before.
    pub(super) fn hear_of_new_workers(&mut self) {
        let expects = |generation: &&Generation| generation.expects_workers();
        let ids: Vec<u32> =
            self.generations.iter().filter(expects).map(|generation| generation.id).collect();
        for id in ids {
            self.hear_mold(id);
            self.hear_workers(id);
        }
    }

    /// Kills a worker that never reported; returns false if there is no process to kill. The claim of its
    /// mold counts if the process is a child without another role.
    pub(super) fn kill_silent_worker(&self, index: usize, worker: usize) -> bool {
        let claimed = self.generations[index].workers[worker].claimed;
        let is_its_own = |pid: &Pid| !self.knows(*pid) && self.claims_of(*pid) == 1;
        let child = claimed.filter(is_its_own).and_then(Child::verify);
        child.as_ref().map(|child| child.signal(Signal::SIGKILL)).is_some()
    }

    fn claims_of(&self, pid: Pid) -> usize {
        let workers = self.generations.iter().flat_map(|generation| &generation.workers);
        workers.filter(|worker| worker.process.is_none() && worker.claimed == Some(pid)).count()
    }

    /// After the exit of a mold, removes the requested workers that do not exist. Those that the mold
    /// reported and that are alive are kept.
    pub(super) fn give_up_unforked(&mut self, index: usize) {
        let generation = &mut self.generations[index];
        let exists = |worker: &mut WorkerHandle| {
            worker.process.is_some() || worker.claimed.is_some_and(process::is_child)
        };
        let gone: Vec<u32> = generation
            .workers
            .extract_if(.., |worker| !exists(worker))
            .map(|gone| gone.slot)
            .collect();
        for slot in gone {
            // The worker that was to write the lines of an earlier one never ran.
            generation.write_lines(&self.scoreboard.unwritten_lines(slot));
            self.scoreboard.release(slot);
        }
    }
}

impl Generation {
    fn knows(&self, pid: Pid) -> bool {
        self.mold.as_ref().is_some_and(|mold| mold.pid == pid)
            || self.watcher.as_ref().is_some_and(|watcher| watcher.is(pid))
            || self.health.is_asked_by(pid)
            || self.workers.iter().any(|worker| worker.pid() == Some(pid))
    }

    /// Returns whether the processes of some workers are not known yet.
    pub(super) fn expects_workers(&self) -> bool {
        self.workers.iter().any(|worker| worker.process.is_none())
    }

    /// Kills the unclaimed processes of a generation that has ended and so has no worker. A process that is
    /// forked later finds the channel closed and exits.
    pub(super) fn bury(&self) {
        self.report.refuse_more();
        while let Ok(Received::Message(message, sender)) = self.report.receive::<FromWorker>() {
            if matches!(message, FromWorker::Started { .. })
                && let Some(child) = Child::verify(sender)
            {
                child.signal(Signal::SIGKILL);
            }
        }
    }
}

impl WorkerHandle {
    /// Returns the process ID, once it is verified.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(Child::pid)
    }

    fn become_known(&mut self, child: Child) {
        self.process = Some(child);
        if self.stage == super::generation::WorkerStage::Draining {
            self.signal(Signal::SIGTERM);
        }
    }

    /// Sends a signal if the process is known.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }
}

/// Enough for many exiting processes that an application left behind, with a worker among them.
const UNNAMED_MAX: usize = 256;
