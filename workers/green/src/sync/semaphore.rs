//! A counter of permits. A released permit goes straight to the greenlet that has waited longest, so
//! nobody overtakes it and none is lost when it is killed at that moment.

use std::cell::Cell;
use std::time::Duration;

use super::WaitList;
use crate::hub::Core;
use crate::interrupt::Interrupt;

/// A counting semaphore for the greenlets of one thread.
#[derive(Debug)]
pub struct Semaphore {
    permits: Cell<usize>,
    waiters: WaitList,
}

impl Semaphore {
    /// A semaphore with `permits` to give.
    pub const fn new(permits: usize) -> Self {
        Self { permits: Cell::new(permits), waiters: WaitList::new() }
    }

    /// Takes a permit, waiting for one at most `timeout`; answers whether it got one.
    pub fn acquire(&self, timeout: Option<Duration>) -> Result<bool, Interrupt> {
        if self.try_acquire() {
            return Ok(true);
        }
        let core = Core::current().ok_or(Interrupt::Outside)?;
        self.waiters.wait(&core, timeout)
    }

    /// Takes a permit if there is one.
    pub fn try_acquire(&self) -> bool {
        let permits = self.permits.get();
        self.permits.set(permits.saturating_sub(1));
        permits > 0
    }

    /// Gives a permit back, or a new one.
    pub fn release(&self) {
        let handed_over = Core::current().is_some_and(|core| self.waiters.wake_one(&core));
        if !handed_over {
            self.permits.set(self.permits.get() + 1);
        }
    }

    /// Permits that can be taken without waiting.
    pub fn permits(&self) -> usize {
        self.permits.get()
    }

    /// Greenlets that wait for one.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }
}
