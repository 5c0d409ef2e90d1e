//! Waking the hub from other threads: [`Handle`] runs a call on the hub, [`Waker`] makes a greenlet ready. These
//! are the only types of the crate that may leave the hub's thread.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::pthread::{Pthread, pthread_self};

type Call = Box<dyn FnOnce() + Send>;

/// A reference to a hub for any thread.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Runs `call` on the hub's thread, outside any greenlet, in the hub's next turn. It must not block; it
    /// may spawn. If the hub no longer exists, nothing happens.
    pub fn call(&self, call: impl FnOnce() + Send + 'static) {
        self.shared.post(|inbox| inbox.calls.push(Box::new(call)));
    }

    /// Makes the hub run a turn, even if it has nothing to do.
    pub fn wake(&self) {
        self.shared.notify();
    }
}

/// Makes one greenlet ready, from any thread. Waking a finished greenlet has no effect.
///
/// Wake-ups are neither counted nor lost: a greenlet that was woken before it calls [`park`](crate::park) does
/// not wait there.
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

/// State shared by the hub and other threads.
#[derive(Debug)]
pub(crate) struct Shared {
    eventfd: EventFd,
    inbox: Mutex<Inbox>,
    /// The inbox has an entry that the hub has not seen.
    signalled: AtomicBool,
    /// The hub is inside a turn: it checks `signalled` before it waits again.
    turning: AtomicBool,
    hub_thread: Pthread,
}

#[derive(Default)]
pub(crate) struct Inbox {
    pub(crate) wakes: Vec<u64>,
    pub(crate) calls: Vec<Call>,
    /// The hub no longer exists: the inbox is not read any more.
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
        // After the lock is released: what it holds may post while it is dropped.
        drop(left);
    }

    /// Makes the hub check its inbox. Within the hub's own turn that needs no system call.
    pub(crate) fn notify(&self) {
        if self.signalled.swap(true, Ordering::AcqRel) {
            return;
        }
        if !(self.hub_thread == pthread_self() && self.turning.load(Ordering::Relaxed)) {
            self.kick();
        }
    }

    /// Makes the epoll descriptor readable, whether or not it was signalled before.
    pub(crate) fn kick(&self) {
        // The counter cannot overflow: a process does not make 2^64 wake-ups.
        let _ = self.eventfd.write(1);
    }

    pub(crate) fn set_turning(&self, turning: bool) {
        self.turning.store(turning, Ordering::Relaxed);
    }

    pub(crate) fn is_signalled(&self) -> bool {
        self.signalled.load(Ordering::Acquire)
    }

    /// Takes the entries of the inbox. The flag is cleared first: later entries set it again.
    pub(crate) fn take(&self) -> Inbox {
        self.signalled.store(false, Ordering::SeqCst);
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
