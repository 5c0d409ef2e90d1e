//! The engine of a worker class, as a guest loop uses it.

use std::thread::{self, ThreadId};

use worker_api::Engine;

use crate::{Exception, PyErrSet, PyResult, Python};

/// An engine that Python code drives.
pub struct LoopEngine {
    engine: Engine,
    /// The only thread that may use the engine.
    thread: ThreadId,
}

impl LoopEngine {
    /// Wraps the engine, on the thread that uses it.
    pub fn new(engine: Engine) -> Self {
        Self { engine, thread: thread::current().id() }
    }

    /// Returns the engine; `RuntimeError` on another thread.
    pub fn get(&self, py: Python<'_>) -> PyResult<&Engine> {
        if thread::current().id() == self.thread {
            Ok(&self.engine)
        } else {
            Err(PyErrSet::new(py, Exception::Runtime, "the engine belongs to another thread"))
        }
    }

    /// Runs a turn. Returns whether the engine still runs.
    pub fn turn(&self, py: Python<'_>) -> PyResult<bool> {
        let engine = self.get(py)?;
        match engine.turn() {
            Ok(()) => Ok(!engine.stopped()),
            Err(failure) => Err(PyErrSet::new(py, Exception::Runtime, &failure.to_string())),
        }
    }
}
