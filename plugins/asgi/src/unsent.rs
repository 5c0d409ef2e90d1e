//! What `send` has begun and could not send at once.

use std::collections::VecDeque;

use python::{Exception, PyErrSet, PyResult, Python};

use crate::operation::Operation;

/// Operations that wait for room, in the order of the calls of `send`. They belong to the server: that a task is cancelled,
/// or that another one sends, must not leave a gap in the body.
#[derive(Default)]
pub(crate) struct Unsent {
    operations: VecDeque<Operation>,
    /// Whether a waker is left: until it fires there is no room.
    awaits_room: bool,
    /// Whether one of them has failed: the others are dropped, and every `send` that waits fails.
    has_failed: bool,
}

impl Unsent {
    /// Returns whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Returns whether an operation has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Adds an operation that has to wait, unless it only waits for those before it.
    pub(crate) fn push(&mut self, py: Python<'_>, mut operation: Operation) -> PyResult<()> {
        match &mut operation {
            Operation::Receive | Operation::Flush => return Ok(()),
            Operation::Send { .. } | Operation::SendTrailers(_) => {}
            Operation::SendFile { file, .. } => file.file.own().map_err(|error| {
                PyErrSet::new(py, Exception::Os, &format!("cannot keep the file open: {error}"))
            })?,
        }
        self.awaits_room = true;
        self.operations.push_back(operation);
        Ok(())
    }

    /// After a waker has fired: there may be room.
    pub(crate) fn wake(&mut self) {
        self.awaits_room = false;
    }

    /// Continues the operations by `attempt`, which returns whether an operation is complete, and otherwise leaves a waker.
    /// Returns whether all are complete.
    pub(crate) fn continue_with(
        &mut self,
        py: Python<'_>,
        mut attempt: impl FnMut(&mut Operation) -> PyResult<bool>,
    ) -> PyResult<bool> {
        while let Some(operation) = self.operations.front_mut().filter(|_| !self.awaits_room) {
            match attempt(operation) {
                Ok(true) => {
                    operation.release(py);
                    self.operations.pop_front();
                }
                Ok(false) => self.awaits_room = true,
                Err(raised) => {
                    self.has_failed = true;
                    self.release(py);
                    return Err(raised);
                }
            }
        }
        Ok(self.operations.is_empty())
    }

    /// Drops the operations.
    pub(crate) fn release(&mut self, py: Python<'_>) {
        self.operations.drain(..).for_each(|mut operation| operation.release(py));
    }
}
