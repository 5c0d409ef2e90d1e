//! Timeouts as scopes: every blocking call within one is interrupted when it expires. Scopes nest, and each
//! recognizes its own interrupt, so that an inner one does not swallow an outer one's.

use std::marker::PhantomData;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::greenlet::Greenlet;
use crate::hub::timers::TimerKey;
use crate::hub::{Action, Core};
use crate::interrupt::{Interrupt, Interrupted, TimeoutId};

/// eventlet's `Timeout`: from its creation until it is dropped, a blocking call of this greenlet that is
/// suspended when the time is up (or the next one to block) returns [`Interrupt::Timeout`], once.
///
/// ```
/// use std::time::Duration;
/// use jimu_green::{Hub, Interrupt, Timeout, sleep};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hub = Hub::new()?;
/// let outcome = hub.block_on(|| {
///     let brief = Timeout::silent(Duration::from_millis(5))?;
///     brief.scope(|| sleep(Duration::from_secs(60)))
/// })?;
/// assert_eq!(outcome, Ok::<_, Interrupt>(None));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Timeout {
    core: Rc<Core>,
    greenlet: Greenlet,
    key: TimerKey,
    id: TimeoutId,
    silent: bool,
    _of_this_thread: PhantomData<*const ()>,
}

impl Timeout {
    /// Starts a timeout of the running greenlet.
    pub fn new(duration: Duration) -> Result<Self, Interrupt> {
        let core = Core::current().ok_or(Interrupt::Outside)?;
        let greenlet = core.running().ok_or(Interrupt::Outside)?;
        let id = core.next_timeout();
        let key = core.add_timer(Action::Timeout(greenlet.clone(), id));
        core.set_timer(key, Instant::now() + duration);
        Ok(Self { core, greenlet, key, id, silent: false, _of_this_thread: PhantomData })
    }

    /// Like [`new`](Self::new), but [`scope`](Self::scope) returns `Ok(None)` when it expires.
    pub fn silent(duration: Duration) -> Result<Self, Interrupt> {
        let mut timeout = Self::new(duration)?;
        timeout.silent = true;
        Ok(timeout)
    }

    /// Runs `f` and ends the timeout. If a silent timeout expired in `f`, returns `Ok(None)`; other errors
    /// are passed through, including another timeout's.
    pub fn scope<T, E: Interrupted>(
        self,
        f: impl FnOnce() -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        match f() {
            Err(error) if self.silent && self.caused(&error) => Ok(None),
            result => result.map(Some),
        }
    }

    /// Returns whether this timeout caused an error.
    pub fn caused(&self, error: &impl Interrupted) -> bool {
        error.interrupt() == Some(Interrupt::Timeout(self.id))
    }

    /// Returns the identifier of the timeout.
    pub fn id(&self) -> TimeoutId {
        self.id
    }

    /// Restarts the timeout: it expires `duration` from now.
    pub fn restart(&self, duration: Duration) {
        self.greenlet.forget_timeout(self.id);
        self.core.set_timer(self.key, Instant::now() + duration);
    }
}

impl Drop for Timeout {
    fn drop(&mut self) {
        self.core.remove_timer(self.key);
        self.greenlet.forget_timeout(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Hub, sleep};

    const BRIEF: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn nested_timeouts_are_told_apart() {
        let hub = Hub::new().unwrap();
        hub.block_on(|| {
            let outer = Timeout::new(BRIEF).unwrap();
            let inner = Timeout::silent(LONG).unwrap();
            let error = inner.scope(|| sleep(LONG)).unwrap_err();
            assert!(outer.caused(&error), "{error}");

            let outer = Timeout::new(LONG).unwrap();
            let inner = Timeout::silent(BRIEF).unwrap();
            assert_eq!(inner.scope(|| sleep(LONG)), Ok(None));
            drop(outer);
        })
        .unwrap();
    }

    #[test]
    fn a_loud_timeout_passes_and_an_ended_one_is_silent_for_good() {
        let hub = Hub::new().unwrap();
        hub.block_on(|| {
            let loud = Timeout::new(BRIEF).unwrap();
            let id = loud.id();
            assert_eq!(loud.scope(|| sleep(LONG)), Err(Interrupt::Timeout(id)));
            // It expires while the greenlet is ready but not running, and ends before the greenlet
            // blocks.
            let ended = Timeout::new(Duration::ZERO).unwrap();
            crate::current().unwrap().interrupt(Interrupt::Timeout(ended.id()));
            drop(ended);
            assert_eq!(sleep(BRIEF), Ok(()));
        })
        .unwrap();
    }
}
