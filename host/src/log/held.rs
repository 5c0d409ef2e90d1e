//! The lines that the arbiter keeps in memory while the reader of a log does not read.
//!
//! They belong to the process that [enabled](Held::enable) this: a child that was forked later has a copy of
//! them, which it must not write.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering},
};

/// The lines that are kept, of one log.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The ID of the process that keeps lines; 0 for none. It has one thread when it forks, so no child finds
    /// the lines locked.
    owner: AtomicU32,
    lines: Mutex<Vec<u8>>,
}

impl Held {
    /// Lets this process keep lines.
    pub(super) fn enable(&self) {
        self.owner.store(std::process::id(), Ordering::Relaxed);
    }

    /// Returns the lines that this process keeps; `None` if it keeps none.
    pub(super) fn lines(&self) -> Option<MutexGuard<'_, Vec<u8>>> {
        match self.owner.load(Ordering::Relaxed) {
            0 => None,
            owner if owner != std::process::id() => None,
            _ => Some(self.lines.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

/// The most bytes that are kept: as many as a pipe holds by default.
pub(super) const HELD_MAX: usize = 64 << 10;
