//! `bytes` that are filled after their creation, so that their content is not copied.

use std::arch::asm;
use std::ptr::{self, NonNull};

use super::attach::Python;
use super::error::{PyErrSet, PyResult};
use super::object::{GlobalRef, Object};

/// A `bytes` object that only this value refers to. Like a [`GlobalRef`], it leaks if it is dropped without
/// [`NewBytes::finish`].
pub struct NewBytes {
    object: GlobalRef,
    content: NonNull<[u8]>,
}

// SAFETY: `content` is memory of the object, which nothing else refers to.
unsafe impl Send for NewBytes {}

impl NewBytes {
    /// Creates `len` bytes, whose values are arbitrary.
    pub fn new(py: Python<'_>, len: usize) -> PyResult<Self> {
        debug_assert!(len > 1, "CPython shares shorter ones");
        // SAFETY: attached; CPython leaves the content of an object created without a source to its creator.
        let made = unsafe {
            Object::owned(py, (py.api().PyBytes_FromStringAndSize)(ptr::null(), count_of(len)))?
        };
        Self::around(py, made)
    }

    /// Makes it `len` bytes long. The values of those added are arbitrary. The content may move.
    ///
    /// # Errors
    /// `MemoryError`; what was there is lost.
    pub fn grow(self, py: Python<'_>, len: usize) -> PyResult<Self> {
        let mut object = self.object.take(py).into_ptr();
        // SAFETY: attached; nothing else refers to the object, and its hash was never computed. CPython replaces the
        // pointer, by null if it has freed the object.
        let grown = unsafe {
            (py.api()._PyBytes_Resize)(&raw mut object, count_of(len));
            Object::owned(py, object)?
        };
        Self::around(py, grown)
    }

    /// Wraps an object to which nothing else refers, and which was created without a source.
    fn around(py: Python<'_>, object: Object<'_>) -> PyResult<Self> {
        let (mut content, mut found) = (ptr::null_mut(), 0);
        // SAFETY: attached; the object is alive. CPython allows writing to it until others refer to it. The length is what
        // CPython says.
        unsafe {
            let asked = (py.api().PyBytes_AsStringAndSize)(
                object.as_ptr(),
                &raw mut content,
                &raw mut found,
            );
            let Some(content) = NonNull::new(content.cast::<u8>()).filter(|_| asked == 0) else {
                return Err(PyErrSet::set());
            };
            initialize(content);
            Ok(Self {
                object: object.store(),
                content: NonNull::slice_from_raw_parts(content, found as usize),
            })
        }
    }

    /// Returns the content.
    pub fn content(&mut self) -> &mut [u8] {
        // SAFETY: initialized memory of the object, which this value keeps alive, and which nothing else refers to.
        unsafe { self.content.as_mut() }
    }

    /// Returns the object, which no longer changes.
    pub fn finish(self, py: Python<'_>) -> Object<'_> {
        self.object.take(py)
    }
}

fn count_of(len: usize) -> isize {
    isize::try_from(len).unwrap_or(isize::MAX)
}

/// Makes uninitialized memory of the allocator initialized, with arbitrary values. To clear it would take about a tenth of the
/// time of an upload.
fn initialize(start: NonNull<u8>) {
    // SAFETY: the block has a comment alone. To the compiler it may have written to all memory that its operand refers to.
    // What is found there from now on are the bytes of mapped memory, which do not change by themselves.
    unsafe { asm!("/* {} */", in(reg) start.as_ptr(), options(nostack, preserves_flags)) };
}
