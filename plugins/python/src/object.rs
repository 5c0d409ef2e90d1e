//! References to Python objects: counted, never null.

use std::mem::ManuallyDrop;
use std::num::NonZero;
use std::ops::Deref;
use std::ptr::NonNull;

use pyo3_ffi::{PyObject, PyTypeObject};

use super::attach::Python;
use super::error::{PyErrSet, PyResult};

/// An owned reference, usable while this thread is attached.
#[repr(transparent)]
pub struct Object<'py> {
    pointer: NonNull<PyObject>,
    python: std::marker::PhantomData<Python<'py>>,
}

impl<'py> Object<'py> {
    /// Wraps a new reference from CPython; null means that an error is set.
    ///
    /// # Safety
    /// `pointer` is null with an error set, or a reference that the result takes ownership of.
    #[inline]
    pub(super) unsafe fn owned(_py: Python<'py>, pointer: *mut PyObject) -> PyResult<Self> {
        match NonNull::new(pointer) {
            Some(pointer) => Ok(Self { pointer, python: std::marker::PhantomData }),
            None => Err(PyErrSet::set()),
        }
    }

    /// Creates a reference from a borrowed one.
    ///
    /// # Safety
    /// `pointer` is a live object.
    #[inline]
    pub(super) unsafe fn shared(py: Python<'py>, pointer: *mut PyObject) -> Self {
        // SAFETY: alive, by this function's contract.
        unsafe { (py.api().Py_IncRef)(pointer) };
        // SAFETY: a live object has a non-null address.
        let pointer = unsafe { NonNull::new_unchecked(pointer) };
        Self { pointer, python: std::marker::PhantomData }
    }

    /// Returns the pointer; this value keeps the ownership of the reference.
    #[inline]
    pub(super) fn as_ptr(&self) -> *mut PyObject {
        self.pointer.as_ptr()
    }

    /// Returns the pointer and gives up the ownership of the reference.
    #[inline]
    pub(super) fn into_ptr(self) -> *mut PyObject {
        ManuallyDrop::new(self).pointer.as_ptr()
    }

    /// Returns the token: this reference implies that the thread is attached.
    #[inline]
    #[allow(clippy::unused_self, reason = "the reference is the proof")]
    pub fn py(&self) -> Python<'py> {
        // SAFETY: a reference exists only while its thread is attached: its lifetime is the token's.
        unsafe { Python::assume() }
    }

    /// Returns whether both are the same object.
    #[inline]
    pub fn is(&self, other: &Object<'_>) -> bool {
        self.pointer == other.pointer
    }

    /// Returns its address, as Python's `id()` does: unique among the objects that are alive.
    #[inline]
    pub fn address(&self) -> NonZero<usize> {
        self.pointer.addr()
    }

    /// Returns whether it is `None`.
    #[inline]
    pub fn is_none(&self) -> bool {
        self.as_ptr() == self.py().api()._Py_NoneStruct
    }

    /// Returns the object's type, borrowed.
    #[inline]
    pub(super) fn type_ptr(&self) -> *mut PyTypeObject {
        // SAFETY: the head of an object is part of the stable ABI, and the object is alive.
        unsafe { (*self.as_ptr()).ob_type }
    }

    /// Returns the reference count. Immortal objects have a large number.
    #[inline]
    pub fn reference_count(&self) -> u32 {
        // SAFETY: the object is alive, and its count is its first member: a word up to 3.11; later
        // versions use the lower half of its 64 bits. Counts of this library's objects stay far below
        // 2^32.
        unsafe { self.as_ptr().cast::<u32>().read() }
    }

    /// Converts to a reference that outlives the attachment.
    #[inline]
    pub fn store(self) -> GlobalRef {
        let pointer = self.pointer;
        std::mem::forget(self);
        GlobalRef(pointer)
    }
}

impl Clone for Object<'_> {
    #[inline]
    fn clone(&self) -> Self {
        // SAFETY: alive, because this reference is.
        unsafe { Self::shared(self.py(), self.as_ptr()) }
    }
}

impl Drop for Object<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this value owns the reference.
        unsafe { (self.py().api().Py_DecRef)(self.as_ptr()) };
    }
}

/// An owned reference that outlives the attachment. If dropped without [`GlobalRef::take`] it leaks, because a
/// reference can be released only while attached.
pub struct GlobalRef(NonNull<PyObject>);

// SAFETY: the object is only accessed with a token, so under the interpreter's lock.
unsafe impl Send for GlobalRef {}
// SAFETY: as above.
unsafe impl Sync for GlobalRef {}

impl GlobalRef {
    /// Returns the object, for use while attached.
    #[inline]
    pub fn get<'a, 'py>(&'a self, _py: Python<'py>) -> Borrowed<'a, 'py> {
        Borrowed {
            object: ManuallyDrop::new(Object { pointer: self.0, python: std::marker::PhantomData }),
            owner: std::marker::PhantomData,
        }
    }

    /// Returns the reference itself, to be dropped while attached.
    #[inline]
    pub fn take(self, _py: Python<'_>) -> Object<'_> {
        Object { pointer: self.0, python: std::marker::PhantomData }
    }
}

/// A reference owned by a [`GlobalRef`].
pub struct Borrowed<'a, 'py> {
    object: ManuallyDrop<Object<'py>>,
    owner: std::marker::PhantomData<&'a GlobalRef>,
}

impl<'py> Deref for Borrowed<'_, 'py> {
    type Target = Object<'py>;

    #[inline]
    fn deref(&self) -> &Object<'py> {
        &self.object
    }
}
