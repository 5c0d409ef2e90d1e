//! What a child that the application forks in a worker releases before any of its code runs: the server's signal
//! handlers, and its copies of the listening sockets, which would otherwise keep the port open after the server
//! has stopped.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use nix::libc;
use worker_api::fork;

use super::signal_handlers;
use crate::listener::Listener;

/// Handles forks of this worker from now on.
pub(super) fn watch(listeners: &[Arc<Listener>]) -> nix::Result<()> {
    LISTENERS.get_or_init(|| listeners.iter().map(|listener| listener.descriptor()).collect());
    fork::watch();
    // SAFETY: the handler is async-signal-safe: atomics, close and sigaction.
    Errno::result(unsafe { libc::pthread_atfork(None, None, Some(in_child)) })
        .and_then(|error| if error == 0 { Ok(()) } else { Err(Errno::from_raw(error)) })
}

/// Records that the worker has closed its listeners: their numbers may be reused for other files.
pub(super) fn listeners_closed() {
    CLOSED.store(true, Ordering::Release);
}

unsafe extern "C" fn in_child() {
    signal_handlers::release();
    if CLOSED.load(Ordering::Acquire) {
        return;
    }
    for &listener in LISTENERS.get().into_iter().flatten() {
        // SAFETY: these descriptors are owned by objects of the server, none of whose code runs in this
        // process.
        unsafe { libc::close(listener) };
    }
}

static LISTENERS: OnceLock<Vec<RawFd>> = OnceLock::new();
static CLOSED: AtomicBool = AtomicBool::new(false);
