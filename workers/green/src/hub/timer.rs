//! A timer with a callback that can be set and canceled any number of times.

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::timers::TimerKey;
use super::{Action, Core};
use crate::interrupt::Interrupt;

/// Runs its callback on the hub each time it expires. The callback must not block; it may spawn and set timers.
///
/// Setting it later and cancelling it cost neither a system call nor an allocation.
#[derive(Debug)]
pub struct Timer {
    core: Rc<Core>,
    key: TimerKey,
}

impl Timer {
    /// Creates an unset timer of this thread's hub.
    pub fn new(callback: impl Fn() + 'static) -> Result<Self, Interrupt> {
        let core = Core::current().ok_or(Interrupt::Outside)?;
        let key = core.add_timer(Action::Call(Callback(Rc::new(callback))));
        Ok(Self { core, key })
    }

    /// Sets the timer to expire after `delay`, replacing the previous setting.
    pub fn set(&self, delay: Duration) {
        self.core.set_timer(self.key, Instant::now() + delay);
    }

    /// Cancels the timer.
    pub fn cancel(&self) {
        self.core.cancel_timer(self.key);
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.core.remove_timer(self.key);
    }
}

#[derive(Clone)]
pub(crate) struct Callback(Rc<dyn Fn()>);

impl Callback {
    pub(crate) fn call(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}
