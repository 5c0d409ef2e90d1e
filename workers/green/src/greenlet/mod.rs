//! Greenlets: spawning, killing and joining. The hub schedules them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::hub::Core;
use crate::hub::timers::TimerKey;
use crate::interrupt::{Interrupt, TimeoutId};
use crate::stack_trace::StackTrace;
use crate::sync::WaitList;

pub(crate) mod context;
pub mod overflow;
pub mod panics;
pub mod stack;

use context::Context;
use panics::PanicReport;
use stack::StackError;

/// Spawns a greenlet on this thread's hub. It starts when the caller next waits.
pub fn spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> Result<JoinHandle<T>, SpawnError> {
    let core = Core::current().ok_or(SpawnError::NoHub)?;
    core.spawn(f, None)
}

/// Returns the running greenlet; `None` in callbacks of the hub and outside a hub.
pub fn current() -> Option<Greenlet> {
    Core::current()?.running()
}

/// Error of [`spawn`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// This thread has no [`Hub`](crate::Hub).
    #[error("this thread has no hub")]
    NoHub,
    /// No stack is available.
    #[error(transparent)]
    Stack(#[from] StackError),
}

/// Error of [`JoinHandle::join`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The greenlet was killed before it started.
    #[error("the greenlet was killed before it ran")]
    Killed,
    /// The greenlet panicked. The panic was also logged.
    #[error("the greenlet {0}")]
    Panicked(PanicReport),
    /// The caller was interrupted while it waited; the greenlet keeps running.
    #[error(transparent)]
    Interrupted(#[from] Interrupt),
}

/// A reference to a greenlet. Cheap to clone; does not keep the greenlet running.
#[derive(Debug, Clone)]
pub struct Greenlet(pub(crate) Rc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) context: Context,
    /// Index in the hub's table.
    pub(crate) key: usize,
    /// Distinguishes the greenlet from earlier ones with the same index.
    pub(crate) serial: u32,
    /// Whether it is in the ready queue.
    pub(crate) queued: Cell<bool>,
    pub(crate) finished: Cell<bool>,
    /// Whether the [`WaitList`] has granted what the greenlet waits for.
    pub(crate) granted: Cell<bool>,
    /// Whether a [`Waker`](crate::Waker) fired; consumed by [`park`](crate::park).
    pub(crate) woken: Cell<bool>,
    /// Timer of the greenlet's own waits, created at the first one.
    pub(crate) wait_timer: Cell<Option<TimerKey>>,
    pub(crate) joiners: WaitList,
    interrupts: RefCell<VecDeque<Interrupt>>,
    group: RefCell<Option<Rc<dyn Group>>>,
    /// Index in the group's table, if the group has one.
    pub(crate) group_key: Cell<usize>,
}

/// Notified when a member finishes. Implemented by pools.
pub(crate) trait Group: std::fmt::Debug {
    fn ended(&self, greenlet: &Greenlet);
}

impl Greenlet {
    pub(crate) fn new(
        context: Context,
        key: usize,
        serial: u32,
        group: Option<Rc<dyn Group>>,
    ) -> Self {
        Self(Rc::new(Inner {
            context,
            key,
            serial,
            queued: Cell::new(false),
            finished: Cell::new(false),
            granted: Cell::new(false),
            woken: Cell::new(false),
            wait_timer: Cell::new(None),
            joiners: WaitList::new(),
            interrupts: RefCell::new(VecDeque::new()),
            group: RefCell::new(group),
            group_key: Cell::new(0),
        }))
    }

    /// Returns an identifier that no other greenlet of this hub has had recently.
    pub fn id(&self) -> u64 {
        u64::from(self.0.serial) << 32 | self.0.key as u64
    }

    /// Returns whether the greenlet has finished.
    pub fn is_finished(&self) -> bool {
        self.0.finished.get()
    }

    /// Kills the greenlet: its current blocking call, or its next one, returns [`Interrupt::Exit`]. An
    /// unstarted greenlet never runs.
    ///
    /// The stack is not unwound from outside: a greenlet that ignores the error keeps running.
    pub fn kill(&self) {
        self.interrupt(Interrupt::Exit);
    }

    /// Returns the greenlet's stack, or `None` if it has finished or not started.
    ///
    /// A suspended greenlet is resumed inside the function that suspended it, captures its stack and suspends
    /// again. Its code does not run.
    pub fn trace(&self) -> Option<StackTrace> {
        Core::current()?.trace(self)
    }

    pub(crate) fn interrupt(&self, interrupt: Interrupt) {
        if self.is_finished() {
            return;
        }
        self.0.interrupts.borrow_mut().push_back(interrupt);
        if let Some(core) = Core::current() {
            core.schedule(self);
        }
    }

    pub(crate) fn take_interrupt(&self) -> Option<Interrupt> {
        self.0.interrupts.borrow_mut().pop_front()
    }

    /// Requeues an interrupt that arrived too late to cancel what the greenlet waited for.
    pub(crate) fn defer_interrupt(&self, interrupt: Interrupt) {
        self.0.interrupts.borrow_mut().push_front(interrupt);
    }

    pub(crate) fn forget_timeout(&self, id: TimeoutId) {
        self.0.interrupts.borrow_mut().retain(|pending| *pending != Interrupt::Timeout(id));
    }

    pub(crate) fn is_to_exit(&self) -> bool {
        self.0.interrupts.borrow().contains(&Interrupt::Exit)
    }

    /// Finishes a greenlet, after the hub has removed it from its table.
    pub(crate) fn end(&self, core: &Core) {
        self.0.finished.set(true);
        self.0.joiners.wake_all(core);
        let group = self.0.group.borrow_mut().take();
        if let Some(group) = group {
            group.ended(self);
        }
    }
}

impl PartialEq for Greenlet {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Greenlet {}

/// Handle of a spawned greenlet and its result. Dropping it detaches the greenlet.
#[derive(Debug)]
pub struct JoinHandle<T> {
    greenlet: Greenlet,
    outcome: Rc<Outcome<T>>,
}

/// Slot for the result of a greenlet.
pub(crate) type Outcome<T> = RefCell<Option<Result<T, PanicReport>>>;

impl<T> JoinHandle<T> {
    pub(crate) fn new(greenlet: Greenlet, outcome: Rc<Outcome<T>>) -> Self {
        Self { greenlet, outcome }
    }

    /// Returns the greenlet.
    pub fn greenlet(&self) -> &Greenlet {
        &self.greenlet
    }

    /// See [`Greenlet::kill`].
    pub fn kill(&self) {
        self.greenlet.kill();
    }

    /// Returns whether the greenlet has finished, so that [`join`](Self::join) does not wait.
    pub fn is_finished(&self) -> bool {
        self.greenlet.is_finished()
    }

    /// Waits up to `timeout` for the greenlet to finish; returns whether it has.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Interrupt> {
        if self.is_finished() {
            return Ok(true);
        }
        let core = Core::current().ok_or(Interrupt::Outside)?;
        self.greenlet.0.joiners.wait(&core, timeout)
    }

    /// Waits for the greenlet to finish and returns the result of its function.
    pub fn join(self) -> Result<T, JoinError> {
        self.wait(None)?;
        match self.outcome.take() {
            Some(Ok(value)) => Ok(value),
            Some(Err(report)) => Err(JoinError::Panicked(report)),
            None => Err(JoinError::Killed),
        }
    }
}

#[cfg(test)]
mod tests;
