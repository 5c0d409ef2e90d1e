//! Python tracebacks of a process that crashes or is aborted: those of all threads, in the log.
//!
//! Python's `faulthandler` writes them when the processor reports a fault. SIGABRT needs more: the arbiter sends
//! it to a worker without a heartbeat, and the action of the host's handler depends on the sender. That
//! information is lost if `faulthandler` handles SIGABRT, because it raises the signal again. This module
//! therefore handles SIGABRT itself: it raises a private signal for which `faulthandler` writes the tracebacks,
//! and then calls the host's handler with the original information.
//!
//! If there is a Python hook `worker_abort` and the main thread is attached to Python, Python handles the signal
//! in between: it runs the hook as it runs any signal handler, between two bytecode instructions, and the hook's
//! wrapper then calls the host's handler. If the thread hangs in C code, Python never runs it, and the arbiter
//! sends SIGKILL a second later.
//!
//! What the signal handler uses is in statics: the kernel calls it with the signal and nothing of this library.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use worker_api::Host;

use crate::Interpreter;
use crate::method;
use crate::server::Server;
use crate::{Arguments, GlobalRef, Method, Object, PyResult, Python, is_attached};

/// Functions for the hook `worker_abort`.
pub const METHODS: &[Method<Server>] = &[
    Method { name: c"_age", entry: method!(age) },
    Method { name: c"_abort", entry: method!(end) },
];

/// Reports faults in a new worker, whose host has installed its handlers.
pub fn report(
    interpreter: &Interpreter,
    py: Python<'_>,
    hooks: Option<&GlobalRef>,
) -> PyResult<()> {
    let Some(action) = action_of_abort() else { return Ok(()) };
    let log = log_file(&interpreter.host).unwrap_or_default();
    interpreter.helper(
        py,
        "report_faults",
        [&py.text(&log)?, &py.number(i64::from(dump_signal()))?],
    )?;
    let mut python = None;
    if let Some(hooks) = hooks {
        let server = interpreter.server.get(py);
        let (age, end) = (server.attr_named("_age")?, server.attr_named("_abort")?);
        let handled = interpreter.helper(py, "handle_abort", [&hooks.get(py), &age, &end])?;
        python = action_of_abort().filter(|_| handled.is_true());
    }
    let handler = AbortHandler { action, python, host: interpreter.host.clone() };
    if HANDLER.set(handler).is_ok() {
        install_handler();
    }
    Ok(())
}

/// Reports faults in the mold, including the SIGABRT for a mold that takes too long to load.
pub fn report_in_mold(interpreter: &Interpreter, py: Python<'_>) -> PyResult<()> {
    let log = log_file(&interpreter.host).unwrap_or_default();
    interpreter.helper(py, "report_faults", [&py.text(&log)?, &py.number(0)?]).map(drop)
}

/// Returns whether SIGABRT was handed to Python, for the hook `worker_abort`.
pub fn is_handed_to_python() -> bool {
    HANDED.load(Ordering::Acquire)
}

/// Returns the path of the error log; `None` if it is the standard error stream.
fn log_file(host: &Host) -> Option<String> {
    let is_stream = host.setting_bool("capture_output");
    host.setting_text("errorlog").filter(|path| path != "-" && !is_stream)
}

/// Returns the action installed for SIGABRT.
fn action_of_abort() -> Option<libc::sigaction> {
    // SAFETY: a zeroed sigaction is a valid one to be written to; no handler is changed.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let status = libc::sigaction(libc::SIGABRT, std::ptr::null(), &raw mut action);
        (status == 0).then_some(action)
    }
}

fn install_handler() {
    // SAFETY: the handler is async-signal-safe: it raises a signal that `faulthandler` handles, whose handler
    // is written for that, has the host perform its own action for the signal, and calls handlers that were
    // installed before. Without SA_RESTART, interrupted system calls return, so that Python checks for signals.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_abort as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGABRT, &raw const action, std::ptr::null_mut());
    }
}

extern "C" fn on_abort(signal: c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(handler) = HANDLER.get() else { return };
    // SAFETY: raise is async-signal-safe. `faulthandler` has installed a handler for the signal, otherwise
    // this handler would not be installed; it has returned when `raise` returns.
    unsafe { libc::raise(dump_signal()) };
    // SAFETY: the kernel's siginfo is valid during the handler.
    let sender = unsafe { (*info).si_pid() };
    if ![0, std::process::id() as libc::pid_t].contains(&sender) {
        // Also here, not only in `end`: if a thread hangs in C, Python's handler does not run.
        handler.host.on_signal(libc::SIGABRT);
    }
    if let Some(python) = &handler.python
        && is_attached()
        && !HANDED.swap(true, Ordering::AcqRel)
    {
        // SAFETY: as above; this is the only write, and `HANDED` lets it happen once.
        unsafe { (*INFO.0.get()).write(*info) };
        // SAFETY: Python's handler for this signal, with the kernel's arguments. It only records the
        // signal.
        unsafe { perform(python, signal, info, context) };
        return;
    }
    // SAFETY: the host's handler for this signal, with the kernel's arguments.
    unsafe { perform(&handler.action, signal, info, context) };
}

/// `_age()`: the spawn index of this worker, which is not yet known when the process is forked.
fn age<'py>(
    py: Python<'py>,
    server: &Server,
    _arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    py.number(server.host.spawn_index() as i64)
}

/// `_abort()`: calls the host's handler; Python calls this after the hook.
#[expect(clippy::unnecessary_wraps, reason = "functions for Python have this form")]
fn end<'py>(
    py: Python<'py>,
    _server: &Server,
    _arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    if let Some(handler) = HANDLER.get().filter(|_| is_handed_to_python()) {
        // SAFETY: the host's handler for this signal. The siginfo was written before the signal was handed
        // to Python, and is not written again.
        unsafe {
            let info = (*INFO.0.get()).as_mut_ptr();
            perform(&handler.action, libc::SIGABRT, info, std::ptr::null_mut());
        }
    }
    Ok(py.none())
}

/// Performs an action: calls its handler, or restores the default and raises the signal, which ends the process.
///
/// # Safety
/// The action was installed for this signal, and `info` points to a siginfo of it.
unsafe fn perform(
    action: &libc::sigaction,
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the flags tell which of the two forms the handler has. raise and sigaction are
    // async-signal-safe.
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

/// Returns a signal that is otherwise unused: the host uses SIGRTMAX - 1, valgrind SIGRTMAX.
fn dump_signal() -> c_int {
    libc::SIGRTMAX() - 2
}

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut libc::c_void);

/// What the handler of this module uses.
struct AbortHandler {
    /// The host's action for SIGABRT.
    action: libc::sigaction,
    /// Python's action for SIGABRT, if there is a hook.
    python: Option<libc::sigaction>,
    /// Services of the host.
    host: Host,
}

static HANDLER: OnceLock<AbortHandler> = OnceLock::new();
/// Whether the signal has been handed to Python.
static HANDED: AtomicBool = AtomicBool::new(false);
/// The siginfo of the signal that was handed to Python.
static INFO: Info = Info(UnsafeCell::new(MaybeUninit::uninit()));

struct Info(UnsafeCell<MaybeUninit<libc::siginfo_t>>);

// SAFETY: written once, by the thread that sets `HANDED`, and read only by the code that Python runs afterwards.
unsafe impl Sync for Info {}
