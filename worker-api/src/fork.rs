//! Forks that an application makes in a worker: how a child is kept from being taken for the worker.
//!
//! A child of fork(2) has a copy of everything that the worker has, and shares its sockets, its epoll instances and
//! its scoreboard slot. It may run the application's code for as long as it likes, but nothing of the server's: one
//! `epoll_ctl` there would change what the worker waits for. So each library that holds such things asks
//! [`is_child`] before it touches them, and whatever calls application code ends the process when that code returns in
//! a child ([`end_if_child`]).

use std::ffi::c_int;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

/// Notes forks of this process from now on. In a worker, which is itself a fork of the mold, at its start.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: both handlers only store to an atomic. Where there is no memory for them, forks are not noted.
        unsafe { pthread_atfork(None, Some(in_parent), Some(in_child)) };
    });
}

/// Whether this process was forked by a worker's application. Costs one load.
#[inline]
pub fn is_child() -> bool {
    IS_CHILD.load(Ordering::Relaxed)
}

/// Whether this process has been forked: a child may hold copies of its descriptors.
#[inline]
pub fn has_forked() -> bool {
    HAS_FORKED.load(Ordering::Relaxed)
}

/// Ends a child with status 0, without destructors and without exit handlers: for where application code returns.
#[inline]
pub fn end_if_child() {
    if is_child() {
        end(0);
    }
}

/// Ends the process at once, without destructors and without exit handlers.
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
