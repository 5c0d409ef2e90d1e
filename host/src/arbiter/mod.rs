//! The arbiter: the master process. It owns the listening sockets, the generations, the signals, the scoreboard
//! and the control socket, and waits for all of them in one `poll`.
//!
//! | module | purpose |
//! | --- | --- |
//! | `generation` | a generation: its state, its processes, and everything that is done to them |
//! | `generations` | the registry of generations, and the look-up of a process |
//! | `handles` | handles of molds, workers and file watchers |
//! | `children` | matches processes with workers, verified by the kernel |
//! | `reconcile` | the configured number of workers: molds, forks, and the end of surplus workers |
//! | `messages` | messages from molds and workers |
//! | `stacks` | stacks of workers, which the mold names |
//! | `timeouts` | time limits of booting, heartbeats and draining |
//! | `reap` | exited children, and what follows from their exit |
//! | `death` | descriptions of why a process died |
//! | `exits` | the hook `child_exit` |
//! | `reload` | new generations: creation, promotion, refusal |
//! | `evaluate` | settings files in Python at a reload or an upgrade |
//! | `signal_actions` | what each signal to the arbiter does |
//! | `stop` | graceful and quick stops |
//! | `upgrade` | hands over to an arbiter of a new binary (USR2) |
//! | `control_requests` | requests on the control socket |
//! | `canary` | trial of a new generation on some workers, and rollback |
//! | `health`, `probe` | health check of a new generation: when it runs, and how |
//! | `memory` | memory limits of workers |
//! | `scale`, `scaler` | the number of workers between `min_workers` and `max_workers`: samples, and the decision |
//! | `file_watch` | `reload`: reloads when files change |
//! | `metrics` | the arbiter's entries in the scoreboard, and the process that serves metrics |
//!
//! # Invariants
//!
//! - One thread.
//! - Loads no plugin, and parses nothing that comes from the network.
//! - Nothing in the loop waits for another process.

mod canary;
mod children;
mod control_requests;
mod death;
mod evaluate;
mod exits;
mod file_watch;
mod generation;
mod generations;
mod handles;
mod health;
mod memory;
mod messages;
mod metrics;
mod probe;
mod reap;
mod reconcile;
mod reload;
mod scale;
mod scaler;
mod signal_actions;
mod stacks;
mod stop;
mod timeouts;
mod upgrade;

use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use canary::RetiredGeneration;
use children::UnclaimedExits;
use death::OutOfMemory;
use evaluate::PendingEvaluation;
use generations::Generations;
use handles::Exit;
use metrics::StatusProcess;
use reload::ReloadRequest;
use scale::Scaling;
use stop::Phase;
use upgrade::{Predecessor, Successor};

use crate::clock;
use crate::control::{ClientId, ControlServer};
use crate::descriptors::StartupDescriptors;
use crate::limits;
use crate::listener::{self, Inherited, ListenError};
use crate::log::ErrorLog;
use crate::mold::MoldMain;
use crate::pidfile::Pidfile;
use crate::privileges::Identity;
use crate::process;
use crate::scoreboard::Scoreboard;
use crate::settings::{Settings, Sources};
use crate::signal_inbox::SignalInbox;
use crate::systemd::Notifier;

/// Why the arbiter could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The pid file could not be written, or another server is running.
    #[error(transparent)]
    Pidfile(#[from] crate::pidfile::PidfileError),
    /// The system refused something that every server needs.
    #[error("cannot start: {what} failed: {}", limits::describe_io(reason))]
    System {
        /// What was attempted.
        what: &'static str,
        /// The system's error.
        reason: std::io::Error,
    },
}

/// The master process.
pub struct Arbiter {
    sources: Sources,
    mold_main: MoldMain,
    log: Arc<ErrorLog>,
    startup: StartupDescriptors,
    scoreboard: Arc<Scoreboard>,
    signals: SignalInbox,
    control: ControlServer,
    notifier: Notifier,
    pidfile: Option<Pidfile>,
    inherited: Inherited,
    predecessor: Option<Predecessor>,
    successor: Option<Successor>,
    out_of_memory: OutOfMemory,
    status: StatusProcess,
    unclaimed: UnclaimedExits,

    generations: Generations,
    /// Generations that have served and been retired, the oldest first.
    past: Vec<RetiredGeneration>,
    generations_created: u32,
    workers_created: u64,
    /// Processes that exited while no mold could run the hook `child_exit`.
    pending_exits: Vec<Exit>,
    /// The reload to begin after the one in progress.
    reload_queued: Option<ReloadRequest>,
    /// Settings files that Python evaluates.
    evaluations: Vec<PendingEvaluation>,
    phase: Phase,
    /// Whether a worker has been ready: that is when the server became ready.
    has_been_ready: bool,
    /// WINCH: no workers run until a reload, or until the successor has exited.
    workers_stopped: bool,
    /// Earliest start of heartbeat timeouts: the arbiter itself was stopped until then.
    timeouts_from_ns: u64,
    /// Of a server with `max_workers`.
    scaling: Option<Scaling>,
    /// Time of the last measurement of the workers' memory.
    measured_ns: u64,
    /// Time at which the last wait ended.
    woke_ns: u64,
}

/// The origin of an event.
#[derive(Debug, Clone, Copy)]
enum Source {
    Signals,
    Mold(u32),
    Report(u32),
    Watcher(u32),
    Control,
    Client(ClientId),
    Evaluation,
    Predecessor,
    Log,
}

impl Arbiter {
    /// Opens the listeners and everything else that is needed before the first fork. `settings` were loaded
    /// from `sources`, and `startup` was found before anything was opened.
    pub fn new(
        sources: Sources,
        settings: Arc<Settings>,
        log: Arc<ErrorLog>,
        startup: StartupDescriptors,
        mold_main: MoldMain,
    ) -> Result<Self, StartError> {
        fn system<E: Into<std::io::Error>>(what: &'static str) -> impl Fn(E) -> StartError {
            move |reason| StartError::System { what, reason: reason.into() }
        }
        process::adopt_descendants().map_err(system("adopting workers"))?;
        process::reset_signal_handlers();
        process::unblock_signals();
        let signals = SignalInbox::install(signal_actions::HANDLED)
            .map_err(system("installing signal handlers"))?;
        let scoreboard = Scoreboard::new().map_err(system("creating the scoreboard"))?;
        log.count_in(scoreboard.log_lines());
        log.file().keep_lines();
        let predecessor = Predecessor::from_environment();
        let mut inherited = Inherited::from_environment();
        process::clear_environment(Inherited::VARIABLES);
        process::clear_environment(&[upgrade::PREDECESSOR_VARIABLE]);
        let user = Identity::of_workers(&settings);
        let pidfile = match &settings.pidfile {
            Some(path) if predecessor.is_some() => Some(Pidfile::create_for_successor(path, user)?),
            Some(path) => Some(Pidfile::create(path, user)?),
            None => None,
        };
        let attempts = if predecessor.is_some() { 1 } else { LISTEN_ATTEMPTS };
        let listeners = listener::open_all(&settings, &[], &mut inherited, attempts)?;
        inherited.close_rest();
        let control = ControlServer::new(&settings);
        let notifier = Notifier::from_environment();
        let mut arbiter = Self {
            sources,
            mold_main,
            log,
            startup,
            scoreboard: Arc::new(scoreboard),
            signals,
            control,
            notifier,
            pidfile,
            inherited,
            predecessor,
            successor: None,
            out_of_memory: OutOfMemory::find(),
            status: StatusProcess::default(),
            unclaimed: UnclaimedExits::default(),
            generations: Generations::default(),
            past: Vec::new(),
            generations_created: 0,
            workers_created: 0,
            pending_exits: Vec::new(),
            reload_queued: None,
            evaluations: Vec::new(),
            phase: Phase::Running,
            has_been_ready: false,
            workers_stopped: false,
            timeouts_from_ns: clock::now_ns(),
            scaling: None,
            measured_ns: clock::now_ns(),
            woke_ns: clock::now_ns(),
        };
        tracing::info!("Starting host {}", env!("CARGO_PKG_VERSION"));
        for listener in &listeners {
            tracing::info!("Listening at: {} ({})", listener.url(&settings), std::process::id());
        }
        if arbiter.predecessor.is_none() {
            arbiter.control.open(None);
        }
        arbiter
            .add_generation(settings, listeners, Vec::new())
            .map_err(system("creating the first generation"))?;
        Ok(arbiter)
    }

    /// Runs the main loop, and returns the exit status of the server.
    pub fn run(mut self) -> i32 {
        let status = loop {
            self.promote_when_ready();
            self.reconcile_workers();
            self.run_pending_exit_hooks();
            self.run_exit_hook();
            // Again after a queued reload begins: no event would wake the loop for its first process.
            while self.finish_reloads() {
                self.reconcile_workers();
            }
            self.start_status_if_due();
            self.publish_notes();
            if let Some(status) = self.exit_status() {
                break status;
            }
            let wake_at_ns = self.next_deadline();
            let ready = self.wait(wake_at_ns);
            self.detect_own_pause(wake_at_ns);
            for source in ready {
                self.handle(source);
            }
            if self.predecessor.as_ref().is_some_and(Predecessor::has_ended) {
                self.on_predecessor_end();
            }
            self.reap();
            self.check_timeouts();
        };
        self.close();
        status
    }

    fn handle(&mut self, source: Source) {
        match source {
            Source::Signals => self.handle_signals(),
            Source::Mold(generation) => self.read_mold(generation),
            Source::Report(generation) => self.read_workers(generation),
            Source::Watcher(generation) => self.read_watcher(generation),
            Source::Control => self.control.accept(),
            Source::Client(client) => self.read_client(client),
            Source::Evaluation => self.read_evaluations(),
            Source::Predecessor => self.on_predecessor_end(),
            Source::Log => self.log.file().write_kept(),
        }
    }

    /// Waits for an event or until `until_ns`.
    fn wait(&self, until_ns: Option<u64>) -> Vec<Source> {
        let timeout = until_ns.map_or(PollTimeout::NONE, |until_ns| {
            let left = until_ns.saturating_sub(clock::now_ns()).div_ceil(NANOS_PER_MILLI);
            PollTimeout::try_from(left.min(WAIT_MS_MAX) as i32).unwrap_or(PollTimeout::MAX)
        });
        let (origins, mut descriptors): (Vec<_>, Vec<_>) = self
            .sources()
            .map(|(source, descriptor, flags)| (source, PollFd::new(descriptor, flags)))
            .unzip();
        match poll(&mut descriptors, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return vec![Source::Signals],
            Err(error) => {
                tracing::error!("poll failed: {error}");
                return vec![Source::Signals];
            }
        }
        let is_ready = |descriptor: &PollFd<'_>| descriptor.any().unwrap_or(false);
        let ready = descriptors.iter().zip(origins).filter(|(descriptor, _)| is_ready(descriptor));
        ready.map(|(_, source)| source).collect()
    }

    /// Returns everything that can wake the loop.
    fn sources(&self) -> impl Iterator<Item = (Source, BorrowedFd<'_>, PollFlags)> {
        let readable = PollFlags::POLLIN;
        let molds = self.generations.iter().filter_map(move |generation| {
            let mold = generation.mold.as_ref()?;
            Some((Source::Mold(generation.id), mold.command.as_fd(), readable))
        });
        let reports = self.generations.iter().map(move |generation| {
            (Source::Report(generation.id), generation.report.as_fd(), readable)
        });
        let watchers = self.generations.iter().filter_map(move |generation| {
            let watcher = generation.watcher.as_ref()?;
            Some((Source::Watcher(generation.id), watcher.changes(), readable))
        });
        let control = self.control.listener().map(|fd| (Source::Control, fd, readable));
        let clients = self.control.clients().map(|(id, fd, flags)| (Source::Client(id), fd, flags));
        let evaluations = self.evaluations.iter();
        let evaluations =
            evaluations.map(move |of| (Source::Evaluation, of.evaluation.as_fd(), readable));
        let predecessor = self
            .predecessor
            .as_ref()
            .and_then(|predecessor| Some((Source::Predecessor, predecessor.end()?, readable)));
        let log = Some(self.log.file()).filter(|log| log.keeps_lines());
        let log = log.map(|log| (Source::Log, log.as_fd(), PollFlags::POLLOUT));
        std::iter::once((Source::Signals, self.signals.as_fd(), readable))
            .chain(molds)
            .chain(reports)
            .chain(watchers)
            .chain(control)
            .chain(clients)
            .chain(evaluations)
            .chain(predecessor)
            .chain(log)
    }

    /// Returns the descriptors that every process of the server keeps besides its own: those of the error log, and
    /// those that were open before the server opened any.
    fn common_descriptors(&self) -> Vec<RawFd> {
        self.startup.remaining().chain(self.log.descriptors()).collect()
    }

    /// Returns whether another arbiter serves the same sockets.
    fn shares_listeners(&self) -> bool {
        self.predecessor.is_some() || self.successor.is_some()
    }
}

/// Number of attempts to bind a port in use at start, as in gunicorn.
const LISTEN_ATTEMPTS: u32 = 5;
const NANOS_PER_MILLI: u64 = 1_000_000;
/// Upper bound of one wait: `poll` counts milliseconds in an `int`.
const WAIT_MS_MAX: u64 = 24 * 3600 * 1000;
