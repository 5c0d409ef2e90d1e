//! The hook `child_exit`: called once for each process that ran the application's code, whichever process of the server
//! is there to call it.

use super::Arbiter;
use super::generation::{Generation, Stage};
use super::handles::{Exit, Mold};
use crate::process::End;

impl Arbiter {
    /// Runs the hook in the mold of the generation at `index`, or else of the serving generation. If there is
    /// no mold at the moment, the next one runs the hook.
    pub(super) fn run_child_exit_hook(&mut self, index: usize, exit: Exit) {
        let own = self.generations[index].reachable_mold().is_some();
        let caller = if own { Some(index) } else { self.serving_generation() };
        if caller.is_none_or(|index| !self.generations[index].run_child_exit_hook(exit)) {
            self.keep_pending_exit(index, exit);
        }
    }

    /// Runs the hook for a mold that had loaded the application with `preload_app` and has exited: files that
    /// the application left for that process are cleaned up as for a worker.
    ///
    /// Exits that the mold had not read are kept for the next mold.
    pub(super) fn run_mold_exit_hook(&mut self, index: usize, mold: &Mold, end: End) {
        for exit in &mold.unread_exits {
            self.keep_pending_exit(index, *exit);
        }
        if self.generations[index].settings.preload_app {
            self.run_child_exit_hook(index, Exit::new(mold.pid, 0, end));
        }
    }

    /// Runs the hook for processes that exited while there was no mold.
    pub(super) fn run_pending_exit_hooks(&mut self) {
        if self.pending_exits.is_empty() {
            return;
        }
        let Some(index) = self.serving_generation() else { return };
        let generation = &mut self.generations[index];
        if generation.loaded_mold().is_some() {
            self.pending_exits.retain(|exit| !generation.run_child_exit_hook(*exit));
        }
    }

    fn keep_pending_exit(&mut self, index: usize, exit: Exit) {
        if self.generations[index].has_hooks() && self.pending_exits.len() < PENDING_EXITS_MAX {
            self.pending_exits.push(exit);
        }
    }

    fn serving_generation(&self) -> Option<usize> {
        let serves =
            |other: &Generation| other.stage == Stage::Serving || other.is_kept_for_hooks();
        self.generations.iter().position(serves)
    }
}

/// Bound on the number of exits that are kept for the next mold.
const PENDING_EXITS_MAX: usize = 1024;
