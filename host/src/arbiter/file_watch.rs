//! `reload`: each generation with this setting has a process that watches its files ([`crate::watcher`]) and
//! reports changes; the arbiter then reloads as on request.

use std::sync::Arc;

use nix::unistd::ForkResult;

use super::Arbiter;
use super::handles::Watcher;
use super::reload::ReloadRequest;
use crate::message::{Channel, FromWatcher, Received};
use crate::process::{self, End};
use crate::watcher::{self, WatcherStart};

impl Arbiter {
    /// Starts the process that watches a generation's files, if configured. It starts before the mold, which
    /// inherits the channel to it.
    pub(super) fn start_watcher(&mut self, index: usize) {
        let generation = &self.generations[index];
        if !generation.settings.reload || generation.watcher_started {
            return;
        }
        let made = self.fork_watcher(index);
        let generation = &mut self.generations[index];
        generation.watcher_started = true;
        match made {
            Ok(watcher) => generation.watcher = Some(watcher),
            Err(error) => tracing::error!("cannot watch files: {error}"),
        }
    }

    fn fork_watcher(&self, index: usize) -> nix::Result<Watcher> {
        let (changes, to_arbiter) = Channel::pair()?;
        let (from_workers, files) = Channel::pair()?;
        match process::fork_with_signals_blocked()? {
            ForkResult::Child => watcher::run(WatcherStart {
                settings: Arc::clone(&self.generations[index].settings),
                arbiter_pid: self.scoreboard.arbiter_pid(),
                files: from_workers,
                changes: to_arbiter,
                keep: self.common_descriptors(),
            }),
            ForkResult::Parent { child } => {
                Ok(Watcher { pid: child, changes, files: Arc::new(files) })
            }
        }
    }

    /// Reads the reports of a generation's watcher.
    pub(super) fn read_watcher(&mut self, generation: u32) {
        let Some(generation) = self.generations.by_id_mut(generation) else { return };
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

    /// Handles the exit of the watcher of the generation at `index`. A new one would not know the files: it is
    /// started with the next generation.
    pub(super) fn on_watcher_end(&mut self, index: usize, end: End) {
        self.generations[index].watcher = None;
        tracing::error!(
            "file watcher {}: changes are not noticed until the next reload",
            end.describe()
        );
    }
}
