//! A flag that greenlets wait for. Not a condition variable: it stays set until it is cleared.

use std::cell::Cell;
use std::time::Duration;

use super::WaitList;
use crate::hub::Core;
use crate::interrupt::Interrupt;

/// gevent's `Event`: [`set`](Self::set) wakes everybody who waits.
#[derive(Debug, Default)]
pub struct Event {
    set: Cell<bool>,
    waiters: WaitList,
}

impl Event {
    /// An event that is not set.
    pub const fn new() -> Self {
        Self { set: Cell::new(false), waiters: WaitList::new() }
    }

    /// Sets the flag and wakes all waiters.
    pub fn set(&self) {
        // Nobody waits for an event that is set.
        if self.set.replace(true) {
            return;
        }
        if let Some(core) = Core::current() {
            self.waiters.wake_all(&core);
        }
    }

    /// Clears the flag. Waiters that were woken before still return.
    pub fn clear(&self) {
        self.set.set(false);
    }

    /// Whether the flag is set.
    pub fn is_set(&self) -> bool {
        self.set.get()
    }

    /// Waits until the flag is set, at most `timeout`; answers whether it was.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Interrupt> {
        if self.set.get() {
            return Ok(true);
        }
        let core = Core::current().ok_or(Interrupt::Outside)?;
        self.waiters.wait(&core, timeout)
    }
}
