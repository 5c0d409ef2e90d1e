//! A counter of permits. A released permit passes directly to the greenlet that has waited longest, so it cannot
//! be overtaken, and no permit is lost if it is killed at that moment.

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
    /// Creates a semaphore with `permits` permits.
    pub const fn new(permits: usize) -> Self {
        Self { permits: Cell::new(permits), waiters: WaitList::new() }
    }

    /// Takes a permit, waiting up to `timeout` for one; returns whether it got one.
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

    /// Releases a permit, or adds a new one.
    pub fn release(&self) {
        let handed_over = Core::current().is_some_and(|core| self.waiters.wake_one(&core));
        if !handed_over {
            self.permits.set(self.permits.get() + 1);
        }
    }

    /// Returns the number of permits that can be taken without waiting.
    pub fn permits(&self) -> usize {
        self.permits.get()
    }

    /// Returns the number of waiting greenlets.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }
}
