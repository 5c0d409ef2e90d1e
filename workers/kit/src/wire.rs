//! Deciding which thread responds to a request: the one that serves it, or another one if that one hangs.
//!
//! A thread that hangs in the application cannot respond. The thread that ends the request
//! ([`crate::request_deadlines`], or the worker when it aborts) sends a 500 instead, unless the response's head
//! has been sent. One atomic per connection decides which of the two writes: the serving thread
//! [takes](Wire::take) the wire before its first byte of the response, the other one [claims](Wire::claim) it.
//!
//! ```text
//!   CLOSED ──open──> OPEN ──take──> TAKEN ──close──> CLOSED
//!                      └──claim──> CLAIMED ──> ANSWERED ──close──> CLOSED
//! ```
//!
//! A connection with TLS is responded to through its session, unless the serving thread is in the middle of one of
//! the session's operations: it reads or writes then, and its request fails by itself.

use std::cell::UnsafeCell;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError};
use std::thread;

use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use worker_api::abi::std_types::{RSlice, RStr};
use worker_api::{Address, RequestHead, Version};

use crate::clock::now_ns;
use crate::context::{ServerContext, record_line};
use crate::tls::Session;

/// Decides which thread responds to the request of a connection.
#[derive(Debug)]
pub(crate) struct Wire {
    state: AtomicU8,
    request: UnsafeCell<RequestLine>,
    /// The TLS session that encrypts the response, if the connection has one.
    session: OnceLock<Session>,
}

// SAFETY: `request` is written only while the state is `CLOSED`, by the connection's owner alone, and read only
// while it is `CLAIMED`, by the claim's owner. The atomic state orders the two.
unsafe impl Sync for Wire {}
// SAFETY: the references in `request` point to memory that any thread may read.
unsafe impl Send for Wire {}

/// The request as needed for a response and its log line. Borrows from the request's head: valid between
/// [`Wire::open`] and [`Wire::close`].
#[derive(Debug, Clone, Copy)]
struct RequestLine {
    method: RStr<'static>,
    target: RSlice<'static, u8>,
    peer: Address<'static>,
    version: Version,
    received_ns: u64,
    is_head_method: bool,
}

/// The right to respond to a request on behalf of the thread that serves it.
pub(crate) struct Claim<'a>(&'a Wire);

impl Wire {
    pub(crate) fn new() -> Arc<Self> {
        let request = UnsafeCell::new(RequestLine::EMPTY);
        Arc::new(Self { state: AtomicU8::new(CLOSED), request, session: OnceLock::new() })
    }

    /// Sets the connection's TLS session: once, before its first request.
    pub(crate) fn encrypt_with(&self, session: Session) {
        let _ = self.session.set(session);
    }

    /// Registers a request.
    ///
    /// # Safety
    /// Called by the connection's owner, which calls [`Wire::close`] before the head or what it borrows from is
    /// changed or freed.
    pub(crate) unsafe fn open(&self, head: &RequestHead<'_>, is_head_method: bool) {
        if self.state.load(Ordering::Acquire) != CLOSED {
            return;
        }
        // SAFETY: the caller guarantees that the head outlives the use of `RequestLine`, which ends with
        // `close`.
        let head: &RequestHead<'static> = unsafe { &*std::ptr::from_ref(head).cast() };
        let line = RequestLine {
            method: head.method,
            target: head.target,
            peer: head.peer,
            version: head.version,
            received_ns: head.received_ns,
            is_head_method,
        };
        // SAFETY: the state is `CLOSED`, so no other thread reads, and only the owner writes.
        unsafe { *self.request.get() = line };
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

    /// Ends the request. Returns whether another thread has responded to it.
    pub(crate) fn close(&self) -> bool {
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
                return state == ANSWERED;
            }
        }
    }

    /// Claims a request whose response has not begun.
    pub(crate) fn claim(&self) -> Option<Claim<'_>> {
        let claimed =
            self.state.compare_exchange(OPEN, CLAIMED, Ordering::AcqRel, Ordering::Acquire);
        claimed.ok().map(|_| Claim(self))
    }

    /// Claims a request that was responded to and is not over, to log it.
    fn claim_answered(&self) -> Option<Claim<'_>> {
        let claimed =
            self.state.compare_exchange(ANSWERED, CLAIMED, Ordering::AcqRel, Ordering::Acquire);
        claimed.ok().map(|_| Claim(self))
    }
}

impl Claim<'_> {
    /// Sends a 500 that closes the connection, without waiting. Returns whether the kernel accepted it.
    pub(crate) fn answer(&self, context: &ServerContext, fd: RawFd) -> bool {
        let line = self.line();
        let answer = context.error_response(line.version, line.is_head_method, STATUS, None);
        let Some(answer) = self.encrypted(answer) else { return false };
        // The kernel resets a connection that is closed with unread bytes, and the client would lose the
        // response.
        let mut scratch = [0; 4096];
        for _ in 0..DISCARDS_MAX {
            if !matches!(recv(fd, &mut scratch, MsgFlags::MSG_DONTWAIT), Ok(1..)) {
                break;
            }
        }
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let sent = send(fd, &answer, flags).is_ok_and(|count| count == answer.len());
        // Fails if the client has already disconnected.
        let _ = shutdown(fd, Shutdown::Write);
        sent
    }

    fn encrypted(&self, answer: Vec<u8>) -> Option<Vec<u8>> {
        match self.0.session.get() {
            None => Some(answer),
            Some(session) => session.seal(&answer),
        }
    }

    /// Writes the request's line into the access log, for a process that ends before the exchange does it.
    fn record(&self, context: &ServerContext) {
        let line = self.line();
        let version = line.version.name().as_bytes();
        let text = [line.method.as_bytes(), line.target.as_slice(), version].join(&b' ');
        let duration_ns = now_ns().saturating_sub(line.received_ns);
        record_line(&context.host, &text, line.peer, STATUS, duration_ns);
    }

    fn line(&self) -> RequestLine {
        // SAFETY: the state is `CLAIMED`: the request was written before `OPEN` was stored, and what it
        // borrows from lives until `close`, which waits while the state is `CLAIMED`.
        unsafe { *self.0.request.get() }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.state.store(ANSWERED, Ordering::Release);
    }
}

impl RequestLine {
    const EMPTY: Self = Self {
        method: RStr::from_str(""),
        target: RSlice::EMPTY,
        peer: Address { host: RStr::from_str(""), port: 0 },
        version: Version::HTTP_11,
        received_ns: 0,
        is_head_method: false,
    };
}

/// The wires of a worker's connections, by descriptor.
#[derive(Debug, Default)]
pub(crate) struct Wires {
    open: Mutex<Vec<Option<Arc<Wire>>>>,
    /// Whether the process is about to abort.
    aborts: AtomicBool,
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

    /// Responds to each request whose response has not begun, and logs those and the ones that were responded
    /// to before: once, for a process that is about to abort. Does not wait, because it may run in a signal
    /// handler that has interrupted the owner of the lock.
    pub(crate) fn answer_all(&self, context: &ServerContext) {
        if self.aborts.swap(true, Ordering::AcqRel) {
            return;
        }
        let wires = match self.open.try_lock() {
            Ok(wires) => wires,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let mut answered = Vec::new();
        // Clients come first: the log may be what hangs.
        for (fd, wire) in wires.iter().enumerate() {
            let Some(wire) = wire else { continue };
            if let Some(claim) = wire.claim() {
                if claim.answer(context, fd as RawFd) {
                    answered.push(claim);
                }
            } else {
                answered.extend(wire.claim_answered());
            }
        }
        for claim in &answered {
            claim.record(context);
        }
    }
}

/// The status of the response to a request that hangs.
pub(crate) const STATUS: u16 = 500;
/// The maximum number of 4 KiB reads that discard a request's body before the response.
const DISCARDS_MAX: usize = 64;

const CLOSED: u8 = 0;
const OPEN: u8 = 1;
const TAKEN: u8 = 2;
const CLAIMED: u8 = 3;
const ANSWERED: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Arc<Wire> {
        let wire = Wire::new();
        wire.state.store(OPEN, Ordering::Release);
        wire
    }

    #[test]
    fn one_side_alone_responds_to_a_request() {
        let wire = opened();
        assert!(wire.take());
        assert!(wire.claim().is_none());
        assert!(!wire.close());
        let wire = opened();
        drop(wire.claim().unwrap());
        assert!(!wire.take());
        assert!(wire.claim().is_none());
        assert!(wire.close());
        assert!(wire.claim().is_none(), "the request is over");
    }

    #[test]
    fn the_end_of_a_request_waits_for_a_response_in_progress() {
        let wire = opened();
        let claim = wire.claim().unwrap();
        let owner = Arc::clone(&wire);
        let over = thread::spawn(move || owner.close());
        drop(claim);
        assert!(over.join().unwrap());
    }
}
