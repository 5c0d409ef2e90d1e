//! The application's effects on its process: the Rust side of `process.py`.
//!
//! The kernel's handlers for the server's signals remain the host's; Python's handler table shows what the
//! application expects. When Python code changes that table, CPython also changes the kernel's handler, so the
//! host's is installed again: chained to the application's in a worker ([`worker_api::Host::reclaim_signals`]),
//! alone in the mold.

use std::ffi::c_int;
use std::ptr;
use std::sync::OnceLock;

use worker_api::fork;

use crate::function;
use crate::python::{
    Arguments, Function, GlobalRef, Object, PyErrSet, PyResult, Python, attach, required,
};
use crate::runtime::PythonRuntime;

/// Creates the module `_jimu_process`, which imports `jimu`.
pub(crate) fn module(py: Python<'_>) -> PyResult<Object<'_>> {
    let natives = [
        Function { name: c"_on_signal", entry: function!(on_signal) },
        Function { name: c"_reclaim", entry: function!(reclaim) },
        Function { name: c"_stop", entry: function!(stop) },
    ];
    py.module("_jimu_process", include_str!("process.py"), &natives)
}

/// Installs the server's handlers in the mold.
pub(crate) fn install(py: Python<'_>, module: &GlobalRef) -> PyResult<()> {
    let kept = *KEPT.get_or_init(actions);
    let installed = module.get(py).call_method("install", []);
    restore(&kept);
    installed.map(drop)
}

/// Takes the server's signals back in the mold after it has loaded the application.
pub(crate) fn reset_mold(py: Python<'_>, module: &GlobalRef) -> PyResult<()> {
    let reset = module.get(py).call_method("reset", []);
    if let Some(kept) = KEPT.get() {
        restore(kept);
    }
    reset.map(drop)
}

/// Like [`reset_mold`], in a newly forked worker, whose host has installed its handlers.
pub(crate) fn reset_worker(py: Python<'_>, module: &GlobalRef) -> PyResult<()> {
    fork::watch();
    let kept = actions();
    let reset = module.get(py).call_method("reset", []);
    restore(&kept);
    reset.map(drop)
}

/// Makes signals with Python handlers wake the main thread, and detects forks. Called in a worker.
pub(crate) fn start_worker(py: Python<'_>, module: &GlobalRef, wakeup: c_int) -> PyResult<()> {
    module.get(py).call_method("start_worker", [&py.number(wakeup.into())?]).map(drop)
}

/// Runs Python's handlers of pending signals. Called on the main thread.
pub(crate) fn run_handlers(module: &GlobalRef) {
    attach(|py| {
        if let Err(raised) = py.check_signals() {
            let exception = raised.take(py);
            if let Err(raised) = module.get(py).call_method("handler_failed", [&exception]) {
                raised.clear(py);
            }
        }
    });
}

/// Ends a process that the application has forked, after the application's code has returned or raised `raised`.
pub(crate) fn end_child(runtime: &PythonRuntime, py: Python<'_>, raised: Option<PyErrSet>) -> ! {
    let exception = raised.map_or_else(|| py.none(), |raised| raised.take(py));
    let waits = py.truth(runtime.guest.is_none());
    let ended = waits
        .and_then(|waits| runtime.process.get(py).call_method("end_child", [&exception, &waits]));
    // `end_child` does not return.
    drop(ended);
    fork::end(1)
}

/// `_on_signal(number)`: performs the server's action for a signal.
fn on_signal<'py>(
    py: Python<'py>,
    _me: &Object<'py>,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [number] = arguments.take(["number"])?;
    let number = required(py, number, "number")?.as_number()?;
    PythonRuntime::get().host.on_signal(number as i32);
    Ok(py.none())
}

/// `_reclaim()`: installs the host's handler again, chained to the application's new one.
#[expect(clippy::unnecessary_wraps, reason = "functions for Python have this form")]
fn reclaim<'py>(
    py: Python<'py>,
    _me: &Object<'py>,
    _arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    PythonRuntime::get().host.reclaim_signals();
    Ok(py.none())
}

/// `_stop()`: stops the worker after its requests.
#[expect(clippy::unnecessary_wraps, reason = "functions for Python have this form")]
fn stop<'py>(
    py: Python<'py>,
    _me: &Object<'py>,
    _arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    PythonRuntime::get().host.on_signal(libc::SIGTERM);
    Ok(py.none())
}

type Actions = [libc::sigaction; OWNED.len()];

fn actions() -> Actions {
    OWNED.map(|signal| {
        // SAFETY: a zeroed sigaction is valid to write to; no handler is changed.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, ptr::null(), &raw mut action);
            action
        }
    })
}

fn restore(actions: &Actions) {
    for (signal, action) in OWNED.into_iter().zip(actions) {
        // SAFETY: the action was previously installed for this signal.
        unsafe { libc::sigaction(signal, action, ptr::null_mut()) };
    }
}

/// Signals of the server, as in `process.py`.
const OWNED: [c_int; 7] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGWINCH,
];

/// Actions in the mold before Python code changed them.
static KEPT: OnceLock<Actions> = OnceLock::new();
