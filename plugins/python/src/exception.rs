//! Raising exceptions, and taking the exception that is set.

use std::ptr;

use super::attach::Python;
use super::error::PyErrSet;
use super::object::Object;

/// A built-in exception to raise.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Exception {
    /// `AssertionError`
    Assertion,
    /// `ConnectionResetError`
    ConnectionReset,
    /// `OSError`
    Os,
    /// `RuntimeError`
    Runtime,
    /// `TimeoutError`
    Timeout,
    /// `TypeError`
    Type,
    /// `ValueError`
    Value,
}

impl PyErrSet {
    /// Sets an error of this kind with this message.
    #[cold]
    pub fn new(py: Python<'_>, kind: Exception, message: &str) -> Self {
        let api = py.api();
        let exception = match kind {
            Exception::Assertion => api.PyExc_AssertionError,
            Exception::ConnectionReset => api.PyExc_ConnectionResetError,
            Exception::Os => api.PyExc_OSError,
            Exception::Runtime => api.PyExc_RuntimeError,
            Exception::Timeout => api.PyExc_TimeoutError,
            Exception::Type => api.PyExc_TypeError,
            Exception::Value => api.PyExc_ValueError,
        };
        if let Ok(text) = py.text(message) {
            // SAFETY: the first is one of CPython's exceptions, the second a live object.
            unsafe { (api.PyErr_SetObject)(*exception, text.as_ptr()) };
        }
        Self::set()
    }

    /// Sets `StopIteration` with a value: the result of what was awaited. Not for a tuple or an exception, which CPython
    /// would interpret.
    #[inline]
    pub fn stop(value: &Object<'_>) -> Self {
        let api = value.py().api();
        // SAFETY: the first is one of CPython's exceptions, the second a live object.
        unsafe { (api.PyErr_SetObject)(*api.PyExc_StopIteration, value.as_ptr()) };
        Self::set()
    }

    /// Sets an exception that was raised before, with its traceback if there is one.
    pub fn again(
        py: Python<'_>,
        kind: Object<'_>,
        value: Object<'_>,
        trace: Option<Object<'_>>,
    ) -> Self {
        let trace = trace.map_or(ptr::null_mut(), Object::into_ptr);
        // SAFETY: takes the three references.
        unsafe { (py.api().PyErr_Restore)(kind.into_ptr(), value.into_ptr(), trace) };
        Self::set()
    }

    /// Sets an exception that was taken.
    pub fn restore(exception: &Object<'_>) -> Self {
        let api = exception.py().api();
        // SAFETY: alive; an exception value has its type and its traceback.
        unsafe { (api.PyErr_SetObject)(exception.type_ptr().cast(), exception.as_ptr()) };
        Self::set()
    }

    /// Takes the error: returns the exception object with its traceback attached.
    #[cold]
    #[allow(clippy::unused_self, reason = "the value says that there is an error to take")]
    pub fn take(self, py: Python<'_>) -> Object<'_> {
        let api = py.api();
        let (mut kind, mut value, mut trace) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        // SAFETY: the three variables are local and hold owned references or null afterwards. A normalized
        // exception has a value of its type.
        unsafe {
            (api.PyErr_Fetch)(&raw mut kind, &raw mut value, &raw mut trace);
            (api.PyErr_NormalizeException)(&raw mut kind, &raw mut value, &raw mut trace);
            if !trace.is_null() {
                (api.PyException_SetTraceback)(value, trace);
                (api.Py_DecRef)(trace);
            }
            if !kind.is_null() {
                (api.Py_DecRef)(kind);
            }
            Object::owned(py, value).unwrap_or_else(|_| py.none())
        }
    }
}
