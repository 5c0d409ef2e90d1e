//! What a child that the application forks in a worker gives up before any of its code runs: the server's signal
//! handlers, and its copies of the listening sockets, which would otherwise keep the port open after the server's end.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use nix::libc;
use worker_api::fork;

use super::signals;
use crate::listener::Listener;

/// Notes forks of this worker from now on.
pub(super) fn watch(listeners: &[Arc<Listener>]) -> nix::Result<()> {
    LISTENERS.get_or_init(|| listeners.iter().map(|listener| listener.descriptor()).collect());
    fork::watch();
    // SAFETY: the handler is async-signal-safe: atomics, close and sigaction.
    Errno::result(unsafe { libc::pthread_atfork(None, None, Some(in_child)) })
        .and_then(|error| if error == 0 { Ok(()) } else { Err(Errno::from_raw(error)) })
}

/// The worker has closed its listeners: their numbers may belong to other files from now on.
pub(super) fn listeners_closed() {
    CLOSED.store(true, Ordering::Release);
}

unsafe extern "C" fn in_child() {
    signals::release();
    if CLOSED.load(Ordering::Acquire) {
        return;
    }
    for &listener in LISTENERS.get().into_iter().flatten() {
        // SAFETY: the owners of these descriptors are objects of the server, of which nothing runs in this process.
        unsafe { libc::close(listener) };
    }
}

static LISTENERS: OnceLock<Vec<RawFd>> = OnceLock::new();
static CLOSED: AtomicBool = AtomicBool::new(false);
