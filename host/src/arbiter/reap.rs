//! Exited children. Workers are replaced, molds are started again when they are needed, and orphans that the
//! arbiter adopted are reaped silently.

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Arbiter;
use super::death::describe_worker;
use super::generation::{Generation, Role, Stage};
use super::handles::{Exit, Mold, MoldStage, WorkerHandle, WorkerStage};
use crate::clock;
use crate::exit_status::{BOOT_ERROR, EX_CONFIG};
use crate::message::Refusal;
use crate::process::{self, End};
use crate::scoreboard::Event;

impl Arbiter {
    /// Reaps all children that have exited.
    pub(super) fn reap(&mut self) {
        if !self.generations.iter().any(Generation::expects_workers) {
            self.unclaimed.clear();
        }
        for _ in 0..CHILDREN_MAX {
            // Messages count only while their sender is a child: they are read before it is reaped.
            let exited = process::ended_child().unwrap_or_default();
            if exited.is_some_and(|pid| !self.has_role(pid)) {
                self.read_new_workers();
            }
            match process::reap(exited, false) {
                Ok(Some((pid, end))) => self.on_end(pid, end),
                // No child has exited, or there are no children.
                Ok(None) | Err(_) => return,
            }
        }
        // More than a burst: makes the loop return here at once.
        let _ = nix::sys::signal::raise(Signal::SIGCHLD);
    }

    fn on_end(&mut self, pid: Pid, end: End) {
        if self.successor.as_ref().is_some_and(|successor| successor.pid() == pid) {
            return self.on_successor_end(end);
        }
        if self.on_status_end(pid, end) {
            return;
        }
        if let Some(evaluation) = self.evaluation_of(pid) {
            // Its report, or the end of its output, is read from the pipe.
            return evaluation.set_exited();
        }
        let Some((index, role)) = self.generations.find(pid) else {
            return self.on_unknown_end(pid, end);
        };
        let id = self.generations[index].id;
        match role {
            Role::HealthCheck => self.on_health_check_end(index, end),
            Role::Watcher => self.on_watcher_end(index, end),
            Role::Mold => {
                // Its last messages, and those of its workers, may still be unread.
                self.read_mold(id);
                self.read_workers(id);
                if let Some(mold) = self.generations[index].mold.take() {
                    self.on_mold_end(index, &mold, end);
                }
            }
            Role::Worker => {
                self.read_workers(id);
                if let Some((index, position)) = self.generations.find_worker(pid) {
                    self.on_worker_end(index, position, pid, end);
                }
            }
        }
    }

    fn on_mold_end(&mut self, index: usize, mold: &Mold, end: End) {
        self.scoreboard.release(mold.slot);
        self.run_mold_exit_hook(index, mold, end);
        self.give_up_unforked(index);
        let generation = &self.generations[index];
        let id = generation.id;
        match mold.stage {
            MoldStage::Quitting => {
                tracing::debug!("generation {id}: mold {} exited", mold.pid);
            }
            MoldStage::Loaded => {
                let follows = match generation.stage {
                    Stage::Retiring => "no further hooks run",
                    _ => "another one is started when needed",
                };
                self.scoreboard.ledger().count(Event::MoldDied);
                tracing::warn!("mold {} {}; {follows}", mold.pid, end.describe());
            }
            MoldStage::Loading => {
                let refusal = why_not_loaded(mold, end, &mut self.out_of_memory);
                self.on_load_failed(index, &refusal);
            }
        }
    }

    /// Handles a mold that could not load its payload.
    fn on_load_failed(&mut self, index: usize, refusal: &Refusal) {
        self.scoreboard.ledger().count(Event::BootFailed);
        let now_ns = clock::now_ns();
        let generation = &mut self.generations[index];
        match generation.stage {
            Stage::Booting => self.refuse(index, refusal),
            Stage::Serving | Stage::Trial => {
                tracing::error!("cannot start workers: {}", refusal.reason);
                generation.boot_failed(now_ns);
                generation.retry_at_ns = generation.retry_at_ns.max(now_ns + RELOAD_PAUSE_NS);
                self.roll_back_if_failing(index, refusal);
            }
            Stage::Retiring => {}
        }
    }

    /// Handles the exit of the worker at `position`, whose process was `pid`.
    pub(super) fn on_worker_end(&mut self, index: usize, position: usize, pid: Pid, end: End) {
        let generation = &mut self.generations[index];
        let worker = generation.workers.remove(position);
        let Some(slot) = self.scoreboard.reader(worker.slot) else { return };
        let snapshot = slot.snapshot();
        let killed = end.is_by(Signal::SIGKILL) && worker.kill_reason.is_none();
        let out_of_memory = killed && self.out_of_memory.has_increased();
        let arbiter = process::number(self.scoreboard.arbiter_pid());
        let kill_reason = worker.kill_reason.as_deref();
        let story = describe_worker(end, kill_reason, out_of_memory, &snapshot, arbiter);
        generation.write_lines(&self.scoreboard.unwritten_lines(worker.slot));
        self.scoreboard.release(worker.slot);
        self.run_child_exit_hook(index, Exit::new(pid, worker.age, end));
        let was_told = worker.stage == WorkerStage::Draining || snapshot.ended_by.is_some();
        let never_served = worker.stage == WorkerStage::Draining && worker.ready_ns == 0;
        if never_served || (was_told && end == End::Status(0)) {
            tracing::info!("Worker exiting (pid: {pid}): it {story}");
            return;
        }
        if worker.stage == WorkerStage::Booting {
            let refusal = worker.refusal.clone().unwrap_or_else(|| {
                let before = if worker.kill_reason.is_some() { "" } else { " before it was ready" };
                Refusal::new(format!("worker {pid} {story}{before}"), BOOT_ERROR)
            });
            return self.on_boot_failed(index, &refusal);
        }
        self.scoreboard.ledger().count(Event::WorkerDied);
        tracing::error!("Worker (pid: {pid}) {story}");
        // A worker that was killed from outside is no sign of a fault.
        let by_itself = !killed || out_of_memory;
        if worker.stage == WorkerStage::Ready && by_itself && is_early(&worker) {
            self.generations[index].died_early(clock::now_ns());
            self.roll_back_if_failing(
                index,
                &Refusal::new("its workers die soon after they are ready", BOOT_ERROR),
            );
        }
    }

    /// Handles a worker that could not boot.
    fn on_boot_failed(&mut self, index: usize, refusal: &Refusal) {
        self.scoreboard.ledger().count(Event::BootFailed);
        let now_ns = clock::now_ns();
        let starting = !self.has_been_ready;
        let generation = &mut self.generations[index];
        generation.boot_failed(now_ns);
        let last = refusal.is_lasting()
            || generation.boot_failures >= generation.settings.boot_failures_max;
        match generation.stage {
            Stage::Booting if !starting || last => self.refuse(index, refusal),
            Stage::Booting | Stage::Trial | Stage::Serving => {
                tracing::error!("Worker failed to boot: {}", refusal.reason);
                self.roll_back_if_failing(index, refusal);
            }
            Stage::Retiring => {}
        }
    }
}

/// Returns why a mold exited before it had loaded.
fn why_not_loaded(mold: &Mold, end: End, out_of_memory: &mut super::death::OutOfMemory) -> Refusal {
    if let Some(refusal) = &mold.refusal {
        return refusal.clone();
    }
    let killed = end.is_by(Signal::SIGKILL) || (mold.is_aborted && end.is_by(Signal::SIGABRT));
    if let Some(reason) = mold.killed_for.as_ref().filter(|_| killed) {
        return Refusal::new(reason.clone(), EX_CONFIG);
    }
    let what = mold.doing.as_deref().unwrap_or("loading worker class and application");
    let how = end.describe();
    let why = if end.is_by(Signal::SIGKILL) && out_of_memory.has_increased() {
        ": out of memory"
    } else {
        ""
    };
    Refusal::new(format!("{what} failed: the mold {how}{why}"), EX_CONFIG)
}

/// Returns whether a worker died so soon after it was ready that its replacement may fail in the same way.
fn is_early(worker: &WorkerHandle) -> bool {
    clock::now_ns().saturating_sub(worker.ready_ns) < EARLY_NS
}

/// Bound on children reaped in one iteration of the loop.
const CHILDREN_MAX: usize = 1024;
/// A worker that dies within this time after it was ready has died early.
const EARLY_NS: u64 = 1_000_000_000;
/// Pause before a serving generation tries to load its payload again.
const RELOAD_PAUSE_NS: u64 = 1_000_000_000;
