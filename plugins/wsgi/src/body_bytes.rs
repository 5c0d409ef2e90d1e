//! The bytes of a response body that is sent without the interpreter's lock.

use std::cell::Cell;
use std::slice;

use crate::request::not_bytes;
use python::{GlobalRef, Object, PyResult, Python, attach};

/// A `bytes` object whose contents are used while detached: they never change and live as long as this value.
pub(crate) struct Bytes {
    owner: GlobalRef,
    pointer: *const u8,
    len: usize,
}

// SAFETY: see `bytes`; the owner is released only on an attached thread.
unsafe impl Send for Bytes {}

impl Bytes {
    /// Holds the contents of a part of a body; `TypeError` if it is not `bytes`.
    pub(crate) fn new(object: Object<'_>) -> PyResult<Self> {
        let Some(bytes) = object.as_bytes() else {
            return Err(not_bytes(&object, "a part of the response body"));
        };
        let (pointer, len) = (bytes.as_ptr(), bytes.len());
        Ok(Self { owner: object.store(), pointer, len })
    }

    /// Drops everything after the first `len` bytes.
    pub(crate) fn truncate(&mut self, len: u64) {
        self.len = self.len.min(len as usize);
    }

    /// Returns the contents.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the memory of a `bytes`, which is never written to again and is kept alive by `owner`.
        unsafe { slice::from_raw_parts(self.pointer, self.len) }
    }

    /// Leaves the object to this thread's next request; drops it at once if it is large.
    pub(crate) fn leave(self) {
        let large = self.len > LEFT_MAX;
        let before = LEFT.replace(Some(self.owner));
        if large || before.is_some() {
            attach(|py| {
                drop(before.map(|object| object.take(py)));
                if large {
                    drop_left(py);
                }
            });
        }
    }
}

/// Drops the body that the last request of this thread left.
pub(crate) fn drop_left(py: Python<'_>) {
    if let Some(left) = LEFT.take() {
        drop(left.take(py));
    }
}

thread_local! {
    /// The body of the last response. Dropping it needs the interpreter's lock, which the next request takes
    /// anyway.
    static LEFT: Cell<Option<GlobalRef>> = const { Cell::new(None) };
}

/// Maximum length of a body that is left to the next request.
const LEFT_MAX: usize = 64 * 1024;
