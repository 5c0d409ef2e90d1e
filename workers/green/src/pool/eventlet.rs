//! eventlet's `GreenPool`.

use std::cell::Cell;
use std::rc::Rc;

use crate::greenlet::{Greenlet, Group, JoinHandle, SpawnError};
use crate::hub::Core;
use crate::interrupt::Interrupt;
use crate::sync::{Event, Semaphore};

/// At most so many greenlets at once; spawning one more waits until another has ended.
#[derive(Debug, Clone)]
pub struct GreenPool {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    size: usize,
    room: Semaphore,
    running: Cell<usize>,
    idle: Event,
}

impl GreenPool {
    /// A pool of at most `size` greenlets.
    pub fn new(size: usize) -> Self {
        let idle = Event::new();
        idle.set();
        let room = Semaphore::new(size);
        Self { inner: Rc::new(Inner { size, room, running: Cell::new(0), idle }) }
    }

    /// Waits for room, then starts a greenlet. Called from outside a greenlet it works while there is
    /// room, and answers [`Interrupt::Outside`] otherwise.
    pub fn spawn<T: 'static>(
        &self,
        f: impl FnOnce() -> T + 'static,
    ) -> Result<JoinHandle<T>, GreenPoolError> {
        let core = Core::current().ok_or(Interrupt::Outside)?;
        self.inner.room.acquire(None)?;
        match core.spawn(f, Some(Rc::clone(&self.inner) as Rc<dyn Group>)) {
            Ok(handle) => {
                self.inner.running.set(self.inner.running.get() + 1);
                self.inner.idle.clear();
                Ok(handle)
            }
            Err(error) => {
                self.inner.room.release();
                Err(error.into())
            }
        }
    }

    /// How many more greenlets can be started without waiting.
    pub fn free(&self) -> usize {
        self.inner.room.permits()
    }

    /// How many greenlets there are.
    pub fn running(&self) -> usize {
        self.inner.running.get()
    }

    /// How many greenlets wait in [`spawn`](Self::spawn).
    pub fn waiting(&self) -> usize {
        self.inner.room.waiting()
    }

    /// The most greenlets there can be.
    pub fn size(&self) -> usize {
        self.inner.size
    }

    /// Waits until every greenlet of the pool has ended.
    pub fn waitall(&self) -> Result<(), Interrupt> {
        self.inner.idle.wait(None).map(drop)
    }
}

impl Group for Inner {
    fn ended(&self, _: &Greenlet) {
        self.running.set(self.running.get() - 1);
        if self.running.get() == 0 {
            self.idle.set();
        }
        self.room.release();
    }
}

/// Why [`GreenPool::spawn`] started nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GreenPoolError {
    /// The caller was interrupted while it waited for room.
    #[error(transparent)]
    Interrupted(#[from] Interrupt),
    /// There is room, but no stack.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}
