//! USR2: another arbiter, from what is now in the program's file, takes over the same sockets. Both
//! serve until one of them is told to end; a successor that cannot start leaves the old one as it
//! was.
//!
//! ```text
//!     old:  USR2 → successor starts   WINCH → workers end   TERM → ends      (pid file: its own)
//!     new:         boots, serves                            takes over pid file and control socket
//! ```

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

use super::Arbiter;
use super::generation::Stage;
use super::stop::Phase;
use crate::listener::{UPGRADE_VARIABLE, upgrade_variable};
use crate::pidfile::Pidfile;
use crate::privileges::Identity;
use crate::process::{self, End};
use crate::settings::Settings;

/// The arbiter that this one was started by, while it lives.
pub(super) struct Predecessor {
    pid: Pid,
    /// Readable when the process has ended. Nothing where the system refuses pidfds: then SIGCHLD
    /// comes, as for a child.
    end: Option<OwnedFd>,
}

/// The arbiter that this one has started, while it lives.
pub(super) struct Successor {
    pid: Pid,
}

impl Predecessor {
    /// By the variable that an upgrading arbiter sets for its child, which this process must be.
    pub(super) fn from_environment() -> Option<Self> {
        let pid: i32 = std::env::var(PREDECESSOR_VARIABLE).ok()?.parse().ok()?;
        if pid != getppid().as_raw() {
            return None;
        }
        let pid = Pid::from_raw(pid);
        let end = process::open_pidfd(pid).map_err(|error| {
            tracing::warn!(
                "pidfd_open refused ({error}): a signal will tell of the old arbiter's end"
            );
            process::signal_at_parents_end(Signal::SIGCHLD);
        });
        Some(Self { pid, end: end.ok() })
    }

    pub(super) fn end(&self) -> Option<BorrowedFd<'_>> {
        self.end.as_ref().map(OwnedFd::as_fd)
    }

    /// Whether it has ended, where no descriptor says so.
    pub(super) fn has_ended(&self) -> bool {
        self.end.is_none() && getppid() != self.pid
    }
}

impl Successor {
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }
}

impl Arbiter {
    /// Starts the successor.
    pub(super) fn upgrade(&mut self) {
        if self.phase != Phase::Running || !self.has_been_ready {
            return tracing::warn!("USR2 ignored: the server is not serving");
        }
        if let Some(successor) = &self.successor {
            let pid = successor.pid;
            return tracing::warn!("USR2 ignored: another arbiter runs already (pid: {pid})");
        }
        if self.predecessor.is_some() {
            return tracing::warn!("USR2 ignored: the arbiter before this one is still there");
        }
        if let Some(trial) = self.generation_in(Stage::Trial) {
            let id = trial.id;
            return tracing::warn!("USR2 ignored: generation {id} is on trial");
        }
        // What this version cannot read, the next one may; it refuses what it cannot read itself.
        if let Ok((settings, _)) = self.sources.load()
            && let Err(reason) = self.check_losses(&settings)
        {
            return tracing::error!("Upgrade refused: {reason}");
        }
        let listeners = self.listeners();
        let descriptors: Vec<RawFd> =
            listeners.iter().map(|listener| listener.descriptor()).collect();
        let program = process::program_path(&self.sources.program, &self.sources.directory);
        let mut command = Command::new(&program);
        command
            .args(&self.sources.args)
            .current_dir(&self.sources.directory)
            .env("PWD", &self.sources.directory)
            .env(UPGRADE_VARIABLE, upgrade_variable(&listeners))
            .env(PREDECESSOR_VARIABLE, std::process::id().to_string());
        // SAFETY: the closure runs between fork and exec and calls fcntl alone.
        unsafe {
            command.pre_exec(move || keep_over_exec(&descriptors));
        }
        if let Some(generation) = self.generation_in(Stage::Serving) {
            generation.tell_hooks("pre_exec", &[generation.target as i64]);
        }
        match command.spawn() {
            Ok(child) => {
                tracing::info!(
                    "Starting another arbiter (pid: {}): {}",
                    child.id(),
                    program.display()
                );
                self.successor = process::pid(child.id()).map(|pid| Successor { pid });
            }
            Err(error) => {
                tracing::error!(
                    "Upgrade refused: {} cannot be started: {error}",
                    program.display()
                );
            }
        }
    }

    /// The successor is gone: this arbiter goes on alone.
    pub(super) fn on_successor_end(&mut self, end: End) {
        self.successor = None;
        tracing::warn!("The other arbiter {}; this one goes on", end.describe());
        self.restore_workers();
        self.open_control();
        self.notifier.main_process(std::process::id());
    }

    /// Opens the control socket where it is not open. The predecessor's socket is taken over, that of
    /// a successor is left to it.
    pub(super) fn open_control(&mut self) {
        if self.successor.is_none() {
            let predecessor = self.predecessor.as_ref().map(|predecessor| predecessor.pid);
            self.control.open(predecessor);
        }
    }

    /// The predecessor is gone: this arbiter is the only one now.
    pub(super) fn succeed(&mut self) {
        self.predecessor = None;
        self.notify_of_adoption();
        tracing::info!("The arbiter before this one has ended: this one is the only one now");
        if let Some(Err(error)) = self.pidfile.as_mut().map(Pidfile::take_over) {
            tracing::error!("{error}");
        }
    }

    /// systemd looks whose child a service's main process is when it hears another number, and no more: at its READY
    /// this process was the child of the one that has ended. A main process that is not systemd's own is killed at a
    /// stop without any time to end. So it hears another number, and then this one again.
    fn notify_of_adoption(&self) {
        let mut molds = self.generations.iter().filter_map(|generation| generation.mold.as_ref());
        if let Some(mold) = molds.next() {
            self.notifier.main_process(process::number(mold.pid));
            self.notifier.main_process(std::process::id());
        }
    }

    /// After a reload: the pid file is where the settings want it.
    pub(super) fn move_pidfile(&mut self, settings: &Settings) {
        let path = settings.pidfile.as_deref();
        let present = self.pidfile.as_ref().map(Pidfile::path);
        if present == path || self.shares_listeners() {
            return;
        }
        self.pidfile = None;
        match path.map(|path| Pidfile::create(path, Identity::of_workers(settings))) {
            None => {}
            Some(Ok(pidfile)) => self.pidfile = Some(pidfile),
            Some(Err(error)) => tracing::error!("{error}"),
        }
    }
}

fn keep_over_exec(descriptors: &[RawFd]) -> std::io::Result<()> {
    for &descriptor in descriptors {
        // SAFETY: the descriptors are the arbiter's listeners, which are open in its child too.
        let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
        fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    Ok(())
}

/// The variable by which a successor knows who started it.
pub(super) const PREDECESSOR_VARIABLE: &str = "JIMU_PREDECESSOR_PID";
