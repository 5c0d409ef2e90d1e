//! The error set in this thread.

use super::attach::Python;

/// Result of a call into Python.
pub type PyResult<T> = Result<T, PyErrSet>;

/// Proof that an error is set in this thread. It carries no data: the interpreter holds the error until it is
/// taken, cleared, or returned to Python.
#[must_use = "an error that is set must be taken, cleared, or returned to Python"]
#[derive(Debug)]
pub struct PyErrSet(());

impl PyErrSet {
    /// Creates the proof for an error that CPython has set.
    #[inline]
    pub(super) fn set() -> Self {
        Self(())
    }

    /// Clears the error.
    #[allow(clippy::unused_self, reason = "the value says that there is an error to clear")]
    pub fn clear(self, py: Python<'_>) {
        // SAFETY: attached.
        unsafe { (py.api().PyErr_Clear)() };
    }
}

impl Python<'_> {
    /// Returns the error that is set, if any.
    #[inline]
    pub(super) fn pending(self) -> Option<PyErrSet> {
        // SAFETY: attached.
        let kind = unsafe { (self.api().PyErr_Occurred)() };
        (!kind.is_null()).then_some(PyErrSet(()))
    }

    /// Converts a status returned by CPython to a result.
    #[inline]
    #[allow(clippy::unused_self, reason = "the error is that of the attached thread")]
    pub(super) fn check(self, status: i32) -> PyResult<()> {
        if status < 0 { Err(PyErrSet::set()) } else { Ok(()) }
    }
}
