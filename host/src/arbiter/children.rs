//! Which process is which worker. A number counts only if the kernel vouches for it: the worker says
//! itself that it exists, on the channel of its generation, and it is a child of the arbiter that is
//! not known as another one. What a mold says about a worker's number is a claim. It serves where
//! a worker dies, or hangs, before it can speak, and reaches no process that the arbiter knows.

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Arbiter;
use super::generation::{Generation, WorkerHandle};
use crate::message::{FromWorker, Received, ToStatus};
use crate::process::{self, Child, End};
use crate::scoreboard::{ClaimError, Claimed};

/// Children that ended before any message named them, the oldest first.
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
    /// Reserves a slot, and shows it to the process that shows figures.
    pub(super) fn claim_slot(&mut self, generation: u32, age: u64) -> Result<Claimed, ClaimError> {
        let claimed = self.scoreboard.claim(generation, age)?;
        let Claimed { index, serial, .. } = claimed;
        self.status.show_slot(&ToStatus::Slot { index, serial }, claimed.memory.descriptor());
        Ok(claimed)
    }

    /// Whether a process is known as something: no message can make it anything else.
    pub(super) fn knows(&self, pid: Pid) -> bool {
        self.successor.as_ref().is_some_and(|successor| successor.pid() == pid)
            || self.status.is(pid)
            || self.generations.iter().any(|generation| generation.knows(pid))
    }

    /// A process says that it is a worker which was asked for.
    pub(super) fn on_started(&mut self, id: u32, age: u64, sender: Pid) {
        if self.knows(sender) {
            return tracing::warn!("process {sender} claims to be a new worker: ignored");
        }
        let Some(child) = Child::verify(sender) else {
            return tracing::warn!(
                "process {sender}, which is no child, claims to be a worker: ignored"
            );
        };
        let Some(generation) = self.generation(id) else { return };
        let is_meant = |worker: &&mut WorkerHandle| worker.age == age && worker.process.is_none();
        let Some(worker) = generation.workers.iter_mut().find(is_meant) else {
            // Its mold died, and it was given up.
            tracing::debug!("process {sender} is a worker that no one waits for: it is killed");
            return child.signal(Signal::SIGKILL);
        };
        worker.become_known(child);
        let slot = worker.slot;
        self.scoreboard.note_pid(slot, process::number(sender));
    }

    /// A mold says which process the worker is that it was asked for.
    pub(super) fn on_forked(&mut self, index: usize, age: u64, pid: Pid) {
        let workers = &mut self.generations[index].workers;
        let is_meant = |worker: &WorkerHandle| worker.age == age && worker.process.is_none();
        let Some(position) = workers.iter().position(is_meant) else { return };
        workers[position].claimed = Some(pid);
        if let Some(end) = self.unnamed.end_of(pid) {
            self.on_worker_end(index, position, pid, end);
        }
    }

    /// A child ended that no one knows: the end of each worker that is said to be this process.
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

    /// Takes what there is to read where workers are expected: one that has ended may have spoken.
    pub(super) fn hear_of_new_workers(&mut self) {
        let expects = |generation: &&Generation| generation.expects_workers();
        let ids: Vec<u32> =
            self.generations.iter().filter(expects).map(|generation| generation.id).collect();
        for id in ids {
            self.hear_mold(id);
            self.hear_workers(id);
        }
    }

    /// Ends a worker that never spoke; false where there is no process to end. What its mold claims
    /// counts as far as the process is a child that is nothing else.
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

    /// After a mold's end: which of the workers that it was asked for exist. Those that it has named
    /// and that live are waited for.
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
            // What an earlier worker left comes back from the one that was to write it.
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

    /// Whether there are workers whose processes are not known yet.
    pub(super) fn expects_workers(&self) -> bool {
        self.workers.iter().any(|worker| worker.process.is_none())
    }

    /// Ends the processes of a generation that is over, and so has no worker: any that was forked and
    /// given up. What is forked later still finds that it cannot report.
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
    /// The number of its process, once that is verified.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(Child::pid)
    }

    fn become_known(&mut self, child: Child) {
        self.process = Some(child);
        if self.stage == super::generation::WorkerStage::Draining {
            self.signal(Signal::SIGTERM);
        }
    }

    /// Sends any signal, if the process is known.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }
}

/// A burst of processes that an application left behind, and a worker among them.
const UNNAMED_MAX: usize = 256;
