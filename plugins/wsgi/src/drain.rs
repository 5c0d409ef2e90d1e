//! Notifies a Python application when its worker drains: `jimu.is_draining()` and `jimu.on_drain(function)`.

use crate::method;
use crate::python::{Arguments, Method, Object, PyResult, Python, attach};
use crate::runtime::PythonRuntime;
use crate::server::Server;

/// Functions for `jimu.py`.
pub(crate) const METHODS: &[Method<Server>] = &[
    Method { name: c"is_draining", entry: method!(is_draining) },
    Method { name: c"_watch_drain", entry: method!(watch) },
];

/// Called when the worker begins to drain. Takes the interpreter's lock only if there are functions to call,
/// because a hung thread may hold it.
pub(crate) fn begin(runtime: &PythonRuntime) {
    if !runtime.drain.begin() {
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
    server: &Server,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    py.truth(server.drain.has_begun())
}

/// `_watch_drain()`: requests a call of `run_drain_functions()` when the worker begins to drain.
#[expect(clippy::unnecessary_wraps, reason = "functions for Python have this form")]
fn watch<'py>(py: Python<'py>, server: &Server, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    server.drain.watch();
    Ok(py.none())
}
