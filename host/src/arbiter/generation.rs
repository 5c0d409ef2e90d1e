//! Generations, molds and workers as the arbiter sees them: their processes and states, and the decisions about
//! them.

use std::os::fd::RawFd;
use std::sync::Arc;

use nix::unistd::Pid;

use super::exits::Exit;
use super::file_watch::Watcher;
use super::health::Health;
use crate::clock;
use crate::control::ClientId;
use crate::listener::Listener;
use crate::log::{LeftLines, LogFile};
use crate::message::{Channel, Loaded, Refusal};
use crate::process::Child;
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
    pub(super) taken: usize,
    pub(super) health: Health,
    /// The process that watches its files, and whether one was started.
    pub(super) watcher: Option<Watcher>,
    pub(super) is_watched: bool,
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
    /// Deadline for finishing requests, once the worker was told to stop.
    pub(super) drain_until_ns: u64,
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
    /// It was told to stop.
    Draining,
}

impl WorkerHandle {
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

    /// Returns the pidfds of its workers.
    pub(super) fn handles(&self) -> impl Iterator<Item = RawFd> + '_ {
        let processes = self.workers.iter().filter_map(|worker| worker.process.as_ref());
        processes.filter_map(Child::descriptor)
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
            drain_until_ns: 0,
            wants_to_retire: false,
            kill_at_ns: None,
            kill_reason: None,
            traced_ns: 0,
            is_traced: false,
            refusal: None,
            mentioned_kib: 0,
        }
    }

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
            taken: 0,
            health: Health::default(),
            watcher: None,
            is_watched: false,
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
    fn who_asks_to_retire_stays_until_the_replacement_serves() {
        let booting = worker(2, WorkerStage::Booting);
        let mut generation = generation(1, vec![retiring(1), booting]);
        assert_eq!(generation.counted(), 1);
        assert_eq!(generation.surplus(), Vec::<u64>::new());
        generation.workers[1].stage = WorkerStage::Ready;
        assert_eq!(generation.surplus(), [1]);
    }

    #[test]
    fn of_several_that_ask_to_retire_only_as_many_go_as_were_replaced() {
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
