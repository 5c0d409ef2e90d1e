//! USR2: another arbiter, started from the current program file, takes over the same sockets. Both serve until
//! one of them is stopped. A successor that cannot start leaves the old arbiter as it was.
//!
//! ```text
//!     old:  USR2 → successor starts   WINCH → workers end   TERM → ends      (pid file: its own)
//!     new:         boots, serves                            takes over pid file and control socket
//! ```

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;

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
use crate::settings::{Error, Loading, Settings};

/// The running arbiter that started this one.
pub(super) struct Predecessor {
    pid: Pid,
    /// Readable when the process has exited. `None` if the system refuses pidfds: SIGCHLD then reports it, as
    /// for a child.
    end: Option<OwnedFd>,
}

/// The running arbiter that this one started.
pub(super) struct Successor {
    pid: Pid,
}

impl Predecessor {
    /// Reads the variable that an upgrading arbiter sets for its child, and verifies that this process is its
    /// child.
    pub(super) fn from_environment() -> Option<Self> {
        let pid: i32 = std::env::var(PREDECESSOR_VARIABLE).ok()?.parse().ok()?;
        if pid != getppid().as_raw() {
            return None;
        }
        let pid = Pid::from_raw(pid);
        let end = process::open_pidfd(pid).map_err(|error| {
            tracing::warn!(
                "pidfd_open refused ({error}): a signal will report the exit of the old arbiter"
            );
            process::signal_at_parents_end(Signal::SIGCHLD);
        });
        Some(Self { pid, end: end.ok() })
    }

    pub(super) fn end(&self) -> Option<BorrowedFd<'_>> {
        self.end.as_ref().map(OwnedFd::as_fd)
    }

    /// Returns whether it has exited, if no descriptor reports it.
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
    /// Starts the successor, unless the settings that it would read lack a required part of the present ones.
    pub(super) fn upgrade(&mut self) {
        if self.is_evaluating_upgrade() {
            return tracing::warn!("USR2 ignored: the settings for an upgrade are being read");
        }
        if !self.can_upgrade() {
            return;
        }
        match self.sources.begin() {
            Ok(Loading::Done(settings, _)) => self.upgrade_to(Ok(settings)),
            Ok(Loading::Python(file)) => self.evaluate_for_upgrade(file),
            Err(error) => self.upgrade_to(Err(error)),
        }
    }

    /// Continues an upgrade whose settings were read.
    pub(super) fn upgrade_to(&mut self, settings: Result<Arc<Settings>, Error>) {
        // Much may have happened while Python evaluated a file.
        if !self.can_upgrade() {
            return;
        }
        // Settings that this version cannot read may be valid for the next one, which refuses those that
        // it cannot read.
        match settings.map(|settings| self.check_losses(&settings)) {
            Ok(Err(reason)) => tracing::error!("upgrade refused: {reason}"),
            Ok(Ok(())) | Err(_) => self.start_successor(),
        }
    }

    /// Returns whether a successor may be started; otherwise logs the reason.
    fn can_upgrade(&self) -> bool {
        let reason = if self.phase != Phase::Running || !self.has_been_ready {
            "the server is not serving".to_owned()
        } else if let Some(successor) = &self.successor {
            format!("a successor is running already (pid: {})", successor.pid)
        } else if self.predecessor.is_some() {
            "the previous arbiter is still running".to_owned()
        } else if let Some(trial) = self.generations.in_stage(Stage::Trial) {
            format!("generation {} is on trial", trial.id)
        } else {
            return true;
        };
        tracing::warn!("USR2 ignored: {reason}");
        false
    }

    fn start_successor(&mut self) {
        let listeners = self.generations.listeners();
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
        // SAFETY: the closure runs between fork and exec, and calls only fcntl.
        unsafe {
            command.pre_exec(move || keep_over_exec(&descriptors));
        }
        if let Some(generation) = self.generations.in_stage(Stage::Serving) {
            generation.send_hook("pre_exec", &[generation.target as i64]);
        }
        match command.spawn() {
            Ok(child) => {
                tracing::info!(
                    "started another arbiter (pid: {}): {}",
                    child.id(),
                    program.display()
                );
                self.successor = process::pid(child.id()).map(|pid| Successor { pid });
            }
            Err(error) => {
                tracing::error!("upgrade refused: cannot start {}: {error}", program.display());
            }
        }
    }

    /// Handles the exit of the successor: this arbiter continues alone.
    pub(super) fn on_successor_end(&mut self, end: End) {
        self.successor = None;
        tracing::warn!("the new arbiter {}; this one continues", end.describe());
        self.restart_workers();
        self.reopen_status();
        self.open_control();
        self.notifier.main_process(std::process::id());
    }

    /// Opens the control socket if it is not open. The socket of a predecessor is taken over, that of a
    /// successor is not.
    pub(super) fn open_control(&mut self) {
        if self.successor.is_none() {
            let predecessor = self.predecessor.as_ref().map(|predecessor| predecessor.pid);
            self.control.open(predecessor);
        }
    }

    /// Handles the exit of the predecessor: this arbiter is the only one now.
    pub(super) fn on_predecessor_end(&mut self) {
        self.predecessor = None;
        self.notify_of_adoption();
        tracing::info!("previous arbiter exited; upgrade complete");
        if let Some(Err(error)) = self.pidfile.as_mut().map(Pidfile::take_over) {
            tracing::error!("{error}");
        }
    }

    /// Reports another main process to systemd, and then this one again.
    ///
    /// systemd looks up the parent of a service's main process only when the reported process ID changes. At
    /// READY this process was a child of the previous arbiter. systemd would kill a main process that is not
    /// its own child at a stop without giving it time to exit.
    fn notify_of_adoption(&self) {
        let mut molds = self.generations.iter().filter_map(|generation| generation.mold.as_ref());
        if let Some(mold) = molds.next() {
            self.notifier.main_process(process::number(mold.pid));
            self.notifier.main_process(std::process::id());
        }
    }

    /// Moves the pid file to the configured path after a reload.
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

/// The variable that names the predecessor to a successor.
pub(super) const PREDECESSOR_VARIABLE: &str = "JIMU_PREDECESSOR_PID";
