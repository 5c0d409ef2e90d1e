//! Matches processes with workers. A process ID counts only if the kernel vouches for it: the worker itself
//! reports on the channel of its generation, and it is a child of the arbiter that is not known as anything else.
//!
//! A process ID that a mold reports is only a claim. It is used if a worker dies or hangs before it can report,
//! and never for a process that the arbiter knows.

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Arbiter;
use super::generation::Generation;
use super::handles::WorkerHandle;
use crate::message::ToStatus;
use crate::process::{self, Child, End};
use crate::scoreboard::{ClaimError, Claimed};

/// Children that exited before any message named them, the oldest first.
#[derive(Default)]
pub(super) struct UnclaimedExits(Vec<(Pid, End)>);

impl UnclaimedExits {
    pub(super) fn push(&mut self, pid: Pid, end: End) {
        if self.0.len() == UNCLAIMED_MAX {
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
    pub(super) fn has_role(&self, pid: Pid) -> bool {
        self.successor.as_ref().is_some_and(|successor| successor.pid() == pid)
            || self.status.is(pid)
            || self.evaluations.iter().any(|of| of.evaluation.pid() == pid)
            || self.generations.find(pid).is_some()
    }

    /// Handles the first message of a process that claims to be a requested worker.
    pub(super) fn on_started(&mut self, id: u32, age: u64, sender: Pid) {
        if self.has_role(sender) {
            return tracing::warn!("process {sender} claims to be a new worker: ignored");
        }
        let Some(child) = Child::verify(sender) else {
            return tracing::warn!(
                "process {sender} claims to be a worker but is not a child: ignored"
            );
        };
        let Some(generation) = self.generations.by_id_mut(id) else { return };
        let Some(position) = generation.find_unreported(age) else {
            // Its mold has died, and it was given up.
            tracing::debug!(
                "process {sender} killed: a worker whose mold died and that was given up"
            );
            return child.signal(Signal::SIGKILL);
        };
        let worker = &mut generation.workers[position];
        worker.become_known(child);
        let slot = worker.slot;
        self.scoreboard.note_pid(slot, process::number(sender));
    }

    /// Handles a mold's report of the process ID of a requested worker.
    pub(super) fn on_forked(&mut self, index: usize, age: u64, pid: Pid) {
        let generation = &mut self.generations[index];
        let Some(position) = generation.find_unreported(age) else { return };
        generation.workers[position].claimed = Some(pid);
        if let Some(end) = self.unclaimed.end_of(pid) {
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
            self.unclaimed.push(pid, end);
        }
    }

    /// Reads all pending messages of generations that expect workers: a child that has exited may have
    /// reported before.
    pub(super) fn read_new_workers(&mut self) {
        let expects = |generation: &&Generation| generation.expects_workers();
        let ids: Vec<u32> =
            self.generations.iter().filter(expects).map(|generation| generation.id).collect();
        for id in ids {
            self.read_mold(id);
            self.read_workers(id);
        }
    }

    /// Kills a worker that never reported; returns false if there is no process to kill. The claim of its
    /// mold counts if the process is a child without another role.
    pub(super) fn kill_silent_worker(&self, index: usize, worker: usize) -> bool {
        let claimed = self.generations[index].workers[worker].claimed;
        let is_its_own = |pid: &Pid| !self.has_role(*pid) && self.claims_of(*pid) == 1;
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

/// Enough for many exiting processes that an application left behind, with a worker among them.
const UNCLAIMED_MAX: usize = 256;
