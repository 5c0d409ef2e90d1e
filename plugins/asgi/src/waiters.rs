//! The futures of tasks that wait for a message or for room.

use python::{Exception, GlobalRef, Object, PyErrSet, PyResult, Python};

use crate::runtime::AsgiRuntime;

/// Futures that are resolved when an operation can be tried again.
#[derive(Default)]
pub(crate) struct Waiters(Vec<GlobalRef>);

impl Waiters {
    /// Creates a future.
    pub(crate) fn create<'py>(
        &mut self,
        py: Python<'py>,
        runtime: &AsgiRuntime,
    ) -> PyResult<Object<'py>> {
        let Some(create) = runtime.create_future.get() else {
            let message = "the event loop of the server does not run";
            return Err(PyErrSet::new(py, Exception::Runtime, message));
        };
        let future = create.get(py).call([])?;
        if self.0.len() >= WAITING_MAX {
            self.drop_done(py, runtime)?;
        }
        self.0.push(future.clone().store());
        Ok(future)
    }

    /// Drops the futures of operations that were cancelled.
    fn drop_done(&mut self, py: Python<'_>, runtime: &AsgiRuntime) -> PyResult<()> {
        let mut kept = Vec::new();
        for future in self.0.drain(..) {
            let future = future.take(py);
            if !runtime.is_done(&future)? {
                kept.push(future.store());
            }
        }
        self.0 = kept;
        Ok(())
    }

    /// Takes the futures, to be resolved once the request is no longer borrowed.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Resolves the futures: their tasks try again.
    pub(crate) fn resolve(self, py: Python<'_>, runtime: &AsgiRuntime) -> PyResult<()> {
        for future in self.0 {
            let future = future.take(py);
            if !runtime.is_done(&future)? {
                future.attr(&runtime.names.set_result.get(py))?.call([&py.none()])?;
            }
        }
        Ok(())
    }

    /// Drops the futures.
    pub(crate) fn release(self, py: Python<'_>) {
        for future in self.0 {
            drop(future.take(py));
        }
    }
}

/// Number of futures of a request from which on those of cancelled operations are dropped.
const WAITING_MAX: usize = 16;
