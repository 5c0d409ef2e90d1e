//! A generation as the arbiter sees it: its state, its processes, and everything that is done to them.

use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::death::seconds;
use super::handles::{
    ABORT_NS, BOOTING_END_NS, Exit, Mold, MoldStage, Watcher, WorkerHandle, WorkerStage,
};
use super::probe::Health;
use crate::clock;
use crate::control::ClientId;
use crate::hooks::CHILD_EXIT;
use crate::listener::Listener;
use crate::log::{LeftLines, LogFile};
use crate::message::{Channel, FromWorker, Loaded, Received, ToMold};
use crate::process::Child;
use crate::scoreboard::SlotMemory;
use crate::settings::Settings;

/// One configuration, one worker class, one application, and the processes created from them.
pub(super) struct Generation {
    pub(super) id: u32,
    pub(super) settings: Arc<Settings>,
    pub(super) listeners: Vec<Arc<Listener>>,
    pub(super) stage: Stage,
    /// Configured number of workers.
    pub(super) target: usize,
    pub(super) mold: Option<Mold>,
    pub(super) loaded: Option<Loaded>,
    pub(super) workers: Vec<WorkerHandle>,
    /// The arbiter's end of the channel on which workers report, and the end that the workers share.
    pub(super) report: Channel,
    pub(super) report_of_workers: Channel,
    /// File of the access log, if configured.
    pub(super) access_file: Option<Arc<LogFile>>,
    /// Lines of dead workers for which the access log had no room.
    pub(super) left_lines: LeftLines,
    pub(super) started_ns: u64,
    /// Consecutive failed boots, the time of the last one, whether a boot has succeeded since, and the time
    /// at which the next may begin.
    pub(super) boot_failures: u32,
    pub(super) failed_ns: u64,
    pub(super) has_booted: bool,
    pub(super) retry_at_ns: u64,
    /// Start of the period in which every fork of a worker has failed.
    pub(super) fork_fails_since_ns: Option<u64>,
    /// Clients of the control socket to notify when this generation has taken over.
    pub(super) waiting: Vec<ClientId>,
    /// Number of workers to try the generation with before it takes over.
    pub(super) share: Option<usize>,
    /// Number of workers that the serving generation has given up for this one.
    pub(super) borrowed: usize,
    pub(super) health: Health,
    /// The process that watches its files, and whether one was started.
    pub(super) watcher: Option<Watcher>,
    pub(super) watcher_started: bool,
    /// Whether another generation was serving when this one was added.
    pub(super) is_reload: bool,
    /// Refused at the start of a server with `reload`: nothing is attempted until a file changes or a reload
    /// is requested.
    pub(super) awaits_change: bool,
}

/// State of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its mold loads and its workers boot. It may still be refused.
    Booting,
    /// Some of its workers serve beside those of the serving generation.
    Trial,
    /// The generation that serves.
    Serving,
    /// Finishes its requests and exits.
    Retiring,
}

impl Stage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Booting => "booting",
            Self::Trial => "trial",
            Self::Serving => "serving",
            Self::Retiring => "retiring",
        }
    }
}

/// What a process is in its generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Mold,
    Worker,
    /// The process that watches the files.
    Watcher,
    /// The process that runs a health check.
    HealthCheck,
}

impl Generation {
    /// Returns the number of workers that exist or were requested, without those that are stopping.
    pub(super) fn counted(&self) -> usize {
        self.workers.iter().filter(|worker| worker.counts()).count()
    }

    /// Returns the number of workers that serve and will continue to.
    pub(super) fn serving(&self) -> usize {
        self.workers.iter().filter(|worker| worker.serves()).count()
    }

    /// Returns the deadline of a generation that boots beside another one: for its mold, its workers, and all
    /// further attempts.
    pub(super) fn boot_deadline_ns(&self) -> Option<u64> {
        let limit = self.settings.boot_timeout.filter(|_| self.is_reload)?;
        (self.stage == Stage::Booting)
            .then(|| self.started_ns.saturating_add(clock::duration_ns(limit)))
    }

    /// Returns when the generation as a whole is refused, if neither its mold nor one of its workers is late
    /// on its own.
    pub(super) fn late_at_ns(&self) -> Option<u64> {
        let lacks = self.serving() < self.target;
        self.boot_deadline_ns().filter(|_| lacks).map(|at| at.saturating_add(BOOT_MARGIN_NS))
    }

    /// Returns the deadline of a mold or worker that starts now.
    pub(super) fn kill_at_ns(&self, now_ns: u64) -> Option<u64> {
        let own = self.settings.boot_timeout.map(|limit| now_ns + clock::duration_ns(limit));
        own.into_iter().chain(self.boot_deadline_ns()).min()
    }

    /// Returns whether it is retired and no process is left.
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Retiring && self.mold.is_none() && self.workers.is_empty()
    }

    /// Returns the surplus workers: the oldest ones, then those that asked to be replaced, as soon as the
    /// others suffice.
    pub(super) fn surplus(&self) -> Vec<u64> {
        let mut ages: Vec<u64> =
            self.workers.iter().filter(|worker| worker.counts()).map(|worker| worker.age).collect();
        ages.sort_unstable();
        ages.truncate(ages.len().saturating_sub(self.target));
        let mut asked: Vec<u64> = self
            .workers
            .iter()
            .filter(|worker| {
                worker.wants_to_retire
                    && worker.stage == WorkerStage::Ready
                    && worker.kill_reason.is_none()
            })
            .map(|worker| worker.age)
            .collect();
        asked.sort_unstable();
        asked.truncate((self.serving() + asked.len()).saturating_sub(self.target));
        ages.extend(asked);
        ages
    }

    /// Records that a worker could not boot. The first failure causes no pause; each further one doubles it.
    pub(super) fn boot_failed(&mut self, now_ns: u64) {
        self.back_off(now_ns, BOOT_DOUBLINGS_MAX);
    }

    /// Records that a worker died so soon after it was ready that its replacement may fail in the same way.
    /// The other workers may be fine, so the pause stays short.
    pub(super) fn died_early(&mut self, now_ns: u64) {
        self.back_off(now_ns, EARLY_DOUBLINGS_MAX);
    }

    /// Records that a worker is ready. The failures before are forgotten only if none follows for a while.
    pub(super) fn boot_succeeded(&mut self) {
        self.has_booted = true;
        self.fork_fails_since_ns = None;
    }

    /// Records that the mold could not fork a worker. Returns whether this has lasted so long that a booting
    /// generation must be refused.
    pub(super) fn fork_failed(&mut self, now_ns: u64) -> bool {
        let since_ns = *self.fork_fails_since_ns.get_or_insert(now_ns);
        let is_booting = self.stage == Stage::Booting;
        self.retry_at_ns = now_ns + if is_booting { FORK_RETRY_NS } else { FORK_PAUSE_NS };
        is_booting && now_ns >= since_ns + FORK_FAILURES_NS
    }

    fn back_off(&mut self, now_ns: u64, doublings_max: u32) {
        if self.has_booted && now_ns.saturating_sub(self.failed_ns) > FORGET_NS {
            self.boot_failures = 0;
        }
        self.has_booted = false;
        self.failed_ns = now_ns;
        self.boot_failures += 1;
        if self.boot_failures > 1 {
            let doublings = (self.boot_failures - 2).min(doublings_max);
            self.retry_at_ns = now_ns + (BACK_OFF_NS << doublings);
        }
    }

    /// Returns what a process is in this generation, if it belongs to it.
    pub(super) fn role_of(&self, pid: Pid) -> Option<Role> {
        if self.mold.as_ref().is_some_and(|mold| mold.pid == pid) {
            Some(Role::Mold)
        } else if self.watcher.as_ref().is_some_and(|watcher| watcher.is(pid)) {
            Some(Role::Watcher)
        } else if self.health.is_checked_by(pid) {
            Some(Role::HealthCheck)
        } else {
            self.find_worker(pid).map(|_| Role::Worker)
        }
    }

    /// Returns the position of the worker with this process.
    pub(super) fn find_worker(&self, pid: Pid) -> Option<usize> {
        self.workers.iter().position(|worker| worker.pid() == Some(pid))
    }

    /// Returns the position of a requested worker that has not reported yet.
    pub(super) fn find_unreported(&self, age: u64) -> Option<usize> {
        self.workers.iter().position(|worker| worker.age == age && worker.process.is_none())
    }

    /// Returns whether the processes of some workers are not known yet.
    pub(super) fn expects_workers(&self) -> bool {
        self.workers.iter().any(|worker| worker.process.is_none())
    }

    /// Kills the unclaimed processes of a generation that has ended and so has no worker. A process that is
    /// forked later finds the channel closed and exits.
    pub(super) fn kill_unclaimed(&self) {
        self.report.refuse_more();
        while let Ok(Received::Message(message, sender)) = self.report.receive::<FromWorker>() {
            if matches!(message, FromWorker::Started { .. })
                && let Some(child) = Child::verify(sender)
            {
                child.signal(Signal::SIGKILL);
            }
        }
    }

    /// Sends an event to the mold, which runs the hooks. Returns true if it was sent, or if there are no
    /// hooks.
    pub(super) fn send_hook(&self, event: &str, facts: &[i64]) -> bool {
        if !self.has_hooks() {
            return true;
        }
        let message = ToMold::Hook { event: event.to_owned(), facts: facts.to_vec() };
        let sent = self.reachable_mold().is_some_and(|mold| mold.command.send(&message).is_ok());
        if !sent {
            tracing::debug!("generation {}: no mold runs the hook {event}", self.id);
        }
        sent
    }

    /// Returns the mold if it handles messages now or will when it has loaded.
    pub(super) fn reachable_mold(&self) -> Option<&Mold> {
        self.mold.as_ref().filter(|mold| mold.stage != MoldStage::Quitting)
    }

    /// Returns the mold if it handles messages now.
    pub(super) fn loaded_mold(&self) -> Option<&Mold> {
        self.mold.as_ref().filter(|mold| mold.stage == MoldStage::Loaded)
    }

    pub(super) fn has_hooks(&self) -> bool {
        self.settings.hooks_module.is_some() || !self.settings.sections.hooks.is_empty()
    }

    /// Tells one worker to stop gracefully.
    pub(super) fn drain(&mut self, age: u64) {
        let limit_ns = clock::duration_ns(self.settings.exit_timeout());
        if let Some(worker) = self.workers.iter_mut().find(|worker| worker.age == age) {
            worker.tell_to_stop(Signal::SIGTERM, limit_ns);
        }
    }

    /// Stops the processes of a generation that could not be loaded, except the one that watches its files.
    pub(super) fn await_change(&mut self) {
        self.awaits_change = true;
        for worker in &mut self.workers {
            worker.tell_to_stop(Signal::SIGTERM, BOOTING_END_NS);
        }
        self.quit_mold();
    }

    /// Retires the generation: its workers are sent `signal` and not replaced.
    pub(super) fn retire(&mut self, signal: Signal, limit_ns: u64) {
        self.end_workers(signal, limit_ns);
        self.quit_mold();
    }

    /// Retires the generation because the server stops. If it serves and has hooks, its mold lives until the
    /// hooks have run for each exited worker ([`Generation::run_exit_hook`]).
    pub(super) fn retire_at_last(&mut self, signal: Signal, limit_ns: u64) {
        // `Retiring` on the second call, for a mold that was kept for its hooks.
        let serves = matches!(self.stage, Stage::Serving | Stage::Retiring);
        let stays = serves && self.has_hooks() && self.keep_mold_for_hooks();
        if stays { self.end_workers(signal, limit_ns) } else { self.retire(signal, limit_ns) }
    }

    /// Runs the last hook after the last worker has exited, and ends the mold that was kept for it.
    pub(super) fn run_exit_hook(&mut self) {
        self.send_hook("on_exit", &[self.target as i64]);
        self.quit_mold();
    }

    /// Returns whether the mold is kept for its hooks only.
    pub(super) fn is_kept_for_hooks(&self) -> bool {
        self.stage == Stage::Retiring && self.loaded_mold().is_some()
    }

    fn keep_mold_for_hooks(&self) -> bool {
        self.loaded_mold().is_some_and(|mold| mold.command.send(&ToMold::ReleaseListeners).is_ok())
    }

    fn quit_mold(&mut self) {
        if let Some(mold) = &mut self.mold {
            mold.quit(clock::now_ns());
        }
    }

    fn end_workers(&mut self, signal: Signal, limit_ns: u64) {
        self.stage = Stage::Retiring;
        self.health.close();
        self.watcher = None;
        for worker in &mut self.workers {
            worker.tell_to_stop(signal, limit_ns);
        }
    }

    /// Kills a mold that did not load or exit in time.
    pub(super) fn kill_late_mold(&mut self, now_ns: u64) {
        let Some(mold) = &mut self.mold else { return };
        if mold.kill_at_ns.is_none_or(|at| now_ns < at) {
            return;
        }
        if mold.stage == MoldStage::Loading {
            let limit = seconds(self.settings.boot_timeout.unwrap_or_default());
            let what = mold.doing.as_deref().unwrap_or("loading");
            let reason = format!("{what} did not finish within {limit} (the setting boot_timeout)");
            if mold.killed_for.replace(reason).is_none() {
                // SIGABRT first: if Python runs, its handler logs what each thread does.
                mold.kill_at_ns = Some(now_ns + ABORT_NS);
                mold.is_aborted = true;
                let _ = kill(mold.pid, Signal::SIGABRT);
                return;
            }
        }
        mold.kill_at_ns = None;
        // It may have exited already, which is noticed elsewhere.
        let _ = kill(mold.pid, Signal::SIGKILL);
    }

    /// Returns whether a mold will call the hook, unless it ends before it reads the message.
    pub(super) fn run_child_exit_hook(&mut self, exit: Exit) -> bool {
        let sent = self.reachable_mold().is_some() && self.send_hook(CHILD_EXIT, &exit.facts());
        if sent
            && self.has_hooks()
            && let Some(mold) = &mut self.mold
        {
            mold.unread_exits.push(exit);
        }
        sent
    }

    /// Makes mold and workers reopen their log files.
    pub(super) fn reopen_logs(&mut self) {
        if let Some(mold) = self.loaded_mold() {
            // If sending fails, the mold is about to be reaped.
            let _ = mold.command.send(&ToMold::Reopen);
        }
        for worker in &self.workers {
            worker.signal(Signal::SIGUSR1);
        }
    }

    /// Writes the lines that a worker left.
    pub(super) fn write_lines(&mut self, lines: &[u8]) {
        if let Some(file) = &self.access_file {
            self.left_lines.write(file, lines);
        }
        self.report_trouble();
    }

    /// Passes the pending lines to a new worker.
    pub(super) fn leave_lines(&mut self, memory: &SlotMemory) {
        let lines = self.left_lines.take();
        if lines.is_empty() {
            return;
        }
        if let Err(error) = memory.leave_lines(&lines) {
            tracing::debug!("cannot pass access-log lines to the next worker: {error}");
            self.write_lines(&lines);
        }
    }

    /// Writes the pending lines when no worker will follow.
    pub(super) fn finish_lines(&mut self) {
        if let Some(file) = &self.access_file {
            self.left_lines.finish(file);
        }
        self.report_trouble();
    }

    fn report_trouble(&self) {
        if let Some(trouble) = self.access_file.as_ref().and_then(|file| file.trouble()) {
            tracing::warn!("access log: {trouble}");
        }
    }
}

/// Pause after a failed fork while a generation boots: 200 ms.
const FORK_RETRY_NS: u64 = 200_000_000;
/// The same for a generation that serves: 1 s.
const FORK_PAUSE_NS: u64 = 1_000_000_000;
/// How long forks may fail before a booting generation is refused: 1.5 s.
const FORK_FAILURES_NS: u64 = 1_500_000_000;
/// How much later than its parts the generation as a whole is late: the reason of a part says more.
const BOOT_MARGIN_NS: u64 = 2_000_000_000;
/// First pause between failed boots: 100 ms.
const BACK_OFF_NS: u64 = 100_000_000;
/// Longest pause: 2^8 times the first, 25.6 s.
const BOOT_DOUBLINGS_MAX: u32 = 8;
/// Longest pause after workers that died early: 0.8 s.
const EARLY_DOUBLINGS_MAX: u32 = 3;
/// A failure this long after the previous one starts the count again.
const FORGET_NS: u64 = 10_000_000_000;

#[cfg(test)]
mod tests {
    use super::super::handles::tests::worker;
    use super::*;

    fn generation(target: usize, workers: Vec<WorkerHandle>) -> Generation {
        let (report, report_of_workers) = Channel::pair().unwrap();
        let sources =
            crate::settings::Sources { directory: std::env::temp_dir(), ..Default::default() };
        Generation {
            id: 1,
            settings: sources.load().unwrap().0,
            listeners: vec![],
            stage: Stage::Serving,
            target,
            mold: None,
            loaded: None,
            workers,
            report,
            report_of_workers,
            access_file: None,
            left_lines: LeftLines::default(),
            started_ns: 1,
            boot_failures: 0,
            failed_ns: 0,
            has_booted: false,
            retry_at_ns: 0,
            fork_fails_since_ns: None,
            waiting: vec![],
            share: None,
            borrowed: 0,
            health: Health::default(),
            watcher: None,
            watcher_started: false,
            is_reload: false,
            awaits_change: false,
        }
    }

    fn retiring(age: u64) -> WorkerHandle {
        WorkerHandle { wants_to_retire: true, ..worker(age, WorkerStage::Ready) }
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let ready = |age| worker(age, WorkerStage::Ready);
        let generation = generation(1, vec![ready(5), ready(3), ready(4)]);
        assert_eq!(generation.surplus(), [3, 4]);
    }

    #[test]
    fn a_worker_that_asks_to_retire_stays_until_its_replacement_serves() {
        let booting = worker(2, WorkerStage::Booting);
        let mut generation = generation(1, vec![retiring(1), booting]);
        assert_eq!(generation.counted(), 1);
        assert_eq!(generation.surplus(), Vec::<u64>::new());
        generation.workers[1].stage = WorkerStage::Ready;
        assert_eq!(generation.surplus(), [1]);
    }

    #[test]
    fn only_as_many_workers_retire_as_were_replaced() {
        let ready = worker(4, WorkerStage::Ready);
        let generation = generation(3, vec![retiring(1), retiring(2), retiring(3), ready]);
        assert_eq!(generation.counted(), 1);
        assert_eq!(generation.surplus(), [1]);
    }

    #[test]
    fn the_pause_between_failed_boots_doubles_up_to_a_bound() {
        let mut generation = generation(1, vec![]);
        let mut pause_ms = |fail: fn(&mut Generation, u64)| {
            fail(&mut generation, 0);
            generation.retry_at_ns / 1_000_000
        };
        let pauses: Vec<u64> = (0..20).map(|_| pause_ms(Generation::boot_failed)).collect();
        assert_eq!(pauses[..5], [0, 100, 200, 400, 800]);
        assert_eq!(pauses[19], 25_600);
        assert_eq!(pause_ms(Generation::died_early), 800);
    }

    #[test]
    fn failures_are_forgotten_when_a_worker_was_ready_and_none_failed_for_a_while() {
        let mut generation = generation(1, vec![]);
        for _ in 0..3 {
            generation.boot_failed(0);
        }
        generation.boot_failed(2 * FORGET_NS);
        assert_eq!(generation.boot_failures, 4, "slow boots fail in a row, too");
        generation.boot_succeeded();
        generation.boot_failed(2 * FORGET_NS + 1);
        assert_eq!(generation.boot_failures, 5, "ready for an instant is not well");
        generation.boot_succeeded();
        generation.boot_failed(4 * FORGET_NS);
        assert_eq!(generation.boot_failures, 1);
    }
}
