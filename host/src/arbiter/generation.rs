//! The arbiter's view of a generation, of its mold and of its workers: what it knows about them and
//! what it has decided. Nothing here does anything to a process.

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

/// One configuration, one worker class, one application, and the processes made from it.
pub(super) struct Generation {
    pub(super) id: u32,
    pub(super) settings: Arc<Settings>,
    pub(super) listeners: Vec<Arc<Listener>>,
    pub(super) stage: Stage,
    /// How many workers it shall have.
    pub(super) target: usize,
    pub(super) mold: Option<Mold>,
    pub(super) loaded: Option<Loaded>,
    pub(super) workers: Vec<WorkerHandle>,
    /// The arbiter's end of the pair on which workers report, and the end that they share.
    pub(super) report: Channel,
    pub(super) report_of_workers: Channel,
    /// The access log's file, if there is an access log.
    pub(super) access_file: Option<Arc<LogFile>>,
    /// What dead workers left and it had no room for.
    pub(super) left_lines: LeftLines,
    pub(super) started_ns: u64,
    /// Boots that failed in a row, when the last of them did, whether one has succeeded since, and
    /// when the next may begin.
    pub(super) boot_failures: u32,
    pub(super) failed_ns: u64,
    pub(super) has_booted: bool,
    pub(super) retry_at_ns: u64,
    /// Since when no fork of a worker has succeeded, where the last one failed.
    pub(super) fork_fails_since_ns: Option<u64>,
    /// Clients of the control socket that wait for this generation to have taken over.
    pub(super) waiting: Vec<ClientId>,
    /// With how many workers it is to be tried before it takes over.
    pub(super) share: Option<usize>,
    /// How many workers the generation that serves has given up for it.
    pub(super) taken: usize,
    pub(super) health: Health,
    /// The process that watches its files, and whether one was made.
    pub(super) watcher: Option<Watcher>,
    pub(super) is_watched: bool,
    /// Whether another generation served when this one was added.
    pub(super) is_reload: bool,
    /// Refused at the start of a server with `reload`: nothing is tried before a file changes or a reload is asked for.
    pub(super) awaits_change: bool,
}

/// The life of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its mold loads, its workers boot; it may still be refused.
    Booting,
    /// Some workers of it serve, beside those of the one that serves.
    Trial,
    /// It is the one that serves.
    Serving,
    /// It finishes what it has and ends.
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

/// A mold that runs.
pub(super) struct Mold {
    pub(super) pid: Pid,
    /// Its slot of the scoreboard.
    pub(super) slot: u32,
    pub(super) command: Channel,
    pub(super) stage: MoldStage,
    /// When it is killed unless it gets on: it has to load, or to quit, in time.
    pub(super) kill_at_ns: Option<u64>,
    /// What it does while it loads, in its own words.
    pub(super) doing: Option<String>,
    /// Why the arbiter killed it.
    pub(super) killed_for: Option<String>,
    /// Whether the arbiter has sent it SIGABRT.
    pub(super) is_aborted: bool,
    /// What it said when it refused.
    pub(super) refusal: Option<Refusal>,
    /// Exits that it was sent and has not confirmed.
    pub(super) unread_exits: Vec<Exit>,
}

/// The life of a mold.
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
    /// Unknown until the worker itself has reported.
    pub(super) process: Option<Child>,
    /// What its mold says that its number is: see [`super::children`].
    pub(super) claimed: Option<Pid>,
    pub(super) slot: u32,
    pub(super) age: u64,
    pub(super) stage: WorkerStage,
    pub(super) forked_ns: u64,
    pub(super) ready_ns: u64,
    /// Until when it may finish what it has, once it was told to end.
    pub(super) drain_until_ns: u64,
    /// It asked to be replaced: it serves until its replacement does.
    pub(super) wants_to_retire: bool,
    /// When it is killed unless it has ended before.
    pub(super) kill_at_ns: Option<u64>,
    /// Why the arbiter ends it the hard way, for the log.
    pub(super) kill_reason: Option<String>,
    /// When a debugger was last seen to trace it, and whether one does.
    pub(super) traced_ns: u64,
    pub(super) is_traced: bool,
    /// What it said when it could not boot.
    pub(super) refusal: Option<Refusal>,
    /// Its memory when that was last mentioned, or first measured.
    pub(super) mentioned_kib: u64,
}

/// The life of a worker, as the arbiter knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkerStage {
    Booting,
    Ready,
    /// It was told to end.
    Draining,
}

impl WorkerHandle {
    /// Whether it counts as one of the workers that a generation shall have. One that is killed
    /// because it does not boot does until it is dead: only then is it known that a boot failed.
    pub(super) fn counts(&self) -> bool {
        let dies = self.kill_reason.is_some() && self.stage != WorkerStage::Booting;
        self.stage != WorkerStage::Draining && !self.wants_to_retire && !dies
    }

    /// Whether it serves and will go on.
    pub(super) fn serves(&self) -> bool {
        self.stage == WorkerStage::Ready && self.counts()
    }
}

impl Generation {
    /// Workers that it has or is about to have, without those on their way out.
    pub(super) fn counted(&self) -> usize {
        self.workers.iter().filter(|worker| worker.counts()).count()
    }

    /// Workers that serve and will go on.
    pub(super) fn serving(&self) -> usize {
        self.workers.iter().filter(|worker| worker.serves()).count()
    }

    /// Until when a generation that boots beside another one may do so: its mold, its workers, and every further try.
    pub(super) fn boot_deadline_ns(&self) -> Option<u64> {
        let limit = self.settings.boot_timeout.filter(|_| self.is_reload)?;
        (self.stage == Stage::Booting)
            .then(|| self.started_ns.saturating_add(clock::duration_ns(limit)))
    }

    /// When it is refused as a whole, for what neither its mold nor one of its workers is late by itself.
    pub(super) fn late_at_ns(&self) -> Option<u64> {
        let lacks = self.serving() < self.target;
        self.boot_deadline_ns().filter(|_| lacks).map(|at| at.saturating_add(BOOT_MARGIN_NS))
    }

    /// When a mold or worker that starts now is killed unless it is ready before.
    pub(super) fn kill_at_ns(&self, now_ns: u64) -> Option<u64> {
        let own = self.settings.boot_timeout.map(|limit| now_ns + clock::duration_ns(limit));
        own.into_iter().chain(self.boot_deadline_ns()).min()
    }

    /// The descriptors that stand for its workers' processes.
    pub(super) fn handles(&self) -> impl Iterator<Item = RawFd> + '_ {
        let processes = self.workers.iter().filter_map(|worker| worker.process.as_ref());
        processes.filter_map(Child::descriptor)
    }

    /// Whether nothing of it runs any more.
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Retiring && self.mold.is_none() && self.workers.is_empty()
    }

    /// The workers that may go because there are more than enough: those that asked for it as soon
    /// as the others suffice, then the oldest.
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

    /// A worker could not become ready. The first is replaced at once, each further one after twice
    /// the time.
    pub(super) fn boot_failed(&mut self, now_ns: u64) {
        self.back_off(now_ns, BOOT_DOUBLINGS_MAX);
    }

    /// A worker died so soon after it was ready that its successor may fare no better. As others
    /// may do well meanwhile, the pause stays short.
    pub(super) fn died_early(&mut self, now_ns: u64) {
        self.back_off(now_ns, EARLY_DOUBLINGS_MAX);
    }

    /// A worker is ready. Whether it stays so is not known yet: failures are forgotten only when
    /// none follows for a while.
    pub(super) fn boot_succeeded(&mut self) {
        self.has_booted = true;
        self.fork_fails_since_ns = None;
    }

    /// The mold could not fork a worker. Returns whether that has lasted for so long that a generation which boots is
    /// refused.
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

/// The pause after a fork that failed, while a generation boots: 200 ms.
const FORK_RETRY_NS: u64 = 200_000_000;
/// The same for a generation that serves: 1 s.
const FORK_PAUSE_NS: u64 = 1_000_000_000;
/// For how long forks may fail before a generation that boots is refused: 1.5 s.
const FORK_FAILURES_NS: u64 = 1_500_000_000;
/// How much later than its parts a generation is late as a whole: theirs is the better reason.
const BOOT_MARGIN_NS: u64 = 2_000_000_000;
/// The first pause between failed boots: 100 ms.
const BACK_OFF_NS: u64 = 100_000_000;
/// The longest is 2^8 times the first: 25.6 s.
const BOOT_DOUBLINGS_MAX: u32 = 8;
/// The longest after workers that died early: 0.8 s.
const EARLY_DOUBLINGS_MAX: u32 = 3;
/// A failure this long after the last one is the first of a new row.
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
