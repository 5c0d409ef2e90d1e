//! Detects processes that an application forks from a worker.
//!
//! A child of fork(2) shares the worker's sockets, epoll instances and scoreboard slot. It may run application code but
//! no server code: a single `epoll_ctl` would change what the worker waits for. A library that owns such resources calls
//! [`is_child`] before it uses them, and code that calls the application ends the process if the call returns in a child
//! ([`end_if_child`]).

use std::ffi::c_int;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

/// Registers the fork handlers. Call it when a worker starts; the worker itself, a fork of the mold, is not a child.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: both handlers are functions of this library, which is never unloaded, and only store to an atomic. If
        // the registration fails for lack of memory, forks are not detected.
        unsafe { pthread_atfork(None, Some(in_parent), Some(in_child)) };
    });
}

/// Returns whether this process was forked by a worker's application. Costs one load.
#[inline]
pub fn is_child() -> bool {
    IS_CHILD.load(Ordering::Relaxed)
}

/// Returns whether this process has forked, so that a child may hold copies of its descriptors.
#[inline]
pub fn has_forked() -> bool {
    HAS_FORKED.load(Ordering::Relaxed)
}

/// Exits with status 0, without destructors and exit handlers, if this is a child. Call it where application code
/// returns.
#[inline]
pub fn end_if_child() {
    if is_child() {
        end(0);
    }
}

/// Exits at once, without destructors and exit handlers.
pub fn end(status: i32) -> ! {
    // SAFETY: _exit takes any status and does not return.
    unsafe { _exit(status) }
}

extern "C" fn in_parent() {
    HAS_FORKED.store(true, Ordering::Relaxed);
}

extern "C" fn in_child() {
    IS_CHILD.store(true, Ordering::Relaxed);
}

static IS_CHILD: AtomicBool = AtomicBool::new(false);
static HAS_FORKED: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    fn pthread_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> c_int;
    fn _exit(status: c_int) -> !;
}
