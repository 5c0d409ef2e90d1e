//! A flag that greenlets wait for. Unlike a condition variable, it stays set until it is cleared.

use std::cell::Cell;
use std::time::Duration;

use super::WaitList;
use crate::hub::Core;
use crate::interrupt::Interrupt;

/// gevent's `Event`: [`set`](Self::set) wakes all waiters.
#[derive(Debug, Default)]
pub struct Event {
    set: Cell<bool>,
    waiters: WaitList,
}

impl Event {
    /// Creates an unset event.
    pub const fn new() -> Self {
        Self { set: Cell::new(false), waiters: WaitList::new() }
    }

    /// Sets the flag and wakes all waiters.
    pub fn set(&self) {
        // A set event has no waiters.
        if self.set.replace(true) {
            return;
        }
        if let Some(core) = Core::current() {
            self.waiters.wake_all(&core);
        }
    }

    /// Clears the flag. Waiters that were already woken still return.
    pub fn clear(&self) {
        self.set.set(false);
    }

    /// Returns whether the flag is set.
    pub fn is_set(&self) -> bool {
        self.set.get()
    }

    /// Waits up to `timeout` until the flag is set; returns whether it was.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Interrupt> {
        if self.set.get() {
            return Ok(true);
        }
        let core = Core::current().ok_or(Interrupt::Outside)?;
        self.waiters.wait(&core, timeout)
    }
}
