//! The requests of this process: what their objects are made of, and those that can be reused.

use super::{Request, RequestObjects, Types};
use crate::runtime::PythonRuntime;
use python::{Cell, PyResult, Python};

/// The state of this process that requests have in common.
pub(crate) struct Requests {
    /// The state of this process.
    pub(crate) runtime: &'static PythonRuntime,
    /// What the objects of a request are made of.
    pub(crate) types: Types,
    /// Objects of finished requests, for reuse.
    pool: Cell<Vec<RequestObjects>>,
    /// Objects of finished requests to which the greenlet that served them still refers.
    deferred: Cell<Vec<RequestObjects>>,
}

impl Requests {
    /// Creates the state. It is never freed: request objects refer to it.
    pub(crate) fn new(runtime: &'static PythonRuntime, types: Types) -> &'static Self {
        let (pool, deferred) = (Cell::new(Vec::new()), Cell::new(Vec::new()));
        Box::leak(Box::new(Self { runtime, types, pool, deferred }))
    }

    /// Takes the objects for a request from the pool, or creates them.
    pub(crate) fn take(&'static self, py: Python<'_>) -> PyResult<RequestObjects> {
        if self.runtime.guest.is_some()
            && let Some(objects) = self.take_deferred(py)
        {
            return Ok(objects);
        }
        let pooled = self.pool.borrow(py).and_then(|mut pool| pool.pop());
        pooled.map_or_else(|| RequestObjects::new(py, &self.types, Request::new(self)), Ok)
    }

    /// Returns the objects of a request to the pool, unless the application still refers to one of them.
    pub(crate) fn recycle(&self, py: Python<'_>, objects: RequestObjects) {
        if objects.is_free(py)
            && let Some(mut pool) = self.pool.borrow(py)
            && pool.len() < POOL_MAX
        {
            pool.push(objects);
            return;
        }
        objects.release(py, &self.types);
    }

    /// Keeps the objects of a finished request until the greenlet that served it no longer refers to them.
    pub(crate) fn defer_recycling(&self, py: Python<'_>, objects: RequestObjects) {
        if let Some(mut deferred) = self.deferred.borrow(py) {
            deferred.push(objects);
        }
    }

    /// Takes the first deferred objects that are free by now: usually those deferred last.
    fn take_deferred(&self, py: Python<'_>) -> Option<RequestObjects> {
        let mut deferred = self.deferred.borrow(py)?;
        let free = deferred.iter().position(|objects| objects.is_free(py));
        let free = free.map(|at| deferred.remove(at));
        // The oldest ones are held by the application.
        let kept = deferred.len().saturating_sub(DEFERRED_MAX);
        let kept: Vec<RequestObjects> = deferred.drain(..kept).collect();
        // Dropping objects can run Python code.
        drop(deferred);
        for objects in kept {
            self.recycle(py, objects);
        }
        free
    }
}

/// Maximum number of deferred requests.
const DEFERRED_MAX: usize = 16;
/// Maximum number of pooled requests; beyond that, each request creates its objects.
const POOL_MAX: usize = 1024;
