//! The hook `child_exit`: called once for each process that ran the application's code, whichever process of the server
//! is there to call it.

use nix::unistd::Pid;

use super::Arbiter;
use super::generation::{Generation, Mold, Stage};
use crate::hooks::CHILD_EXIT;
use crate::process::End;

/// Arguments of the hook: a process that has exited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exit {
    pid: Pid,
    /// 0 for a mold.
    age: u64,
    /// Negative for a signal.
    status: i32,
}

impl Exit {
    pub(super) fn new(pid: Pid, age: u64, end: End) -> Self {
        let status = match end {
            End::Status(status) => status,
            End::Signal(number) => -number,
        };
        Self { pid, age, status }
    }

    fn facts(self) -> [i64; 3] {
        [self.pid.as_raw().into(), self.age as i64, self.status.into()]
    }
}

impl Arbiter {
    /// Runs the hook in the mold of the generation at `index`, or else of the serving generation. If there is
    /// no mold at the moment, the next one runs the hook.
    pub(super) fn tell_child_exit(&mut self, index: usize, exit: Exit) {
        let own = self.generations[index].hearing_mold().is_some();
        let teller = if own { Some(index) } else { self.serving_generation() };
        if teller.is_none_or(|index| !self.generations[index].tell_child_exit(exit)) {
            self.keep_untold(index, exit);
        }
    }

    /// Runs the hook for a mold that had loaded the application with `preload_app` and has exited: files that
    /// the application left for that process are cleaned up as for a worker.
    ///
    /// Exits that the mold had not read are kept for the next mold.
    pub(super) fn tell_mold_exit(&mut self, index: usize, mold: &Mold, end: End) {
        for exit in &mold.unread_exits {
            self.keep_untold(index, *exit);
        }
        if self.generations[index].settings.preload_app {
            self.tell_child_exit(index, Exit::new(mold.pid, 0, end));
        }
    }

    /// Runs the hook for processes that exited while there was no mold.
    pub(super) fn tell_untold_exits(&mut self) {
        if self.untold_exits.is_empty() {
            return;
        }
        let Some(index) = self.serving_generation() else { return };
        let generation = &mut self.generations[index];
        if generation.loaded_mold().is_some() {
            self.untold_exits.retain(|exit| !generation.tell_child_exit(*exit));
        }
    }

    fn keep_untold(&mut self, index: usize, exit: Exit) {
        if self.generations[index].has_hooks() && self.untold_exits.len() < UNTOLD_MAX {
            self.untold_exits.push(exit);
        }
    }

    fn serving_generation(&self) -> Option<usize> {
        let serves = |other: &Generation| other.stage == Stage::Serving || other.rests();
        self.generations.iter().position(serves)
    }
}

impl Generation {
    /// Returns whether a mold will call the hook, unless it ends before it reads the message.
    fn tell_child_exit(&mut self, exit: Exit) -> bool {
        let told = self.hearing_mold().is_some() && self.tell_hooks(CHILD_EXIT, &exit.facts());
        if told
            && self.has_hooks()
            && let Some(mold) = &mut self.mold
        {
            mold.unread_exits.push(exit);
        }
        told
    }
}

impl Mold {
    /// Handles a mold's confirmation that it has read the exit of this process.
    pub(super) fn has_read_exit(&mut self, pid: i32) {
        self.unread_exits.retain(|exit| exit.pid.as_raw() != pid);
    }
}

/// Bound on the number of exits that are kept for the next mold.
const UNTOLD_MAX: usize = 1024;
