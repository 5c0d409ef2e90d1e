//! The hub: one per thread; it waits for descriptors, timers and other threads, and runs what is ready. This file
//! holds the public interface; the turn is in `turn`, switching to and from greenlets in `schedule`, descriptors
//! in `source` and `registration`, the parts in `poller`, `timers` and `wake`.

use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::greenlet::panics;
use crate::greenlet::stack::{StackConfig, StackError, StackPool};
use crate::greenlet::{JoinError, SpawnError};
use crate::watchdog::Watchdog;

mod poller;
pub(crate) mod ready;
mod registration;
mod schedule;
pub(crate) mod source;
mod timer;
pub(crate) mod timers;
mod turn;
pub(crate) mod wake;

pub use registration::Observer;
pub use schedule::{NoSuspend, park, sleep, waker, yield_now};
pub use timer::Timer;
pub use wake::{Handle, Waker};

pub(crate) use turn::{Action, Core, call_back};
use turn::{Task, log_panic};

/// The event loop of a thread.
///
/// A thread has at most one hub; everything in this crate that blocks needs one. Create it after the last fork:
/// the epoll descriptor would be shared with the parent.
///
/// Dropping the hub does not unwind suspended greenlets: their frames, which may include foreign ones, and the
/// values in them are leaked. Finish them first with [`Greenlet::kill`](crate::Greenlet::kill) where that
/// matters.
#[derive(Debug)]
pub struct Hub {
    core: Rc<Core>,
}

/// Error of creating a hub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// This thread already has a hub.
    #[error("this thread has a hub already")]
    Second,
    /// The stacks cannot be allocated.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The descriptors cannot be created.
    #[error("cannot make the hub's descriptors")]
    Io(#[from] io::Error),
}

impl Hub {
    /// Creates a hub for this thread with stacks of the default size.
    pub fn new() -> Result<Self, HubError> {
        Self::with_stacks(StackConfig::default())
    }

    /// Creates a hub for this thread.
    pub fn with_stacks(stacks: StackConfig) -> Result<Self, HubError> {
        if Core::current().is_some() {
            return Err(HubError::Second);
        }
        let core = Rc::new(Core::new(StackPool::new(stacks)?)?);
        Core::set_current(Some(Rc::clone(&core)));
        panics::watch_this_thread();
        Ok(Self { core })
    }

    /// Runs `f` in a greenlet, and the hub until that greenlet has finished. Other greenlets run in the
    /// meantime and stay suspended afterwards.
    pub fn block_on<T: 'static>(&self, f: impl FnOnce() -> T + 'static) -> Result<T, RunError> {
        let main = self.core.spawn(f, None)?;
        while !main.is_finished() {
            self.core.turn(true)?;
        }
        Ok(main.join()?)
    }

    /// Runs the hub until [`stop`](Self::stop) is called by a greenlet or callback, or from another thread
    /// through [`Handle::call`].
    pub fn run(&self) -> io::Result<()> {
        self.core.stopped.set(false);
        while !self.core.stopped.get() {
            self.core.turn(true)?;
        }
        Ok(())
    }

    /// Makes [`run`](Self::run) of this thread's hub return at the end of its turn.
    pub fn stop() {
        if let Some(core) = Core::current() {
            core.stopped.set(true);
        }
    }

    /// Returns the descriptor by which a guest loop drives this hub: call [`turn`](Self::turn) whenever it is
    /// readable. Timers also make it readable.
    pub fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        let descriptor = self.core.poller.become_guest()?;
        self.core.settle_guest()?;
        Ok(descriptor)
    }

    /// Processes pending work without waiting. A turn is bounded: remaining work makes
    /// [`descriptor`](Self::descriptor) readable again.
    pub fn turn(&self) -> io::Result<()> {
        self.core.turn(false)
    }

    /// Returns a reference for other threads.
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.core.shared))
    }

    /// Returns the number of greenlets that have been spawned and have not finished.
    pub fn greenlets(&self) -> usize {
        self.core.greenlets.borrow().len()
    }

    /// Logs each greenlet that blocks the hub for longer than `limit`, with its backtrace. Off unless called;
    /// see the `watchdog` module for how it works.
    pub fn watch_blocking(&self, limit: Duration) -> io::Result<()> {
        self.core.watchdog.replace(Some(Watchdog::start(limit)?));
        self.core.watched.set(true);
        Ok(())
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        Core::set_current(None);
        self.core.abandon();
    }
}

/// Error of [`Hub::block_on`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The greenlet could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The hub could not wait.
    #[error("the hub cannot wait for events")]
    Io(#[from] io::Error),
    /// The greenlet did not return.
    #[error(transparent)]
    Join(#[from] JoinError),
}

#[cfg(test)]
mod tests;
