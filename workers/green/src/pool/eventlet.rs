//! eventlet's `GreenPool`.

use std::cell::Cell;
use std::rc::Rc;

use crate::greenlet::{Greenlet, Group, JoinHandle, SpawnError};
use crate::hub::Core;
use crate::interrupt::Interrupt;
use crate::sync::{Event, Semaphore};

/// A bounded number of greenlets; spawning one more waits until another has finished.
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
    /// Creates a pool of at most `size` greenlets.
    pub fn new(size: usize) -> Self {
        let idle = Event::new();
        idle.set();
        let room = Semaphore::new(size);
        Self { inner: Rc::new(Inner { size, room, running: Cell::new(0), idle }) }
    }

    /// Waits for room, then spawns a greenlet. Outside a greenlet it works while there is room and returns
    /// [`Interrupt::Outside`] otherwise.
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

    /// Returns the number of greenlets that can be spawned without waiting.
    pub fn free(&self) -> usize {
        self.inner.room.permits()
    }

    /// Returns the number of greenlets.
    pub fn running(&self) -> usize {
        self.inner.running.get()
    }

    /// Returns the number of greenlets that wait in [`spawn`](Self::spawn).
    pub fn waiting(&self) -> usize {
        self.inner.room.waiting()
    }

    /// Returns the maximum number of greenlets.
    pub fn size(&self) -> usize {
        self.inner.size
    }

    /// Waits until every greenlet of the pool has finished.
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

/// Error of [`GreenPool::spawn`].
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::{Hub, spawn, yield_now};

    #[test]
    fn spawn_waits_for_room_and_waitall_for_everybody() {
        let hub = Hub::new().unwrap();
        hub.block_on(|| {
            let pool = GreenPool::new(2);
            let gate = Rc::new(Event::new());
            let log = Rc::new(RefCell::new(Vec::new()));
            let (members, order, wait) = (pool.clone(), Rc::clone(&log), Rc::clone(&gate));
            let spawner = spawn(move || {
                for i in 0..4 {
                    let (order, gate) = (Rc::clone(&order), Rc::clone(&wait));
                    members
                        .spawn(move || {
                            gate.wait(None).unwrap();
                            order.borrow_mut().push(i);
                        })
                        .unwrap();
                }
            })
            .unwrap();
            yield_now().unwrap();
            assert_eq!((pool.free(), pool.running(), pool.waiting()), (0, 2, 1));
            assert!(!spawner.is_finished());
            gate.set();
            spawner.join().unwrap();
            pool.waitall().unwrap();
            assert_eq!(*log.borrow(), [0, 1, 2, 3]);
            assert_eq!((pool.free(), pool.running(), pool.waiting()), (2, 0, 0));
        })
        .unwrap();
    }

    #[test]
    fn a_killed_spawner_takes_no_room_and_a_panic_gives_it_back() {
        let hub = Hub::new().unwrap();
        hub.block_on(|| {
            let pool = GreenPool::new(1);
            let gate = Rc::new(Event::new());
            let wait = Rc::clone(&gate);
            pool.spawn(move || wait.wait(None).map(|_| panic!("on purpose"))).map(drop).unwrap();
            let members = pool.clone();
            let spawner = spawn(move || members.spawn(|| ()).map(drop)).unwrap();
            yield_now().unwrap();
            spawner.kill();
            let error = spawner.join().unwrap().unwrap_err();
            assert!(matches!(error, GreenPoolError::Interrupted(Interrupt::Exit)));
            gate.set();
            pool.waitall().unwrap();
            assert_eq!(pool.free(), 1);
        })
        .unwrap();
    }
}
