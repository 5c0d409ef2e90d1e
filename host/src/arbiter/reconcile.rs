//! Reconciles the number of workers with the configured one: starts molds, asks them to fork, and drains surplus
//! workers. Called in each iteration of the loop; it acts on the current state, not on events.

use std::os::fd::AsFd;
use std::sync::Arc;

use nix::unistd::ForkResult;

use super::Arbiter;
use super::generation::{Generation, Stage};
use super::handles::{Mold, MoldStage, Watcher, WorkerHandle, WorkerStage};
use super::probe::Health;
use super::stop::Phase;
use crate::control::ClientId;
use crate::exit_status::{BOOT_ERROR, EX_CONFIG};
use crate::hooks::Commands;
use crate::listener::Listener;
use crate::log::{AccessLog, LeftLines};
use crate::message::{Channel, Refusal, ToMold};
use crate::mold::MoldStart;
use crate::payload::MoldContext;
use crate::scoreboard::{ClaimError, SlotMemory};
use crate::settings::Settings;
use crate::{clock, limits, process};

impl Arbiter {
    /// Adds a generation, without any process yet.
    pub(super) fn add_generation(
        &mut self,
        settings: Arc<Settings>,
        listeners: Vec<Arc<Listener>>,
        waiting: Vec<ClientId>,
    ) -> std::io::Result<()> {
        let (report, report_of_workers) = Channel::pair()?;
        let access_file =
            AccessLog::open_file(&settings).map_err(std::io::Error::other)?.map(Arc::new);
        // No other generation serves while the first one would be checked.
        let health = if self.has_been_ready {
            Health::new(&settings).map_err(std::io::Error::other)?
        } else {
            Health::default()
        };
        self.generations_created += 1;
        self.generations.push(Generation {
            id: self.generations_created,
            stage: Stage::Booting,
            target: self.workers_at_start(&settings),
            settings,
            listeners,
            mold: None,
            loaded: None,
            workers: Vec::new(),
            report,
            report_of_workers,
            access_file,
            left_lines: LeftLines::default(),
            started_ns: clock::now_ns(),
            boot_failures: 0,
            failed_ns: 0,
            has_booted: false,
            retry_at_ns: 0,
            fork_fails_since_ns: None,
            waiting,
            share: None,
            borrowed: 0,
            health,
            watcher: None,
            watcher_started: false,
            is_reload: self.has_been_ready,
            awaits_change: false,
        });
        Ok(())
    }

    /// Brings every generation closer to its configured number of workers.
    pub(super) fn reconcile_workers(&mut self) {
        if matches!(self.phase, Phase::Stopping { .. }) {
            return;
        }
        for index in 0..self.generations.len() {
            let generation = &mut self.generations[index];
            if generation.stage == Stage::Retiring || generation.awaits_change {
                continue;
            }
            if clock::now_ns() >= generation.retry_at_ns {
                generation.retry_at_ns = 0;
            }
            let missing = generation.target.saturating_sub(generation.counted());
            if missing > 0 && generation.retry_at_ns == 0 {
                match generation.mold.as_ref().map(|mold| mold.stage) {
                    None => self.fork_mold(index),
                    Some(MoldStage::Loaded) => self.ask_for_workers(index, missing),
                    Some(MoldStage::Loading | MoldStage::Quitting) => {}
                }
            }
            for age in self.generations[index].surplus() {
                self.generations[index].drain(age);
            }
        }
    }

    /// Forks the mold of a generation.
    fn fork_mold(&mut self, index: usize) {
        self.start_watcher(index);
        let now_ns = clock::now_ns();
        let claimed = self.claim_slot(self.generations[index].id, MOLD_AGE);
        let (slot, memory) = match claimed {
            Ok(claimed) => (claimed.index, claimed.memory),
            Err(error) => return self.on_no_mold(index, &error.to_string()),
        };
        let result = Channel::pair().map_err(limits::describe).and_then(|pair| {
            let generation = &self.generations[index];
            let report = generation.report_of_workers.duplicate();
            let report = report.map_err(|error| limits::describe_io(&error))?;
            let fork = process::fork_with_signals_blocked().map_err(limits::describe)?;
            Ok((pair, report, fork))
        });
        let generation = &mut self.generations[index];
        match result {
            Ok(((near, far), report, ForkResult::Child)) => {
                drop(near);
                self.become_mold(index, far, report, memory)
            }
            Ok(((near, _), _, ForkResult::Parent { child })) => {
                tracing::debug!("generation {}: mold {child} loads", generation.id);
                let kill_at_ns = generation.kill_at_ns(now_ns);
                generation.mold = Some(Mold {
                    pid: child,
                    slot,
                    command: near,
                    stage: MoldStage::Loading,
                    kill_at_ns,
                    doing: None,
                    killed_for: None,
                    is_aborted: false,
                    refusal: None,
                    unread_exits: Vec::new(),
                    untaken_stacks: 0,
                });
            }
            Err(reason) => {
                self.scoreboard.release(slot);
                self.on_no_mold(index, &reason);
            }
        }
    }

    /// Handles a failure to create the process or the descriptors of a mold. A booting generation is refused
    /// if another one serves or it has failed too often; any other tries again.
    fn on_no_mold(&mut self, index: usize, reason: &str) {
        let now_ns = clock::now_ns();
        let generation = &mut self.generations[index];
        let reason = format!("cannot start the process that loads the application: {reason}");
        if generation.stage != Stage::Booting {
            tracing::error!("generation {}: {reason}", generation.id);
            generation.retry_at_ns = now_ns + RETRY_NS;
            return;
        }
        generation.boot_failed(now_ns);
        if generation.is_reload || generation.boot_failures >= generation.settings.boot_failures_max
        {
            return self.refuse(index, &Refusal::new(reason, BOOT_ERROR));
        }
        tracing::error!("{reason}");
        generation.retry_at_ns = generation.retry_at_ns.max(now_ns + RETRY_NS);
    }

    /// Runs in the child: nothing of the arbiter is used or dropped from here on.
    fn become_mold(&self, index: usize, command: Channel, report: Channel, slot: SlotMemory) -> ! {
        let generation = &self.generations[index];
        let context = MoldContext {
            settings: Arc::clone(&generation.settings),
            generation: generation.id,
            listeners: generation
                .listeners
                .iter()
                .cloned()
                .chain(generation.health.listener())
                .collect(),
            arbiter_pid: self.scoreboard.arbiter_pid(),
            log: Arc::clone(&self.log),
            access: generation.access_file.clone(),
            files: Vec::new(),
            commands: Commands::default(),
            runtime: None,
            watcher: generation.watcher.as_ref().map(Watcher::files),
        };
        let scoreboard = Arc::clone(&self.scoreboard);
        let keep = self.common_descriptors();
        (self.mold_main)(MoldStart { context, command, report, scoreboard, slot, keep })
    }

    /// Asks the mold for `missing` workers.
    fn ask_for_workers(&mut self, index: usize, missing: usize) {
        for _ in 0..missing {
            let age = self.workers_created + 1;
            let claimed = self.claim_slot(self.generations[index].id, age);
            let generation = &mut self.generations[index];
            let (slot, memory) = match claimed {
                Ok(claimed) => (claimed.index, claimed.memory),
                Err(error) => {
                    let reason = format!("cannot add a worker: {error}");
                    if generation.stage == Stage::Booting && matches!(error, ClaimError::Full) {
                        return self.refuse(index, &Refusal::new(reason, EX_CONFIG));
                    }
                    tracing::error!("{reason}");
                    generation.retry_at_ns = clock::now_ns() + RETRY_NS;
                    return;
                }
            };
            generation.leave_lines(&memory);
            let Some(mold) = &generation.mold else { return };
            let message = ToMold::Fork { slot, age };
            let memory = memory.descriptor().map(AsFd::as_fd);
            if let Err(error) = mold.command.send_with(&message, memory) {
                tracing::debug!("cannot send to mold {}: {error}", mold.pid);
                generation.write_lines(&self.scoreboard.unwritten_lines(slot));
                self.scoreboard.release(slot);
                generation.retry_at_ns = clock::now_ns() + RETRY_NS;
                return;
            }
            self.workers_created = age;
            let now_ns = clock::now_ns();
            let kill_at_ns = generation.kill_at_ns(now_ns);
            generation.workers.push(WorkerHandle {
                process: None,
                claimed: None,
                slot,
                age,
                stage: WorkerStage::Booting,
                forked_ns: now_ns,
                ready_ns: 0,
                end_until_ns: 0,
                wants_to_retire: false,
                kill_at_ns,
                kill_reason: None,
                traced_ns: 0,
                is_traced: false,
                refusal: None,
                mentioned_kib: 0,
            });
        }
    }
}

/// Age under which the scoreboard lists a mold.
const MOLD_AGE: u64 = 0;
/// Pause after the system refused a process or a slot.
const RETRY_NS: u64 = 1_000_000_000;
