//! What Python was doing when its process came to a violent end: a traceback of all threads in the log.
//!
//! Python's `faulthandler` writes it at faults of the processor. SIGABRT is different: the arbiter sends it to a
//! worker without a heartbeat, and the host's own handler wants to know who sent it, which is lost when
//! `faulthandler` raises the signal again. So SIGABRT comes here, and has `faulthandler` write by way of a signal
//! that only means that; then the host's handler gets what it would have got.

use std::ffi::c_int;
use std::sync::OnceLock;

use worker_api::Host;

use crate::bridge::Bridge;
use crate::python::{PyResult, Python};

/// Turns it on in a new worker, whose host has installed its handlers.
pub(crate) fn report(bridge: &Bridge, py: Python<'_>) -> PyResult<()> {
    let Some(host) = action_of_abort() else { return Ok(()) };
    let log = log_file(&bridge.host).unwrap_or_default();
    bridge.helper(py, "report_faults", [&py.text(&log)?, &py.number(i64::from(dump_signal()))?])?;
    if HOST.set(host).is_ok() {
        take_abort();
    }
    Ok(())
}

/// The error log, where it is a file and not the standard stream.
fn log_file(host: &Host) -> Option<String> {
    let is_stream = host.setting_bool("capture_output");
    host.setting_text("errorlog").filter(|path| path != "-" && !is_stream)
}

/// What the host does at SIGABRT.
fn action_of_abort() -> Option<libc::sigaction> {
    // SAFETY: a zeroed sigaction is a valid one to be written to; no handler is changed.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let asked = libc::sigaction(libc::SIGABRT, std::ptr::null(), &raw mut action);
        (asked == 0).then_some(action)
    }
}

fn take_abort() {
    // SAFETY: the handler is async-signal-safe: it raises a signal whose handler is `faulthandler`'s, which is made
    // for that, and calls the handler that was there before.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_abort as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGABRT, &raw const action, std::ptr::null_mut());
    }
}

extern "C" fn on_abort(signal: c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(host) = HOST.get() else { return };
    // SAFETY: raise and sigaction are async-signal-safe. `faulthandler` has a handler for the first signal, or this
    // one would not be installed; it has returned when `raise` returns. What is called is the function that the host
    // had installed for this signal, in this form, with what the kernel gave.
    unsafe {
        libc::raise(dump_signal());
        libc::sigaction(signal, &raw const *host, std::ptr::null_mut());
        if host.sa_flags & libc::SA_SIGINFO != 0 && host.sa_sigaction > libc::SIG_IGN {
            let handler: Handler = std::mem::transmute(host.sa_sigaction);
            handler(signal, info, context);
        } else {
            libc::raise(signal);
        }
    }
}

/// A signal that nobody else has a use for: the host takes the last one.
fn dump_signal() -> c_int {
    libc::SIGRTMAX() - 1
}

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut libc::c_void);

/// What the host had installed.
static HOST: OnceLock<libc::sigaction> = OnceLock::new();
