//! What threads share of a connection: its ends, and the decision which of them responds to a request: the one that
//! serves it, or another one if that one hangs.
//!
//! A thread that hangs in the application cannot respond. The thread that ends the request sends a 500 instead
//! ([`crate::hung_request`]), unless the response's head has been sent. One atomic per connection decides which of the
//! two writes: the serving thread [takes](Wire::take) the wire before its first byte of the response, the other one
//! [claims](Wire::claim) it.
//!
//! ```text
//!   CLOSED ──open──> OPEN ──take──> TAKEN ──close──> CLOSED
//!                      └──claim──> CLAIMED ──> ANSWERED ──close──> CLOSED
//!                                     └──> RECORDED ──close──> CLOSED
//! ```
//!
//! A connection with TLS is responded to through its session, unless the serving thread is in the middle of one of
//! the session's operations: it reads or writes then, and its request fails by itself.

use std::cell::UnsafeCell;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;

use worker_api::{Address, RequestHead, TlsSession, Version};

use crate::ends::Ends;

/// What threads share of a connection, in one allocation.
#[derive(Debug)]
pub(crate) struct Wire {
    /// The connection's ends.
    pub(crate) ends: Ends,
    state: AtomicU8,
    request: UnsafeCell<StoredLine>,
    /// The TLS session that encrypts the response, if the connection has one.
    session: UnsafeCell<Option<TlsSession>>,
}

// SAFETY: `request` and `session` are written only while the state is `CLOSED`, by the connection's owner alone, and read
// only while it is `CLAIMED`, by the claim's owner. The atomic state orders the two.
unsafe impl Sync for Wire {}
// SAFETY: the pointers in `request` point to memory that any thread may read.
unsafe impl Send for Wire {}

/// The request as needed for a response and its log line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestLine<'a> {
    pub(crate) method: &'a [u8],
    pub(crate) target: &'a [u8],
    pub(crate) peer: Address<'a>,
    pub(crate) version: Version,
    pub(crate) received_ns: u64,
}

/// A [`RequestLine`] in less memory, because each connection has one. Points into the request's head: valid between
/// [`Wire::open`] and [`Wire::close`].
#[derive(Debug)]
struct StoredLine {
    method: *const u8,
    target: *const u8,
    received_ns: u64,
    target_len: u32,
    method_len: u16,
    version: Version,
}

/// The right to respond to a request on behalf of the thread that serves it.
pub(crate) struct Claim<'a> {
    wire: &'a Wire,
    /// The state that follows.
    next: u8,
}

/// Who has responded to a request that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Responder {
    /// The thread that serves it, or none.
    Server,
    /// Another thread.
    Other,
    /// Another thread, which has also written the request's line into the access log.
    OtherRecorded,
}

impl Wire {
    pub(crate) fn new(ends: Ends) -> Arc<Self> {
        let request = UnsafeCell::new(StoredLine::EMPTY);
        Arc::new(Self {
            ends,
            state: AtomicU8::new(CLOSED),
            request,
            session: UnsafeCell::new(None),
        })
    }

    /// Sets the connection's TLS session.
    ///
    /// # Safety
    /// Called by the connection's owner, before its first request.
    pub(crate) unsafe fn encrypt_with(&self, session: TlsSession) {
        // SAFETY: the state is `CLOSED`, so no other thread reads, and only the owner writes.
        unsafe { *self.session.get() = Some(session) };
    }

    /// Registers a request.
    ///
    /// # Safety
    /// Called by the connection's owner, which calls [`Wire::close`] before the head or what it borrows from is
    /// changed or freed.
    pub(crate) unsafe fn open(&self, head: &RequestHead<'_>) {
        if self.state.load(Ordering::Acquire) != CLOSED {
            return;
        }
        // SAFETY: the state is `CLOSED`, so no other thread reads, and only the owner writes.
        unsafe { *self.request.get() = StoredLine::new(head) };
        self.state.store(OPEN, Ordering::Release);
    }

    /// Reserves the wire for the serving thread, which is about to send the response's head. Returns whether
    /// it may.
    pub(crate) fn take(&self) -> bool {
        match self.state.compare_exchange(OPEN, TAKEN, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(state) => matches!(state, CLOSED | TAKEN),
        }
    }

    /// Ends the request.
    pub(crate) fn close(&self) -> Responder {
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state == CLAIMED {
                // Takes a system call or two on another thread.
                thread::yield_now();
                continue;
            }
            let closed =
                self.state.compare_exchange(state, CLOSED, Ordering::AcqRel, Ordering::Acquire);
            if closed.is_ok() {
                return match state {
                    ANSWERED => Responder::Other,
                    RECORDED => Responder::OtherRecorded,
                    _ => Responder::Server,
                };
            }
        }
    }

    /// Claims a request whose response has not begun.
    pub(crate) fn claim(&self) -> Option<Claim<'_>> {
        let claimed =
            self.state.compare_exchange(OPEN, CLAIMED, Ordering::AcqRel, Ordering::Acquire);
        claimed.ok().map(|_| Claim { wire: self, next: ANSWERED })
    }

    /// Claims a request that was responded to and is not over, to log it.
    pub(crate) fn claim_answered(&self) -> Option<Claim<'_>> {
        let claimed =
            self.state.compare_exchange(ANSWERED, CLAIMED, Ordering::AcqRel, Ordering::Acquire);
        claimed.ok().map(|_| Claim { wire: self, next: ANSWERED })
    }
}

impl Claim<'_> {
    /// Encrypts a response as the connection requires. Returns `None` if the serving thread is using the session.
    pub(crate) fn encrypted(&self, answer: Vec<u8>) -> Option<Vec<u8>> {
        // SAFETY: the state is `CLAIMED`: the session was written before `OPEN` was stored.
        match unsafe { &*self.wire.session.get() } {
            None => Some(answer),
            Some(session) => session.seal(&answer),
        }
    }

    /// Notes that the request's line is in the access log.
    pub(crate) fn set_recorded(&mut self) {
        self.next = RECORDED;
    }

    /// Returns the request.
    pub(crate) fn line(&self) -> RequestLine<'_> {
        // SAFETY: the state is `CLAIMED`: the request was written before `OPEN` was stored.
        let stored = unsafe { &*self.wire.request.get() };
        // SAFETY: what the pointers refer to lives until `close`, which waits while the state is `CLAIMED`.
        let (method, target) = unsafe {
            (
                slice::from_raw_parts(stored.method, stored.method_len.into()),
                slice::from_raw_parts(stored.target, stored.target_len as usize),
            )
        };
        RequestLine {
            method,
            target,
            peer: self.wire.ends.peer.address(),
            version: stored.version,
            received_ns: stored.received_ns,
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.wire.state.store(self.next, Ordering::Release);
    }
}

impl StoredLine {
    const EMPTY: Self = Self {
        method: NonNull::dangling().as_ptr(),
        target: NonNull::dangling().as_ptr(),
        received_ns: 0,
        target_len: 0,
        method_len: 0,
        version: Version::HTTP_11,
    };

    fn new(head: &RequestHead<'_>) -> Self {
        let (method, target) = (head.method.as_bytes(), head.target.as_slice());
        Self {
            method: method.as_ptr(),
            target: target.as_ptr(),
            received_ns: head.received_ns,
            // Longer ones are cut.
            target_len: u32::try_from(target.len()).unwrap_or(u32::MAX),
            method_len: u16::try_from(method.len()).unwrap_or(u16::MAX),
            version: head.version,
        }
    }
}

impl RequestLine<'_> {
    /// Returns whether the response has no body (RFC 9110 9.3.2).
    pub(crate) fn is_head_method(&self) -> bool {
        self.method == b"HEAD"
    }
}

/// The wires of a worker's connections, by descriptor.
#[derive(Debug, Default)]
pub(crate) struct Wires {
    open: Mutex<Vec<Option<Arc<Wire>>>>,
    /// Whether the process is about to end, by an abort or otherwise.
    ends: AtomicBool,
}

impl Wires {
    pub(crate) fn add(&self, fd: RawFd, wire: &Arc<Wire>) {
        let Ok(at) = usize::try_from(fd) else { return };
        let mut wires = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if wires.len() <= at {
            wires.resize(at + 1, None);
        }
        wires[at] = Some(Arc::clone(wire));
    }

    /// Removes the wire of a descriptor that is about to be closed.
    pub(crate) fn remove(&self, fd: RawFd) {
        let mut wires = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wire) = usize::try_from(fd).ok().and_then(|at| wires.get_mut(at)) {
            *wire = None;
        }
    }

    /// Locks the wires, by descriptor, for a process that is about to end: once, later calls return `None`.
    pub(crate) fn lock_for_end(&self) -> Option<MutexGuard<'_, Vec<Option<Arc<Wire>>>>> {
        let is_first = !self.ends.swap(true, Ordering::AcqRel);
        is_first.then(|| self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Like [`Wires::lock_for_end`], but does not wait, because it may run in a signal handler that has interrupted the
    /// owner of the lock.
    pub(crate) fn try_lock_for_end(&self) -> Option<MutexGuard<'_, Vec<Option<Arc<Wire>>>>> {
        if self.ends.swap(true, Ordering::AcqRel) {
            return None;
        }
        match self.open.try_lock() {
            Ok(wires) => Some(wires),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

const CLOSED: u8 = 0;
const OPEN: u8 = 1;
const TAKEN: u8 = 2;
const CLAIMED: u8 = 3;
const ANSWERED: u8 = 4;
const RECORDED: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ends::{Endpoint, Local};

    fn opened() -> Arc<Wire> {
        let local = Local { end: Endpoint::nowhere(), unix: true, private: false, proxied: false };
        let wire = Wire::new(Ends { peer: Endpoint::nowhere(), local: Arc::new(local) });
        wire.state.store(OPEN, Ordering::Release);
        wire
    }

    #[test]
    fn one_side_alone_responds_to_a_request() {
        let wire = opened();
        assert!(wire.take());
        assert!(wire.claim().is_none());
        assert_eq!(wire.close(), Responder::Server);
        let wire = opened();
        drop(wire.claim().unwrap());
        assert!(!wire.take());
        assert!(wire.claim().is_none());
        assert_eq!(wire.close(), Responder::Other);
        assert!(wire.claim().is_none(), "the request is over");
    }

    #[test]
    fn a_request_is_recorded_once() {
        let wire = opened();
        drop(wire.claim().unwrap());
        wire.claim_answered().unwrap().set_recorded();
        assert!(wire.claim_answered().is_none());
        assert!(!wire.take());
        assert_eq!(wire.close(), Responder::OtherRecorded);
    }

    #[test]
    fn the_end_of_a_request_waits_for_a_response_in_progress() {
        let wire = opened();
        let claim = wire.claim().unwrap();
        let owner = Arc::clone(&wire);
        let over = thread::spawn(move || owner.close());
        drop(claim);
        assert_eq!(over.join().unwrap(), Responder::Other);
    }
}
