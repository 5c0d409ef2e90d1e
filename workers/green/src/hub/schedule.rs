//! Scheduling: how a greenlet is suspended and resumed. The rules that keep this sound are documented at
//! [`park`].

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::timers::TimerKey;
use super::{Action, Core, Task, Waker, call_back, log_panic};
use crate::greenlet::context::Context;
use crate::greenlet::panics::{self, PanicReport};
use crate::greenlet::{Greenlet, Group, JoinHandle, Outcome, SpawnError};
use crate::interrupt::{Interrupt, TimeoutId};
use crate::stack_trace::StackTrace;

/// Suspends the greenlet until its [`Waker`] fires, up to `timeout`; returns whether it fired.
///
/// Every other blocking call of this crate suspends in the same way, with these rules:
///
/// - A greenlet stays on its thread, so addresses of thread-locals stay valid. But other greenlets run in the
///   meantime and use the same thread-locals: nothing that must be released in order may be held across the call.
///   No `LocalKey::with` closure, no `RefCell` borrow that others need, no `MutexGuard`, no span guard, no
///   attachment to a Python interpreter. Code that holds such a thing can create a [`NoSuspend`]; in debug builds
///   a suspension then panics.
/// - The call does not suspend while its greenlet unwinds from a panic (in a `Drop`): the panic count of the
///   standard library is per thread. It returns [`Interrupt::Unwinding`].
/// - A suspended greenlet is stopped by an [`Interrupt`], never by unwinding it.
pub fn park(timeout: Option<Duration>) -> Result<bool, Interrupt> {
    let core = Core::current().ok_or(Interrupt::Outside)?;
    let greenlet = core.running().ok_or(Interrupt::Outside)?;
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    while !greenlet.0.woken.take() {
        if deadline.is_some_and(|deadline| core.now() >= deadline) {
            return Ok(false);
        }
        core.park_until(deadline)?;
    }
    Ok(true)
}

/// Returns a waker for the running greenlet.
pub fn waker() -> Result<Waker, Interrupt> {
    let core = Core::current().ok_or(Interrupt::Outside)?;
    let greenlet = core.running().ok_or(Interrupt::Outside)?;
    Ok(Waker::new(Arc::clone(&core.shared), greenlet.id()))
}

/// Suspends the greenlet for at least `duration`.
pub fn sleep(duration: Duration) -> Result<(), Interrupt> {
    let core = Core::current().ok_or(Interrupt::Outside)?;
    let deadline = Instant::now() + duration;
    loop {
        core.park_until(Some(deadline))?;
        if core.now() >= deadline {
            return Ok(());
        }
    }
}

/// Lets all ready greenlets run and the hub check its descriptors and timers.
pub fn yield_now() -> Result<(), Interrupt> {
    Core::current().ok_or(Interrupt::Outside)?.yield_now()
}

/// Asserts that the greenlet does not suspend while this value exists. Checked in debug builds.
#[derive(Debug)]
pub struct NoSuspend {
    _not_send: std::marker::PhantomData<Rc<()>>,
}

impl NoSuspend {
    /// Starts the assertion.
    #[must_use]
    pub fn new() -> Self {
        #[cfg(debug_assertions)]
        CLAIMS.set(CLAIMS.get() + 1);
        Self { _not_send: std::marker::PhantomData }
    }

    fn check() {
        #[cfg(debug_assertions)]
        assert_eq!(CLAIMS.get(), 0, "a greenlet suspends although it claimed not to");
    }
}

impl Default for NoSuspend {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for NoSuspend {
    fn drop(&mut self) {
        #[cfg(debug_assertions)]
        CLAIMS.set(CLAIMS.get() - 1);
    }
}

#[cfg(debug_assertions)]
thread_local! {
    static CLAIMS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl Core {
    pub(crate) fn spawn<T: 'static>(
        &self,
        f: impl FnOnce() -> T + 'static,
        group: Option<Rc<dyn Group>>,
    ) -> Result<JoinHandle<T>, SpawnError> {
        let stack = self.stacks.take()?;
        let outcome: Rc<Outcome<T>> = Rc::default();
        let place = Rc::clone(&outcome);
        let context = Context::new(stack, move || {
            let result = panics::contain(f);
            if let Err(report) = &result {
                log_greenlet_panic(report);
            }
            place.replace(Some(result));
        });
        let serial = self.next_serial();
        let mut greenlets = self.greenlets.borrow_mut();
        let entry = greenlets.vacant_entry();
        let greenlet = Greenlet::new(context, entry.key(), serial, group);
        entry.insert(greenlet.clone());
        drop(greenlets);
        self.schedule(&greenlet);
        Ok(JoinHandle::new(greenlet, outcome))
    }

    /// Returns the running greenlet.
    pub(crate) fn running(&self) -> Option<Greenlet> {
        self.running.borrow().clone()
    }

    /// Makes a greenlet ready. Its condition may not hold when it runs: every wait is a loop.
    pub(crate) fn schedule(&self, greenlet: &Greenlet) {
        if !greenlet.is_finished() && !greenlet.0.queued.replace(true) {
            self.push(Task::Greenlet(greenlet.clone()));
        }
    }

    pub(super) fn push(&self, task: Task) {
        self.ready.borrow_mut().push_back(task);
        self.note_change();
    }

    /// Suspends the running greenlet until it is scheduled or `deadline` has passed. May return early.
    pub(crate) fn park_until(&self, deadline: Option<Instant>) -> Result<(), Interrupt> {
        let greenlet = self.running().ok_or(Interrupt::Outside)?;
        if std::thread::panicking() {
            return Err(Interrupt::Unwinding);
        }
        if let Some(interrupt) = greenlet.take_interrupt() {
            return Err(interrupt);
        }
        if let Some(deadline) = deadline {
            let key = greenlet.0.wait_timer.get().unwrap_or_else(|| {
                let key = self.add_timer(Action::Wake(greenlet.clone()));
                greenlet.0.wait_timer.set(Some(key));
                key
            });
            self.set_timer(key, deadline);
            self.suspend(&greenlet);
            self.cancel_timer(key);
        } else {
            self.suspend(&greenlet);
        }
        greenlet.take_interrupt().map_or(Ok(()), Err)
    }

    pub(crate) fn yield_now(&self) -> Result<(), Interrupt> {
        let greenlet = self.running().ok_or(Interrupt::Outside)?;
        self.schedule(&greenlet);
        self.park_until(None)
    }

    /// Called before an operation that may succeed without waiting: yields after a run of these.
    pub(crate) fn be_fair(&self) -> Result<(), Interrupt> {
        let streak = self.streak.get() + 1;
        self.streak.set(streak);
        if streak > STREAK_MAX { self.yield_now() } else { Ok(()) }
    }

    /// Runs a greenlet until it suspends or finishes.
    pub(super) fn resume(&self, greenlet: &Greenlet) {
        greenlet.0.queued.set(false);
        if greenlet.is_finished() {
            return;
        }
        if !greenlet.0.context.has_started() && greenlet.is_to_exit() {
            call_back(|| greenlet.0.context.abandon());
            self.finish(greenlet);
            return;
        }
        self.running.replace(Some(greenlet.clone()));
        self.streak.set(0);
        if self.watched.get() {
            self.watch_begin();
        }
        let ended = greenlet.0.context.resume();
        if self.watched.get() {
            self.watch_end(greenlet);
        }
        self.running.replace(None);
        if ended {
            self.finish(greenlet);
        }
    }

    pub(crate) fn trace(&self, greenlet: &Greenlet) -> Option<StackTrace> {
        if self.running().as_ref() == Some(greenlet) {
            return Some(StackTrace::capture());
        }
        if greenlet.is_finished() || !greenlet.0.context.has_started() {
            return None;
        }
        self.tracing.set(true);
        greenlet.0.context.resume();
        self.traced.take()
    }

    fn suspend(&self, greenlet: &Greenlet) {
        NoSuspend::check();
        loop {
            greenlet.0.context.suspend();
            if !self.tracing.replace(false) {
                return;
            }
            self.traced.replace(Some(StackTrace::capture()));
        }
    }

    fn finish(&self, greenlet: &Greenlet) {
        self.greenlets.borrow_mut().remove(greenlet.0.key);
        if let Some(key) = greenlet.0.wait_timer.take() {
            self.remove_timer(key);
        }
        greenlet.end(self);
    }

    fn watch_begin(&self) {
        if let Some(watchdog) = &*self.watchdog.borrow() {
            watchdog.begin();
        }
    }

    fn watch_end(&self, greenlet: &Greenlet) {
        if let Some(watchdog) = &*self.watchdog.borrow() {
            watchdog.end(greenlet);
        }
    }

    pub(crate) fn next_serial(&self) -> u32 {
        self.serial.set(self.serial.get().wrapping_add(1));
        self.serial.get()
    }

    pub(crate) fn next_timeout(&self) -> TimeoutId {
        self.timeouts.set(self.timeouts.get() + 1);
        TimeoutId(self.timeouts.get())
    }

    pub(crate) fn add_timer(&self, action: Action) -> TimerKey {
        self.timers.borrow_mut().add(action)
    }

    pub(crate) fn set_timer(&self, key: TimerKey, at: Instant) {
        self.timers.borrow_mut().set(key, at);
        self.note_change();
    }

    pub(crate) fn cancel_timer(&self, key: TimerKey) {
        self.timers.borrow_mut().cancel(key);
    }

    /// The action is dropped after the borrow has ended: it may hold anything.
    pub(crate) fn remove_timer(&self, key: TimerKey) {
        let action = self.timers.borrow_mut().remove(key);
        drop(action);
    }
}

fn log_greenlet_panic(report: &PanicReport) {
    let id = crate::current().map_or(0, |greenlet| greenlet.id());
    log_panic(&format!("greenlet {id:x}"), report);
}

/// Number of consecutive operations without waiting after which a greenlet yields.
const STREAK_MAX: u32 = 32;
