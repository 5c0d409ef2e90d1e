//! Time limits: molds that do not load, and workers that do not boot, send no heartbeat, or do not stop. The
//! arbiter wakes only when a limit may have been reached.

use std::sync::Arc;

use nix::sys::signal::{Signal, kill};

use super::Arbiter;
use super::death::{describe_requests, seconds};
use super::generation::{Generation, Stage};
use super::handles::{ABORT_NS, WorkerHandle, WorkerStage};
use super::stop::Phase;
use crate::clock;
use crate::exit_status::BOOT_ERROR;
use crate::hooks::WORKER_ABORT;
use crate::message::Refusal;
use crate::process::{self, name_of, tracer_of};
use crate::scoreboard::{Event, SlotReader};

impl Arbiter {
    /// Returns the time at which a limit may be reached next.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let stopping = matches!(self.phase, Phase::Stopping { .. });
        let of_generations = self.generations.iter().flat_map(|generation| {
            let mold = generation.mold.as_ref().and_then(|mold| mold.kill_at_ns);
            let retries =
                generation.retry_at_ns != 0 && generation.stage != Stage::Retiring && !stopping;
            let retry = retries.then_some(generation.retry_at_ns);
            let workers = generation.workers.iter().flat_map(|worker| {
                let slot = self.scoreboard.reader(worker.slot);
                let silent = slot.and_then(|slot| self.silent_at(generation, worker, slot));
                [silent, worker.kill_at_ns]
            });
            let health = generation.health.next_deadline();
            let boot = generation.late_at_ns();
            [mold, retry, health, boot].into_iter().chain(workers).flatten()
        });
        let of_phase = match self.phase {
            Phase::Delaying { until_ns } => Some(until_ns),
            Phase::Running | Phase::Stopping { .. } => None,
        };
        let of_clients = self.control.next_deadline();
        let of_evaluations = self.evaluations.iter().filter_map(|of| of.evaluation.deadline_ns());
        let of_status = self.status.next_deadline();
        let of_memory = self.has_been_ready.then(|| self.next_measurement());
        let of_scaling = self.next_sample();
        let of_systemd = self.notifier.watchdog_due_ns();
        of_generations
            .chain(of_phase)
            .chain(of_clients)
            .chain(of_evaluations)
            .chain(of_status)
            .chain(of_memory)
            .chain(of_scaling)
            .chain(of_systemd)
            .min()
    }

    /// Acts on all limits that were reached.
    pub(super) fn check_timeouts(&mut self) {
        let now_ns = clock::now_ns();
        if now_ns > self.woke_ns + OWN_PAUSE_NS {
            self.restart_timeouts();
        }
        for index in 0..self.generations.len() {
            self.generations[index].kill_late_mold(now_ns);
            for worker in (0..self.generations[index].workers.len()).rev() {
                self.check_worker(index, worker, now_ns);
            }
        }
        self.check_boot(now_ns);
        self.read_evaluations();
        if matches!(self.phase, Phase::Delaying { until_ns } if until_ns <= now_ns) {
            self.stop_gracefully();
        }
        self.control.drop_idle(now_ns);
        self.check_memory(now_ns);
        self.scale(now_ns);
        self.notifier.keep_watchdog_quiet(now_ns);
    }

    /// Restarts all timeouts if the arbiter itself did not run for a while: it could not see heartbeats in
    /// that time, and the workers may have been stopped with it.
    pub(super) fn detect_own_pause(&mut self, wake_at_ns: Option<u64>) {
        self.woke_ns = clock::now_ns();
        if wake_at_ns.is_some_and(|at| self.woke_ns > at + OWN_PAUSE_NS) {
            self.restart_timeouts();
        }
    }

    /// Restarts the heartbeat timeout of all workers.
    pub(super) fn restart_timeouts(&mut self) {
        tracing::debug!(
            "the arbiter was stopped for a while: restarting the timeouts of all workers"
        );
        self.timeouts_from_ns = clock::now_ns();
    }

    /// Refuses a generation that has exceeded its boot timeout as a whole, if neither its mold nor one of its
    /// workers was late on its own.
    fn check_boot(&mut self, now_ns: u64) {
        let is_late =
            |generation: &Generation| generation.late_at_ns().is_some_and(|at| now_ns >= at);
        let Some(index) = self.generations.iter().position(is_late) else { return };
        let generation = &self.generations[index];
        let (ready, target) = (generation.serving(), generation.target);
        let limit = seconds(generation.settings.boot_timeout.unwrap_or_default());
        let reason = format!(
            "{ready} of {target} workers were ready within {limit} (the setting boot_timeout)"
        );
        self.refuse(index, &Refusal::new(reason, BOOT_ERROR));
    }

    fn check_worker(&mut self, index: usize, worker: usize, now_ns: u64) {
        let generation = &self.generations[index];
        let handle = &generation.workers[worker];
        let Some(slot) = self.scoreboard.reader(handle.slot) else { return };
        if handle.process.is_none() {
            return self.forget_unforked(index, worker, now_ns);
        }
        let killed = handle.kill_at_ns.is_some_and(|at| at <= now_ns);
        let silent = self.silent_at(generation, handle, slot).is_some_and(|at| at <= now_ns);
        if !killed && !silent {
            return;
        }
        let busy = describe_requests(&slot.in_flight(), now_ns);
        let settings = Arc::clone(&generation.settings);
        let heartbeat_ns = slot.heartbeat_ns();
        let silent = silent && !self.generations[index].workers[worker].spare_traced(now_ns);
        if !killed && !silent {
            return;
        }
        let handle = &mut self.generations[index].workers[worker];
        if handle.kill_reason.is_some() {
            handle.kill_at_ns = None;
            handle.signal(Signal::SIGKILL);
            return;
        }
        let reason = match handle.stage {
            _ if silent => {
                format!("no heartbeat for {}{busy}", seconds(clock::between(heartbeat_ns, now_ns)))
            }
            WorkerStage::Booting => {
                let limit = seconds(settings.boot_timeout.unwrap_or_default());
                let words = slot.snapshot().last_words.map(|words| format!(": {words}"));
                let words = words.unwrap_or_default();
                format!("it was not ready within {limit} (the setting boot_timeout){words}")
            }
            _ if handle.ready_ns == 0 => "it was stopped while it booted".to_owned(),
            _ => {
                let limit = seconds(settings.graceful_timeout);
                let more =
                    seconds(settings.exit_timeout().saturating_sub(settings.graceful_timeout));
                format!(
                    "it did not exit within {limit} (the setting graceful_timeout) and {more} more{busy}"
                )
            }
        };
        if silent {
            self.scoreboard.ledger().count(Event::WorkerTimedOut);
        }
        // A worker that was stopped while it booted has nothing to report.
        let gentle = silent || handle.stage == WorkerStage::Booting || handle.ready_ns != 0;
        handle.kill_reason = Some(reason);
        if gentle {
            // As in gunicorn: SIGABRT first, which leaves a trace or a core.
            handle.signal(Signal::SIGABRT);
            handle.kill_at_ns = Some(now_ns + ABORT_NS);
            let facts = [handle.pid().map_or(0, |pid| i64::from(pid.as_raw())), handle.age as i64];
            self.generations[index].send_hook(WORKER_ABORT, &facts);
        } else {
            handle.signal(Signal::SIGKILL);
            handle.kill_at_ns = None;
        }
    }

    /// Handles a worker that its mold never forked, or that never reported.
    fn forget_unforked(&mut self, index: usize, worker: usize, now_ns: u64) {
        let handle = &self.generations[index].workers[worker];
        let slot = handle.slot;
        if handle.kill_at_ns.is_none_or(|at| now_ns < at) {
            return;
        }
        let is_killed = self.kill_silent_worker(index, worker);
        let generation = &mut self.generations[index];
        generation.workers[worker].kill_at_ns = None;
        if is_killed {
            generation.workers[worker].kill_reason = Some("it did not report".to_owned());
        } else if let Some(mold) = &generation.mold {
            tracing::error!("mold {} killed: it forks no workers", mold.pid);
            let _ = kill(mold.pid, Signal::SIGKILL);
        } else {
            generation.workers.remove(worker);
            self.scoreboard.release(slot);
        }
    }

    /// Returns when a worker counts as dead unless it sends a heartbeat before.
    fn silent_at(
        &self,
        generation: &Generation,
        worker: &WorkerHandle,
        slot: SlotReader,
    ) -> Option<u64> {
        let timeout_ns = clock::duration_ns(generation.settings.timeout?);
        let has_timeout = worker.stage != WorkerStage::Booting && worker.process.is_some();
        if !has_timeout || worker.kill_reason.is_some() {
            return None;
        }
        let heartbeat_ns = slot.heartbeat_ns().max(self.timeouts_from_ns).max(worker.forked_ns);
        if worker.is_traced {
            // Short enough that the timeout begins soon after the debugger has detached.
            return Some(worker.traced_ns.saturating_add(TRACED_NS));
        }
        Some(heartbeat_ns.max(worker.traced_ns).saturating_add(timeout_ns))
    }
}

impl WorkerHandle {
    /// Returns whether a worker without a heartbeat is spared because a debugger traces it: a worker that is
    /// stopped there has no fault, and must not be killed under the person who debugs it.
    ///
    /// A full `timeout` begins when the debugger has detached.
    fn spare_traced(&mut self, now_ns: u64) -> bool {
        let Some(pid) = self.pid().map(process::number) else { return false };
        let was_traced = self.is_traced;
        let tracer = tracer_of(pid);
        self.is_traced = tracer.is_some();
        match tracer {
            Some(tracer) => {
                self.traced_ns = now_ns;
                if !was_traced {
                    let name = name_of(tracer).unwrap_or_default();
                    tracing::warn!(
                        "worker (pid: {pid}) is traced by process {tracer} ({name}): \
                         its timeout is suspended until the tracer detaches"
                    );
                }
            }
            None if was_traced => {
                tracing::info!("worker (pid: {pid}) is no longer traced: its timeout counts again");
            }
            None => return false,
        }
        true
    }
}

/// A wake-up, or an iteration of the loop, that takes longer means that the process was stopped.
const OWN_PAUSE_NS: u64 = 500_000_000;
/// Interval between checks of a traced worker.
const TRACED_NS: u64 = 1_000_000_000;
