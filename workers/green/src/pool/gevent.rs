//! gevent's `Pool`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use slab::Slab;

use crate::greenlet::{Greenlet, Group, JoinHandle, SpawnError};
use crate::hub::{Core, call_back};
use crate::interrupt::Interrupt;
use crate::sync::Event;

/// A bounded set of greenlets. It tracks its members and can kill them.
#[derive(Debug, Clone)]
pub struct Pool {
    inner: Rc<Inner>,
}

struct Inner {
    size: Option<usize>,
    members: RefCell<Slab<Greenlet>>,
    available: Event,
    empty: Event,
    on_available: RefCell<Option<Rc<dyn Fn()>>>,
    was_full: Cell<bool>,
}

/// Error of [`Pool::spawn`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The pool is full.
    #[error("the pool is full")]
    Full,
    /// There is no stack, or no hub.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

impl Pool {
    /// Creates a pool of at most `size` greenlets, or without a limit.
    pub fn new(size: Option<usize>) -> Self {
        let (available, empty) = (Event::new(), Event::new());
        if size != Some(0) {
            available.set();
        }
        empty.set();
        let members = RefCell::default();
        let on_available = RefCell::new(None);
        let was_full = Cell::new(false);
        Self { inner: Rc::new(Inner { size, members, available, empty, on_available, was_full }) }
    }

    /// Spawns a greenlet. It never waits, so callbacks of the hub may call it; where gevent's would wait,
    /// call [`wait_available`](Self::wait_available) first.
    pub fn spawn<T: 'static>(
        &self,
        f: impl FnOnce() -> T + 'static,
    ) -> Result<JoinHandle<T>, PoolError> {
        if self.full() {
            return Err(PoolError::Full);
        }
        let core = Core::current().ok_or(SpawnError::NoHub)?;
        let handle = core.spawn(f, Some(Rc::clone(&self.inner) as Rc<dyn Group>))?;
        let member = handle.greenlet().clone();
        let key = self.inner.members.borrow_mut().insert(member);
        handle.greenlet().0.group_key.set(key);
        self.inner.empty.clear();
        if self.full() {
            self.inner.available.clear();
            self.inner.was_full.set(true);
        }
        Ok(handle)
    }

    /// Returns whether the pool is full.
    pub fn full(&self) -> bool {
        self.free_count() == 0
    }

    /// Returns the number of greenlets that can still be spawned.
    pub fn free_count(&self) -> usize {
        self.inner.size.map_or(usize::MAX, |size| size.saturating_sub(self.len()))
    }

    /// Returns the number of greenlets.
    pub fn len(&self) -> usize {
        self.inner.members.borrow().len()
    }

    /// Returns whether the pool is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits up to `timeout` for room; returns whether there is room.
    pub fn wait_available(&self, timeout: Option<Duration>) -> Result<bool, Interrupt> {
        self.inner.available.wait(timeout)
    }

    /// Runs `callback` on the hub each time the full pool has room again, for example to restart an accept
    /// watch that was stopped when the pool became full.
    pub fn on_available(&self, callback: impl Fn() + 'static) {
        self.inner.on_available.replace(Some(Rc::new(callback)));
    }

    /// Waits up to `timeout` until every member has finished; returns whether all have.
    pub fn join(&self, timeout: Option<Duration>) -> Result<bool, Interrupt> {
        self.inner.empty.wait(timeout)
    }

    /// Kills every member (see [`Greenlet::kill`]) without waiting; [`join`](Self::join) waits.
    pub fn kill(&self) {
        let members: Vec<Greenlet> =
            self.inner.members.borrow().iter().map(|(_, member)| member.clone()).collect();
        for member in members {
            member.kill();
        }
    }
}

impl Group for Inner {
    fn ended(&self, greenlet: &Greenlet) {
        self.members.borrow_mut().remove(greenlet.0.group_key.get());
        if self.members.borrow().is_empty() {
            self.empty.set();
        }
        if self.was_full.take() {
            self.available.set();
            let callback = self.on_available.borrow().clone();
            if let Some(callback) = callback {
                call_back(|| callback());
            }
        }
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("size", &self.size)
            .field("members", &self.members.borrow().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Hub, sleep, yield_now};

    const BRIEF: Duration = Duration::from_millis(5);

    #[test]
    fn a_full_pool_refuses_tells_and_has_room_again() {
        let hub = Hub::new().unwrap();
        hub.block_on(|| {
            let pool = Pool::new(Some(2));
            let told = Rc::new(Cell::new(0));
            let count = Rc::clone(&told);
            pool.on_available(move || count.set(count.get() + 1));
            let gate = Rc::new(Event::new());
            for _ in 0..2 {
                let gate = Rc::clone(&gate);
                pool.spawn(move || gate.wait(None)).unwrap();
            }
            assert!(pool.full());
            assert!(matches!(pool.spawn(|| ()), Err(PoolError::Full)));
            assert_eq!(pool.wait_available(Some(BRIEF)), Ok(false));
            assert_eq!(pool.join(Some(BRIEF)), Ok(false));
            gate.set();
            assert_eq!(pool.wait_available(None), Ok(true));
            assert_eq!(pool.join(None), Ok(true));
            assert_eq!((told.get(), pool.free_count()), (1, 2), "told once, when it became free");
        })
        .unwrap();
    }

    #[test]
    fn kill_ends_the_started_and_the_others() {
        let hub = Hub::new().unwrap();
        hub.block_on(|| {
            let pool = Pool::new(None);
            let started = pool.spawn(|| sleep(Duration::from_secs(60))).unwrap();
            yield_now().unwrap();
            pool.spawn(|| panic!("never runs")).map(drop).unwrap();
            pool.kill();
            assert_eq!(pool.join(None), Ok(true));
            assert!(pool.is_empty());
            assert_eq!(started.join().unwrap(), Err(Interrupt::Exit));
        })
        .unwrap();
    }
}
