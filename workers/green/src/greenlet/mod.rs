//! Greenlets: what one is, how it is started, ended and joined. When it runs is the hub's business.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::hub::Core;
use crate::hub::timers::TimerKey;
use crate::interrupt::{Interrupt, TimeoutId};
use crate::sync::WaitList;

pub(crate) mod context;
pub mod overflow;
pub mod panics;
pub mod stack;

use context::Context;
use panics::PanicReport;
use stack::StackError;

/// Starts a greenlet on this thread's hub. It runs when the caller waits, not before.
pub fn spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> Result<JoinHandle<T>, SpawnError> {
    let core = Core::current().ok_or(SpawnError::NoHub)?;
    core.spawn(f, None)
}

/// The greenlet that runs now; `None` in the hub's own callbacks and outside a hub.
pub fn current() -> Option<Greenlet> {
    Core::current()?.running()
}

/// Why a greenlet could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// This thread has no [`Hub`](crate::Hub).
    #[error("this thread has no hub")]
    NoHub,
    /// There is no stack for it.
    #[error(transparent)]
    Stack(#[from] StackError),
}

/// Why [`JoinHandle::join`] has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The greenlet was killed before it began to run.
    #[error("the greenlet was killed before it ran")]
    Killed,
    /// The greenlet panicked. The panic was logged, too.
    #[error("the greenlet {0}")]
    Panicked(PanicReport),
    /// The joiner was interrupted while it waited; the greenlet runs on.
    #[error(transparent)]
    Interrupted(#[from] Interrupt),
}

/// A reference to a greenlet. Cheap to clone; does not keep it from ending.
#[derive(Debug, Clone)]
pub struct Greenlet(pub(crate) Rc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) context: Context,
    /// Place in the hub's table.
    pub(crate) key: usize,
    /// Distinguishes it from other greenlets that had the same place.
    pub(crate) serial: u32,
    /// It is in the ready queue.
    pub(crate) queued: Cell<bool>,
    pub(crate) finished: Cell<bool>,
    /// What it waits for in a [`WaitList`] has been given to it.
    pub(crate) granted: Cell<bool>,
    /// A [`Waker`](crate::Waker) fired; consumed by [`park`](crate::park).
    pub(crate) woken: Cell<bool>,
    /// The timer of its own waits, made at the first one.
    pub(crate) wait_timer: Cell<Option<TimerKey>>,
    pub(crate) joiners: WaitList,
    interrupts: RefCell<VecDeque<Interrupt>>,
    group: RefCell<Option<Rc<dyn Group>>>,
    /// Its place in the group's table, if that has one.
    pub(crate) group_key: Cell<usize>,
}

/// Is told when a member has ended: a pool.
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

    /// A number that no other greenlet of this hub has had lately.
    pub fn id(&self) -> u64 {
        u64::from(self.0.serial) << 32 | self.0.key as u64
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.0.finished.get()
    }

    /// Ends the greenlet, soon: its blocking call, or else its next one, returns
    /// [`Interrupt::Exit`]. One that has not begun never runs.
    ///
    /// Nothing is unwound from outside: a greenlet that disregards the error goes on.
    pub fn kill(&self) {
        self.interrupt(Interrupt::Exit);
    }

    /// Where the greenlet stands, or `None` if it has ended or not begun.
    ///
    /// A suspended greenlet is resumed for the purpose, inside the function that suspended it: it
    /// captures its stack and suspends again. None of its own code runs.
    pub fn trace(&self) -> Option<Backtrace> {
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

    /// Puts back an interrupt that came too late to prevent what the greenlet waited for.
    pub(crate) fn defer_interrupt(&self, interrupt: Interrupt) {
        self.0.interrupts.borrow_mut().push_front(interrupt);
    }

    pub(crate) fn forget_timeout(&self, id: TimeoutId) {
        self.0.interrupts.borrow_mut().retain(|pending| *pending != Interrupt::Timeout(id));
    }

    pub(crate) fn is_to_exit(&self) -> bool {
        self.0.interrupts.borrow().contains(&Interrupt::Exit)
    }

    /// The last thing that happens to a greenlet; the hub has taken it out of its table.
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

/// A greenlet that was spawned, and its result. Dropping it lets the greenlet run on by itself.
#[derive(Debug)]
pub struct JoinHandle<T> {
    greenlet: Greenlet,
    outcome: Rc<Outcome<T>>,
}

/// Where a greenlet leaves its result.
pub(crate) type Outcome<T> = RefCell<Option<Result<T, PanicReport>>>;

impl<T> JoinHandle<T> {
    pub(crate) fn new(greenlet: Greenlet, outcome: Rc<Outcome<T>>) -> Self {
        Self { greenlet, outcome }
    }

    /// The greenlet itself.
    pub fn greenlet(&self) -> &Greenlet {
        &self.greenlet
    }

    /// See [`Greenlet::kill`].
    pub fn kill(&self) {
        self.greenlet.kill();
    }

    /// Whether the greenlet has ended: then [`join`](Self::join) does not wait.
    pub fn is_finished(&self) -> bool {
        self.greenlet.is_finished()
    }

    /// Waits until the greenlet has ended, at most `timeout`; answers whether it has.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Interrupt> {
        if self.is_finished() {
            return Ok(true);
        }
        let core = Core::current().ok_or(Interrupt::Outside)?;
        self.greenlet.0.joiners.wait(&core, timeout)
    }

    /// Waits until the greenlet has ended, and answers what its function returned.
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
