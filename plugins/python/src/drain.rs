//! Notifies a Python application when its worker drains: `jimu.is_draining()` and `jimu.on_drain(function)`.

use crate::method;
use crate::server::Server;
use crate::{Arguments, Method, Object, PyResult, Python};

/// Functions for `jimu.py`.
pub const METHODS: &[Method<Server>] = &[
    Method { name: c"is_draining", entry: method!(is_draining) },
    Method { name: c"_watch_drain", entry: method!(watch) },
];

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
