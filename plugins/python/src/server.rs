//! The server as seen by Python modules: the object that their native functions are bound to.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use worker_api::Host;

use crate::{Method, Object, PyResult};

/// State of the process that the native functions of modules use.
pub struct Server {
    /// Services of the host.
    pub host: Host,
    /// Whether the worker drains.
    pub drain: Arc<Drain>,
}

/// Whether this worker drains, and whether Python code is to be called then.
#[derive(Default)]
pub struct Drain {
    has_begun: AtomicBool,
    is_watched: AtomicBool,
}

impl Drain {
    /// Records that the worker drains. Returns whether Python code is to be called.
    pub fn begin(&self) -> bool {
        self.has_begun.store(true, Ordering::Release);
        self.is_watched.load(Ordering::Acquire)
    }

    /// Returns whether the worker drains.
    pub fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Acquire)
    }

    /// Requests that Python code is called when the worker begins to drain.
    pub fn watch(&self) {
        self.is_watched.store(true, Ordering::Release);
    }
}

/// Returns the methods of the server's object as functions of a module, with their names.
pub fn natives<'py>(
    server: &Object<'py>,
    methods: &[&[Method<Server>]],
) -> PyResult<Vec<(&'static CStr, Object<'py>)>> {
    let py = server.py();
    let methods = methods.iter().copied().flatten();
    let native = |method: &Method<Server>| {
        Ok((method.name, server.attr(&py.name(method.name.to_bytes())?)?))
    };
    methods.map(native).collect()
}
