//! Notifies a Python application when its worker drains: `jimu.is_draining()` and `jimu.on_drain(function)`.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::function;
use crate::python::{Arguments, Function, Object, PyResult, Python, attach};
use crate::runtime::PythonRuntime;

/// Functions for `jimu.py`.
pub(crate) const NATIVES: [Function; 2] = [
    Function { name: c"is_draining", entry: function!(is_draining) },
    Function { name: c"_watch_drain", entry: function!(watch) },
];

/// Called when the worker begins to drain. Takes the interpreter's lock only if there are functions to call,
/// because a hung thread may hold it.
pub(crate) fn begin(runtime: &PythonRuntime) {
    DRAINS.store(true, Ordering::Release);
    if !IS_WATCHED.load(Ordering::Acquire) {
        return;
    }
    attach(|py| {
        if let Err(raised) = runtime.helper(py, "run_drain_functions", []) {
            runtime.report(py, raised, "error in run_drain_functions()");
        }
    });
}

/// `is_draining()`: returns whether this worker drains.
fn is_draining<'py>(
    py: Python<'py>,
    _me: &Object<'py>,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    py.truth(DRAINS.load(Ordering::Acquire))
}

/// `_watch_drain()`: requests a call of `run_drain_functions()` when the worker begins to drain.
#[expect(clippy::unnecessary_wraps, reason = "functions for Python have this form")]
fn watch<'py>(py: Python<'py>, _me: &Object<'py>, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    IS_WATCHED.store(true, Ordering::Release);
    Ok(py.none())
}

static DRAINS: AtomicBool = AtomicBool::new(false);
static IS_WATCHED: AtomicBool = AtomicBool::new(false);
