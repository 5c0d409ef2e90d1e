//! Messages from molds and workers. A message counts only if it comes from the process that it is about; all
//! others are logged and ignored.

use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Arbiter;
use super::generation::Generation;
use super::handles::{MoldStage, WorkerStage};
use crate::clock;
use crate::exit_status::BOOT_ERROR;
use crate::message::{FromMold, FromWorker, Loaded, Received, Refusal};
use crate::scoreboard::{Event, Scoreboard};

impl Arbiter {
    /// Reads the pending messages of a generation's mold.
    pub(super) fn read_mold(&mut self, id: u32) {
        for _ in 0..MESSAGES_MAX {
            let Some(generation) = self.generations.by_id_mut(id) else { return };
            let Some(mold) = &generation.mold else { return };
            match mold.command.receive::<FromMold>() {
                Ok(Received::Message(FromMold::Forked { age, pid }, sender))
                    if mold.pid == sender =>
                {
                    if let Some(index) = self.generations.index_of(id) {
                        self.on_forked(index, age, Pid::from_raw(pid));
                    }
                }
                Ok(Received::Message(FromMold::ForkFailed { age, reason }, sender))
                    if mold.pid == sender =>
                {
                    self.on_fork_failed(id, age, &reason);
                }
                Ok(Received::Message(message, sender)) if mold.pid == sender => {
                    generation.on_mold(message);
                }
                Ok(Received::Message(message, sender)) => {
                    tracing::warn!(
                        "process {sender} is not the mold but sent {message:?}: ignored"
                    );
                }
                Ok(Received::Garbled(sender)) => {
                    tracing::warn!("process {sender} sent a garbled message: ignored");
                }
                Ok(Received::Nothing) => return,
                Ok(Received::Closed) => return generation.on_mold_closed(),
                Err(error) => {
                    tracing::warn!("cannot read from mold {}: {error}", mold.pid);
                    return;
                }
            }
        }
    }

    /// Handles a failed fork of a worker. A booting generation is refused if this lasts.
    fn on_fork_failed(&mut self, id: u32, age: u64, reason: &str) {
        let Some(index) = self.generations.index_of(id) else { return };
        let now_ns = clock::now_ns();
        let generation = &mut self.generations[index];
        if let Some(position) = generation.find_unreported(age) {
            self.scoreboard.release(generation.workers.remove(position).slot);
        }
        let is_first = generation.fork_fails_since_ns.is_none();
        let reason = format!("cannot fork a worker: {reason}");
        if generation.fork_failed(now_ns) {
            return self.refuse(index, &Refusal::new(reason, BOOT_ERROR));
        }
        if is_first {
            tracing::error!("{reason}");
        }
    }

    /// Reads the pending messages of a generation's workers.
    pub(super) fn read_workers(&mut self, id: u32) {
        for _ in 0..MESSAGES_MAX {
            let scoreboard = Arc::clone(&self.scoreboard);
            let Some(generation) = self.generations.by_id_mut(id) else { return };
            match generation.report.receive::<FromWorker>() {
                Ok(Received::Message(FromWorker::Started { age }, sender)) => {
                    self.on_started(id, age, sender);
                }
                Ok(Received::Message(FromWorker::Stack(report), sender)) => {
                    self.on_stack(id, sender, *report);
                }
                Ok(Received::Message(message, sender)) => {
                    generation.on_worker(message, sender, &scoreboard);
                }
                Ok(Received::Garbled(sender)) => {
                    tracing::warn!("process {sender} sent a garbled message: ignored");
                }
                Ok(Received::Nothing | Received::Closed) => return,
                Err(error) => {
                    tracing::warn!("cannot read from workers: {error}");
                    return;
                }
            }
        }
    }
}

impl Generation {
    /// The mold has exited, or a plugin in it has closed the channel. A mold that cannot be reached is
    /// useless, and killing one that is exiting does no harm.
    fn on_mold_closed(&mut self) {
        if let Some(mold) = &mut self.mold {
            let _ = kill(mold.pid, Signal::SIGKILL);
            mold.killed_for
                .get_or_insert_with(|| "the mold closed its connection to the arbiter".to_owned());
        }
    }

    fn on_mold(&mut self, message: FromMold) {
        let Some(mold) = &mut self.mold else { return };
        match message {
            FromMold::Loaded(loaded) => {
                if mold.stage == MoldStage::Loading {
                    mold.stage = MoldStage::Loaded;
                    mold.kill_at_ns = None;
                }
                let interface = loaded.interface();
                let Loaded { class, class_version, app, .. } = &loaded;
                tracing::info!(
                    "Using worker class: {class} {class_version} ({interface}), application: {app}"
                );
                self.loaded = Some(loaded);
            }
            FromMold::Loading(what) => mold.doing = Some(what),
            FromMold::ExitRead { pid } => mold.has_read_exit(pid),
            FromMold::StackTaken => mold.untaken_stacks = mold.untaken_stacks.saturating_sub(1),
            FromMold::Refused(refusal) => mold.refusal = Some(refusal),
            // See `Arbiter::read_mold`.
            FromMold::Forked { .. } | FromMold::ForkFailed { .. } => {}
        }
    }

    fn on_worker(&mut self, message: FromWorker, sender: Pid, scoreboard: &Scoreboard) {
        let Some(position) = self.find_worker(sender) else {
            tracing::warn!("process {sender} is not a worker but sent {message:?}: ignored");
            return;
        };
        let worker = &mut self.workers[position];
        match message {
            FromWorker::Ready { .. } if worker.stage == WorkerStage::Booting => {
                worker.stage = WorkerStage::Ready;
                worker.ready_ns = clock::now_ns();
                worker.kill_at_ns = None;
                tracing::info!("Booted worker with pid: {sender}");
                self.boot_succeeded();
                scoreboard.ledger().count(Event::WorkerReady);
            }
            // It was stopped before this message was read, and may have accepted connections.
            FromWorker::Ready { .. } if worker.stage == WorkerStage::Draining => {
                worker.ready_ns = clock::now_ns();
                if worker.kill_reason.is_none() {
                    worker.kill_at_ns = Some(worker.end_until_ns);
                }
            }
            // See `Arbiter::read_workers`.
            FromWorker::Ready { .. } | FromWorker::Started { .. } | FromWorker::Stack(_) => {}
            FromWorker::BootFailed { refusal, .. } => worker.refusal = Some(refusal),
            FromWorker::Retiring { reason, .. } => {
                if !worker.wants_to_retire && worker.stage == WorkerStage::Ready {
                    tracing::info!("replacing worker (pid: {sender}): {reason}");
                    worker.wants_to_retire = true;
                    scoreboard.ledger().count(Event::WorkerRetired);
                }
            }
        }
    }
}

/// Bound on messages read from one channel in one iteration of the loop, so that one sender cannot starve the
/// others.
const MESSAGES_MAX: usize = 256;
