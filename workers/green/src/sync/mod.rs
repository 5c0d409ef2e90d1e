//! Synchronization between greenlets of one thread: [`Event`], [`Semaphore`], [`Queue`]. None of these may leave
//! its thread; other threads wake greenlets through [`Waker`](crate::Waker) and [`Handle`](crate::Handle).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::greenlet::Greenlet;
use crate::hub::Core;
use crate::interrupt::Interrupt;

mod event;
mod queue;
mod semaphore;

pub use event::Event;
pub use queue::{Full, Queue};
pub use semaphore::Semaphore;

/// Waiting greenlets, first come, first served. Each is in at most one list.
#[derive(Debug, Default)]
pub(crate) struct WaitList {
    waiting: RefCell<VecDeque<Greenlet>>,
}

impl WaitList {
    pub(crate) const fn new() -> Self {
        Self { waiting: RefCell::new(VecDeque::new()) }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Waits up to `timeout` to be woken; returns whether it was. An interrupt that arrives together with the
    /// wake-up is kept for the next blocking call, so that what was granted is never lost.
    pub(crate) fn wait(&self, core: &Core, timeout: Option<Duration>) -> Result<bool, Interrupt> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let greenlet = core.running().ok_or(Interrupt::Outside)?;
        greenlet.0.granted.set(false);
        self.waiting.borrow_mut().push_back(greenlet.clone());
        loop {
            let parked = core.park_until(deadline);
            if greenlet.0.granted.take() {
                if let Err(interrupt) = parked {
                    greenlet.defer_interrupt(interrupt);
                }
                return Ok(true);
            }
            if parked.is_err() || deadline.is_some_and(|deadline| core.now() >= deadline) {
                self.waiting.borrow_mut().retain(|waiter| *waiter != greenlet);
                return parked.map(|()| false);
            }
        }
    }

    /// Wakes the greenlet that has waited longest; returns whether there was one.
    pub(crate) fn wake_one(&self, core: &Core) -> bool {
        let first = self.waiting.borrow_mut().pop_front();
        first.map(|greenlet| grant(core, &greenlet)).is_some()
    }

    pub(crate) fn wake_all(&self, core: &Core) {
        while self.wake_one(core) {}
    }
}

fn grant(core: &Core, greenlet: &Greenlet) {
    greenlet.0.granted.set(true);
    core.schedule(greenlet);
}
