//! What Python was doing when its process came to a violent end: a traceback of all threads in the log.
//!
//! Python's `faulthandler` writes it at faults of the processor. SIGABRT is different: the arbiter sends it to a
//! worker without a heartbeat, and the host's own handler wants to know who sent it, which is lost when
//! `faulthandler` raises the signal again. So SIGABRT comes here, and has `faulthandler` write by way of a signal
//! that only means that; then the host's handler gets what it would have got.
//!
//! Where there is a Python hook `worker_abort` and the main thread is in Python, the hook comes in between: Python runs
//! it as it runs handlers of signals, between two instructions of its own, and the end comes after it. Where the
//! thread hangs in something that is not Python, it never does, and the arbiter's SIGKILL comes a second later.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use worker_api::Host;

use crate::function;
use crate::python::{
    Arguments, Definition, Function, GlobalRef, Object, PyResult, Python, is_attached,
};
use crate::runtime::PythonRuntime;

/// Turns it on in a new worker, whose host has installed its handlers.
pub(crate) fn report(
    runtime: &PythonRuntime,
    py: Python<'_>,
    hooks: Option<&GlobalRef>,
) -> PyResult<()> {
    let Some(host) = action_of_abort() else { return Ok(()) };
    let log = log_file(&runtime.host).unwrap_or_default();
    runtime.helper(
        py,
        "report_faults",
        [&py.text(&log)?, &py.number(i64::from(dump_signal()))?],
    )?;
    if let Some(hooks) = hooks {
        let age = Definition::new(Function { name: c"_age", entry: function!(age) });
        let end = Definition::new(Function { name: c"_abort", entry: function!(end) });
        let (age, end) = (age.bind(&py.none())?, end.bind(&py.none())?);
        let taken = runtime.helper(py, "take_abort", [&hooks.get(py), &age, &end])?;
        if taken.is_true()
            && let Some(python) = action_of_abort()
        {
            let _ = PYTHON.set(python);
        }
    }
    if HOST.set(host).is_ok() {
        take_abort();
    }
    Ok(())
}

/// Turns it on in the mold, for faults and for the SIGABRT that one gets that does not come to an end of loading.
pub(crate) fn report_in_mold(runtime: &PythonRuntime, py: Python<'_>) -> PyResult<()> {
    let log = log_file(&runtime.host).unwrap_or_default();
    runtime.helper(py, "report_faults", [&py.text(&log)?, &py.number(0)?]).map(drop)
}

/// Whether Python runs the hook `worker_abort`, or has run it.
pub(crate) fn is_handed_to_python() -> bool {
    HANDED.load(Ordering::Acquire)
}

/// The error log, where it is a file and not the standard stream.
fn log_file(host: &Host) -> Option<String> {
    let is_stream = host.setting_bool("capture_output");
    host.setting_text("errorlog").filter(|path| path != "-" && !is_stream)
}

/// What is done at SIGABRT.
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
    // for that, and calls handlers that were there before. Calls that it interrupts are not resumed, so that Python
    // comes to look for signals.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_abort as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGABRT, &raw const action, std::ptr::null_mut());
    }
}

extern "C" fn on_abort(signal: c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(host) = HOST.get() else { return };
    // SAFETY: raise is async-signal-safe. `faulthandler` has a handler for the signal, or this one would not be
    // installed; it has returned when `raise` returns.
    unsafe { libc::raise(dump_signal()) };
    // SAFETY: the kernel's description is valid here.
    let sender = unsafe { (*info).si_pid() };
    if ![0, std::process::id() as libc::pid_t].contains(&sender) {
        // Here and not only at the end, which a thread that hangs in C does not reach by way of Python's handler.
        PythonRuntime::get().host.on_signal(libc::SIGABRT);
    }
    if let Some(python) = PYTHON.get()
        && is_attached()
        && !HANDED.swap(true, Ordering::AcqRel)
    {
        // SAFETY: the kernel's description is valid here; this is the only place that writes, once.
        unsafe { (*INFO.0.get()).write(*info) };
        // SAFETY: Python's handler for this signal, with what the kernel gave: it makes a note of the signal.
        unsafe { act(python, signal, info, context) };
        return;
    }
    // SAFETY: the host's handler for this signal, with what the kernel gave.
    unsafe { act(host, signal, info, context) };
}

/// `_age()`, the worker's, which is not known yet when it is forked.
fn age<'py>(
    py: Python<'py>,
    _me: &Object<'py>,
    _arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    py.number(PythonRuntime::get().host.spawn_index() as i64)
}

/// `_abort()`, which Python calls after the hook: the end that the signal was for.
#[expect(clippy::unnecessary_wraps, reason = "functions for Python have this form")]
fn end<'py>(
    py: Python<'py>,
    _me: &Object<'py>,
    _arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    if let Some(host) = HOST.get().filter(|_| is_handed_to_python()) {
        // SAFETY: the host's handler for this signal. The description was written before the signal was handed to
        // Python, and nobody writes it any more.
        unsafe { act(host, libc::SIGABRT, (*INFO.0.get()).as_mut_ptr(), std::ptr::null_mut()) };
    }
    Ok(py.none())
}

/// Does what an action says, or what the system does by itself, which is the end.
///
/// # Safety
/// The action was installed for this signal, and `info` describes one.
unsafe fn act(
    action: &libc::sigaction,
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: a handler has one of the two forms, by its flags. raise and sigaction are async-signal-safe.
    unsafe {
        if action.sa_sigaction <= libc::SIG_IGN {
            libc::sigaction(signal, &raw const *action, std::ptr::null_mut());
            libc::raise(signal);
        } else if action.sa_flags & libc::SA_SIGINFO != 0 {
            let handler: Handler = std::mem::transmute(action.sa_sigaction);
            handler(signal, info, context);
        } else {
            let handler: extern "C" fn(c_int) = std::mem::transmute(action.sa_sigaction);
            handler(signal);
        }
    }
}

/// A signal that nobody else has a use for: the host takes the one behind it, valgrind the last.
fn dump_signal() -> c_int {
    libc::SIGRTMAX() - 2
}

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut libc::c_void);

/// What the host had installed.
static HOST: OnceLock<libc::sigaction> = OnceLock::new();
/// What Python had installed, where there is a hook.
static PYTHON: OnceLock<libc::sigaction> = OnceLock::new();
/// Set when the signal has been handed to Python.
static HANDED: AtomicBool = AtomicBool::new(false);
/// Who sent the signal that was handed to Python.
static INFO: Info = Info(UnsafeCell::new(MaybeUninit::uninit()));

struct Info(UnsafeCell<MaybeUninit<libc::siginfo_t>>);

// SAFETY: written once, by whoever sets `HANDED`, and read only by the code that Python runs for that.
unsafe impl Sync for Info {}
