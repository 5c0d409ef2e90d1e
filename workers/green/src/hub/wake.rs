//! Waking the hub from other threads: [`Handle`] runs something on the hub, [`Waker`] makes one
//! greenlet ready. These are the only types of the crate that may leave the hub's thread.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::pthread::{Pthread, pthread_self};

type Call = Box<dyn FnOnce() + Send>;

/// A reference to a hub which any thread may hold.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Runs `call` on the hub's thread, outside any greenlet, in the hub's next turn. It must not
    /// block; it may spawn. If the hub is gone, nothing happens.
    pub fn call(&self, call: impl FnOnce() + Send + 'static) {
        self.shared.post(|inbox| inbox.calls.push(Box::new(call)));
    }

    /// Makes the hub turn once, even if it has nothing to do.
    pub fn wake(&self) {
        self.shared.notify();
    }
}

/// Makes one greenlet ready, from any thread. Waking a greenlet that has ended does nothing.
///
/// A wake-up is not counted and is not lost: a greenlet that was woken before it calls
/// [`park`](crate::park) does not wait there.
#[derive(Debug, Clone)]
pub struct Waker {
    shared: Arc<Shared>,
    greenlet: u64,
}

impl Waker {
    pub(crate) fn new(shared: Arc<Shared>, greenlet: u64) -> Self {
        Self { shared, greenlet }
    }

    /// Makes the greenlet ready.
    pub fn wake(&self) {
        self.shared.post(|inbox| inbox.wakes.push(self.greenlet));
    }
}

impl std::task::Wake for Waker {
    fn wake(self: Arc<Self>) {
        Self::wake(&self);
    }
}

/// What the hub and the other threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    eventfd: EventFd,
    inbox: Mutex<Inbox>,
    /// The inbox has something that the hub has not looked at.
    signalled: AtomicBool,
    /// The hub is inside a turn: it looks at `signalled` before it waits again.
    turning: AtomicBool,
    hub_thread: Pthread,
}

#[derive(Default)]
pub(crate) struct Inbox {
    pub(crate) wakes: Vec<u64>,
    pub(crate) calls: Vec<Call>,
    /// The hub is gone: nobody takes anything out any more.
    closed: bool,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("wakes", &self.wakes).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new() -> nix::Result<Self> {
        Ok(Self {
            eventfd: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            inbox: Mutex::default(),
            signalled: AtomicBool::new(false),
            turning: AtomicBool::new(false),
            hub_thread: pthread_self(),
        })
    }

    pub(crate) fn eventfd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    fn post(&self, put: impl FnOnce(&mut Inbox)) {
        let mut inbox = self.lock();
        if inbox.closed {
            return;
        }
        put(&mut inbox);
        drop(inbox);
        self.notify();
    }

    pub(crate) fn close(&self) {
        let closed = Inbox { closed: true, ..Inbox::default() };
        let left = std::mem::replace(&mut *self.lock(), closed);
        // After the lock was given back: what it holds may post while it is dropped.
        drop(left);
    }

    /// Makes the hub look at its inbox. Within the hub's own turn that needs no system call.
    pub(crate) fn notify(&self) {
        if self.signalled.swap(true, Ordering::AcqRel) {
            return;
        }
        if !(self.hub_thread == pthread_self() && self.turning.load(Ordering::Relaxed)) {
            self.kick();
        }
    }

    /// Makes the epoll descriptor readable, whatever was signalled before.
    pub(crate) fn kick(&self) {
        // The counter cannot overflow: 2^64 wake-ups do not happen in a process's life.
        let _ = self.eventfd.write(1);
    }

    pub(crate) fn set_turning(&self, turning: bool) {
        self.turning.store(turning, Ordering::Relaxed);
    }

    pub(crate) fn is_signalled(&self) -> bool {
        self.signalled.load(Ordering::Acquire)
    }

    /// Takes what has arrived. The flag is lowered first: what arrives later raises it again.
    pub(crate) fn take(&self) -> Inbox {
        self.signalled.store(false, Ordering::SeqCst);
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
