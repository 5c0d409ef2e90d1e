//! Dicts, lists and tuples.

use pyo3_ffi::PyObject;

use super::attach::Python;
use super::error::{PyErrSet, PyResult};
use super::exception::Exception;
use super::object::Object;

impl<'py> Object<'py> {
    /// Returns whether it is exactly a `list`, not a subclass.
    #[inline]
    pub fn is_exact_list(&self) -> bool {
        self.type_ptr().cast() == self.py().api().PyList_Type
    }

    /// Returns whether it is exactly a `tuple`.
    #[inline]
    pub fn is_exact_tuple(&self) -> bool {
        self.type_ptr().cast() == self.py().api().PyTuple_Type
    }

    /// Converts it to a list; returns itself if it is one.
    pub fn to_list(&self) -> PyResult<Self> {
        if self.is_exact_list() {
            return Ok(self.clone());
        }
        let py = self.py();
        // SAFETY: alive; the reference is new.
        unsafe { Object::owned(py, (py.api().PySequence_List)(self.as_ptr())) }
    }

    /// Returns the length of an exact list.
    #[inline]
    pub fn list_len(&self) -> usize {
        debug_assert!(self.is_exact_list());
        // SAFETY: alive, and a list.
        unsafe { (self.py().api().PyList_Size)(self.as_ptr()) as usize }
    }

    /// Appends an item to a list.
    #[inline]
    pub fn append(&self, item: &Object<'py>) -> PyResult<()> {
        let py = self.py();
        // SAFETY: both are alive; CPython checks that the first is a list.
        py.check(unsafe { (py.api().PyList_Append)(self.as_ptr(), item.as_ptr()) })
    }

    /// Returns an item of an exact list; `IndexError` if the list has become shorter.
    #[inline]
    pub fn list_item(&self, place: usize) -> PyResult<Self> {
        let py = self.py();
        // SAFETY: alive; the borrowed item is alive until the list changes, which cannot happen before the
        // next line creates a reference.
        unsafe {
            let item = (py.api().PyList_GetItem)(self.as_ptr(), place as isize);
            lent(py, item)
        }
    }

    /// Returns the two items of an exact tuple of two.
    #[inline]
    pub fn pair(&self) -> Option<(Self, Self)> {
        if !self.is_exact_tuple() {
            return None;
        }
        let py = self.py();
        let api = py.api();
        // SAFETY: a live tuple of two items; both are alive while it is.
        unsafe {
            if (api.PyTuple_Size)(self.as_ptr()) != 2 {
                return None;
            }
            let first = Object::shared(py, (api.PyTuple_GetItem)(self.as_ptr(), 0));
            let second = Object::shared(py, (api.PyTuple_GetItem)(self.as_ptr(), 1));
            Some((first, second))
        }
    }

    /// Calls `with` for each pair of an iterable of pairs: tuples, or other iterables of two, such as lists. `TypeError`
    /// with the message `expected` for anything else.
    #[inline]
    pub fn each_pair(
        &self,
        expected: &str,
        mut with: impl FnMut(&Self, &Self) -> PyResult<()>,
    ) -> PyResult<()> {
        let pairs = self.to_list()?;
        for place in 0..pairs.list_len() {
            let item = pairs.list_item(place)?;
            let (first, second) = item.pair().map_or_else(|| item.loose_pair(expected), Ok)?;
            with(&first, &second)?;
        }
        Ok(())
    }

    /// Converts a pair that is not a tuple.
    #[cold]
    fn loose_pair(&self, expected: &str) -> PyResult<(Self, Self)> {
        let items = self.to_list()?;
        if items.list_len() != 2 {
            return Err(PyErrSet::new(self.py(), Exception::Type, expected));
        }
        Ok((items.list_item(0)?, items.list_item(1)?))
    }

    /// Returns an item of a tuple.
    pub fn tuple_item(&self, place: usize) -> PyResult<Self> {
        let py = self.py();
        // SAFETY: alive; CPython checks the type and the index; the borrowed item lives in the tuple.
        unsafe { lent(py, (py.api().PyTuple_GetItem)(self.as_ptr(), place as isize)) }
    }

    /// Copies a dict.
    #[inline]
    pub fn dict_copy(&self) -> PyResult<Self> {
        let py = self.py();
        // SAFETY: alive; CPython checks that it is a dict; the reference is new.
        unsafe { Object::owned(py, (py.api().PyDict_Copy)(self.as_ptr())) }
    }

    /// Sets an item of a dict.
    #[inline]
    pub fn set_item(&self, key: &Object<'py>, value: &Object<'py>) -> PyResult<()> {
        let py = self.py();
        // SAFETY: all three are alive; CPython checks that the first is a dict.
        py.check(unsafe { (py.api().PyDict_SetItem)(self.as_ptr(), key.as_ptr(), value.as_ptr()) })
    }

    /// Removes an item of a dict; `KeyError` if there is none.
    pub fn del_item(&self, key: &Object<'py>) -> PyResult<()> {
        let py = self.py();
        // SAFETY: both are alive; CPython checks that the first is a dict.
        py.check(unsafe { (py.api().PyDict_DelItem)(self.as_ptr(), key.as_ptr()) })
    }

    /// Returns an item of a dict.
    pub fn dict_item(&self, key: &Object<'py>) -> PyResult<Option<Self>> {
        let py = self.py();
        // SAFETY: alive; the borrowed item is alive until the dict changes, and becomes a reference before
        // that.
        unsafe {
            let item = (py.api().PyDict_GetItemWithError)(self.as_ptr(), key.as_ptr());
            if item.is_null() {
                return py.pending().map_or(Ok(None), Err);
            }
            Ok(Some(Object::shared(py, item)))
        }
    }
}

/// Creates a reference from a borrowed one; null means that an error is set.
///
/// # Safety
/// `item` is null with an error set, or alive.
#[inline]
unsafe fn lent(py: Python<'_>, item: *mut PyObject) -> PyResult<Object<'_>> {
    if item.is_null() {
        return Err(PyErrSet::set());
    }
    // SAFETY: alive, by this function's contract.
    Ok(unsafe { Object::shared(py, item) })
}
