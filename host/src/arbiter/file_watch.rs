//! `reload`: each generation with this setting has a process that watches its files ([`crate::watcher`]) and
//! reports changes; the arbiter then reloads as on request.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid};

use super::Arbiter;
use super::reload::ReloadRequest;
use crate::message::{Channel, FromWatcher, Received};
use crate::process::{self, End};
use crate::watcher::{self, WatcherStart};

/// The process that watches a generation's files. It is killed when this is dropped: it has nothing to finish.
pub(super) struct Watcher {
    pid: Pid,
    changes: Channel,
    /// The end on which workers report files.
    files: Arc<Channel>,
}

impl Watcher {
    /// Channel for reported changes.
    pub(super) fn changes(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }

    /// Returns the end of the channel on which workers report files.
    pub(super) fn files(&self) -> Arc<Channel> {
        Arc::clone(&self.files)
    }

    /// Returns whether `pid` is this process.
    pub(super) fn is(&self, pid: Pid) -> bool {
        self.pid == pid
    }

    /// Returns the workers' end, to close it in processes that must not hold it.
    pub(super) fn descriptor(&self) -> RawFd {
        self.files.as_raw_fd()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Its exit is noticed like that of any other child.
        let _ = kill(self.pid, Signal::SIGKILL);
    }
}

impl Arbiter {
    /// Starts the process that watches a generation's files, if configured. It starts before the mold, which
    /// inherits the channel to it.
    pub(super) fn supply_watcher(&mut self, index: usize) {
        let generation = &self.generations[index];
        if !generation.settings.reload || generation.is_watched {
            return;
        }
        let made = self.make_watcher(index);
        let generation = &mut self.generations[index];
        generation.is_watched = true;
        match made {
            Ok(watcher) => generation.watcher = Some(watcher),
            Err(error) => tracing::error!("cannot watch files: {error}"),
        }
    }

    fn make_watcher(&self, index: usize) -> nix::Result<Watcher> {
        let (changes, to_arbiter) = Channel::pair()?;
        let (from_workers, files) = Channel::pair()?;
        match process::fork_with_signals_blocked()? {
            ForkResult::Child => {
                let mut close = self.private_descriptors(NO_GENERATION);
                close.extend([changes.as_raw_fd(), files.as_raw_fd()]);
                watcher::run(WatcherStart {
                    settings: Arc::clone(&self.generations[index].settings),
                    arbiter_pid: self.scoreboard.arbiter_pid(),
                    files: from_workers,
                    changes: to_arbiter,
                    close,
                })
            }
            ForkResult::Parent { child } => {
                Ok(Watcher { pid: child, changes, files: Arc::new(files) })
            }
        }
    }

    /// Reads the reports of a generation's watcher.
    pub(super) fn hear_watcher(&mut self, generation: u32) {
        let Some(generation) = self.generation(generation) else { return };
        let Some(watcher) = &generation.watcher else { return };
        match watcher.changes.receive::<FromWatcher>() {
            Ok(Received::Message(FromWatcher::Changed { file, others }, sender))
                if watcher.pid == sender =>
            {
                let file = file.display();
                if others == 0 {
                    tracing::info!("file changed: {file}");
                } else {
                    tracing::info!("file changed: {file} and {others} more");
                }
                self.reload(ReloadRequest::default());
            }
            Ok(Received::Closed) => generation.watcher = None,
            Ok(_) => {}
            Err(error) => tracing::warn!("cannot read from the file watcher: {error}"),
        }
    }

    /// Returns whether a watcher exited by itself. A new one would not know the files: it is started with the
    /// next generation.
    pub(super) fn on_watcher_end(&mut self, pid: Pid, end: End) -> bool {
        let watcher = |of: &Option<Watcher>| of.as_ref().is_some_and(|watcher| watcher.pid == pid);
        let ended = self.generations.iter_mut().find(|generation| watcher(&generation.watcher));
        let Some(generation) = ended else { return false };
        generation.watcher = None;
        tracing::error!(
            "file watcher {}: changes are not noticed until the next reload",
            end.describe()
        );
        true
    }
}

/// No generation has this ID, so nothing of any generation is kept open.
const NO_GENERATION: u32 = 0;
