//! Text, bytes, numbers, containers and calls.

use std::ffi::CString;
use std::ptr;

use pyo3_ffi::PyObject;

use super::api;
use super::attach::Python;
use super::error::{PyErrSet, PyResult};
use super::exception::Exception;
use super::native::Function;
use super::object::Object;

impl<'py> Python<'py> {
    /// Returns `None`.
    pub(crate) fn none(self) -> Object<'py> {
        // SAFETY: `None` is always alive.
        unsafe { Object::shared(self, self.api()._Py_NoneStruct) }
    }

    /// Runs pending signal handlers, on Python's main thread.
    pub(crate) fn check_signals(self) -> PyResult<()> {
        // SAFETY: attached.
        self.check(unsafe { (self.api().PyErr_CheckSignals)() })
    }

    /// Returns `True` or `False`.
    pub(crate) fn truth(self, value: bool) -> PyResult<Object<'py>> {
        // SAFETY: attached; the reference is new.
        unsafe { Object::owned(self, (self.api().PyBool_FromLong)(value.into())) }
    }

    /// Creates an integer.
    pub(crate) fn number(self, value: i64) -> PyResult<Object<'py>> {
        // SAFETY: attached; the reference is new.
        unsafe { Object::owned(self, (self.api().PyLong_FromLongLong)(value)) }
    }

    /// Creates a string.
    pub(crate) fn text(self, value: &str) -> PyResult<Object<'py>> {
        let pointer = value.as_ptr().cast();
        // SAFETY: attached; the bytes are valid for the call; the default error handler is "strict".
        unsafe {
            let made =
                (self.api().PyUnicode_DecodeUTF8)(pointer, value.len() as isize, ptr::null());
            Object::owned(self, made)
        }
    }

    /// Creates a string in which each byte is one character (Latin-1), as PEP 3333 requires.
    #[inline]
    pub(crate) fn latin1(self, bytes: &[u8]) -> PyResult<Object<'py>> {
        let pointer = bytes.as_ptr().cast();
        // SAFETY: attached; the bytes are valid for the call.
        unsafe {
            let made =
                (self.api().PyUnicode_DecodeLatin1)(pointer, bytes.len() as isize, ptr::null());
            Object::owned(self, made)
        }
    }

    /// Creates an interned string, for keys and names.
    pub(crate) fn name(self, bytes: &[u8]) -> PyResult<Object<'py>> {
        let mut pointer = self.latin1(bytes)?.into_ptr();
        // SAFETY: takes the reference to an exact `str` and returns one in its place.
        unsafe {
            (self.api().PyUnicode_InternInPlace)(&raw mut pointer);
            Object::owned(self, pointer)
        }
    }

    /// Creates `bytes`.
    pub(crate) fn bytes(self, value: &[u8]) -> PyResult<Object<'py>> {
        // SAFETY: attached; the bytes are valid for the call.
        unsafe {
            let made =
                (self.api().PyBytes_FromStringAndSize)(value.as_ptr().cast(), value.len() as isize);
            Object::owned(self, made)
        }
    }

    /// Creates an empty dict.
    pub(crate) fn dict(self) -> PyResult<Object<'py>> {
        // SAFETY: attached; the reference is new.
        unsafe { Object::owned(self, (self.api().PyDict_New)()) }
    }

    /// Creates a tuple.
    pub(crate) fn tuple<const N: usize>(self, items: [Object<'py>; N]) -> PyResult<Object<'py>> {
        let api = self.api();
        // SAFETY: a new tuple of N items, each of which takes one reference, in order.
        unsafe {
            let tuple = Object::owned(self, (api.PyTuple_New)(N as isize))?;
            for (place, item) in items.into_iter().enumerate() {
                self.check((api.PyTuple_SetItem)(tuple.as_ptr(), place as isize, item.into_ptr()))?;
            }
            Ok(tuple)
        }
    }

    /// Creates a list.
    pub(crate) fn list(
        self,
        items: impl IntoIterator<Item = Object<'py>>,
    ) -> PyResult<Object<'py>> {
        let api = self.api();
        // SAFETY: a new list, and live references.
        unsafe {
            let list = Object::owned(self, (api.PyList_New)(0))?;
            for item in items {
                self.check((api.PyList_Append)(list.as_ptr(), item.as_ptr()))?;
            }
            Ok(list)
        }
    }

    /// Imports a module.
    pub(crate) fn import(self, name: &str) -> PyResult<Object<'py>> {
        let name = CString::new(name).map_err(|_| {
            PyErrSet::new(self, Exception::Value, "the module's name contains a NUL byte")
        })?;
        // SAFETY: attached; a C string.
        unsafe { Object::owned(self, (self.api().PyImport_ImportModule)(name.as_ptr())) }
    }

    /// Creates a module from source code and registers it under that name. The code can call `natives` by their
    /// names.
    pub(crate) fn module(
        self,
        name: &str,
        source: &str,
        natives: &[Function],
    ) -> PyResult<Object<'py>> {
        let nul =
            |_| PyErrSet::new(self, Exception::Value, "the module's source contains a NUL byte");
        let file = CString::new(format!("<{name}>")).map_err(nul)?;
        let c_name = CString::new(name).map_err(nul)?;
        let source = CString::new(source).map_err(nul)?;
        let api = self.api();
        // SAFETY: attached; C strings; `AddModule` and `GetDict` return borrowed references.
        unsafe {
            let module = (api.PyImport_AddModule)(c_name.as_ptr());
            if module.is_null() {
                return Err(PyErrSet::set());
            }
            let module = Object::shared(self, module);
            let names = Object::shared(self, (api.PyModule_GetDict)(module.as_ptr()));
            let builtins = self.import("builtins")?;
            names.set_item(&self.name(b"__builtins__")?, &builtins)?;
            for native in natives {
                names.set_item(&self.name(native.name.to_bytes())?, &native.make(self)?)?;
            }
            let code = (api.Py_CompileString)(source.as_ptr(), file.as_ptr(), api::FILE_INPUT);
            let code = Object::owned(self, code)?;
            let done = (api.PyEval_EvalCode)(code.as_ptr(), names.as_ptr(), names.as_ptr());
            Object::owned(self, done)?;
            Ok(module)
        }
    }
}

/// The text of a `str` in which each character is a byte.
pub(crate) enum Text<'a, 'py> {
    /// Pure ASCII: the object's own memory.
    Ascii(&'a str),
    /// With characters above ASCII: `bytes` created from it.
    Latin1(Object<'py>),
}

impl Text<'_, '_> {
    /// Returns the bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Ascii(text) => text.as_bytes(),
            Self::Latin1(bytes) => bytes.as_bytes().unwrap_or_default(),
        }
    }
}

impl<'py> Object<'py> {
    /// Returns an attribute by an interned name.
    pub(crate) fn attr(&self, name: &Object<'py>) -> PyResult<Self> {
        let py = self.py();
        // SAFETY: both are alive; the reference is new.
        unsafe { Object::owned(py, (py.api().PyObject_GetAttr)(self.as_ptr(), name.as_ptr())) }
    }

    /// Returns an attribute provided by the object's type, also if [`super::Native::attribute`] provides the
    /// others.
    pub(crate) fn own_attr(&self, name: &Object<'py>) -> PyResult<Self> {
        let py = self.py();
        // SAFETY: both are alive; the reference is new.
        unsafe {
            let found = (py.api().PyObject_GenericGetAttr)(self.as_ptr(), name.as_ptr());
            Object::owned(py, found)
        }
    }

    /// Returns an attribute by a name that is created for the call: not for the hot path.
    pub(crate) fn attr_named(&self, name: &str) -> PyResult<Self> {
        self.attr(&self.py().name(name.as_bytes())?)
    }

    /// Calls it with positional arguments.
    #[inline]
    pub(crate) fn call<const N: usize>(&self, arguments: [&Object<'py>; N]) -> PyResult<Self> {
        let py = self.py();
        let pointers = arguments.map(Object::as_ptr);
        // SAFETY: all are alive for the call; null means "no keywords".
        unsafe {
            let result =
                (py.api().vectorcall)(self.as_ptr(), pointers.as_ptr(), N, ptr::null_mut());
            Object::owned(py, result)
        }
    }

    /// Calls a method by its name: not for the hot path.
    pub(crate) fn call_method<const N: usize>(
        &self,
        name: &str,
        arguments: [&Object<'py>; N],
    ) -> PyResult<Self> {
        self.attr_named(name)?.call(arguments)
    }

    /// Returns an iterator over it.
    pub(crate) fn iterator(&self) -> PyResult<Self> {
        let py = self.py();
        // SAFETY: alive; the reference is new.
        unsafe { Object::owned(py, (py.api().PyObject_GetIter)(self.as_ptr())) }
    }

    /// Returns the next item of an iterator; `None` at its end.
    pub(crate) fn next(&self) -> PyResult<Option<Self>> {
        let py = self.py();
        // SAFETY: alive; the reference is new, and null without an error means the end.
        let item = unsafe { (py.api().PyIter_Next)(self.as_ptr()) };
        if item.is_null() {
            return py.pending().map_or(Ok(None), Err);
        }
        // SAFETY: a new reference that is not null.
        unsafe { Object::owned(py, item).map(Some) }
    }

    /// Returns its `str()`, for messages.
    pub(crate) fn to_text(&self) -> String {
        let py = self.py();
        // SAFETY: alive; the reference is new.
        let text = unsafe { Object::owned(py, (py.api().PyObject_Str)(self.as_ptr())) };
        match text.and_then(|text| text.as_str().map(str::to_owned)) {
            Ok(text) => text,
            Err(raised) => {
                raised.clear(py);
                "(str() failed)".to_owned()
            }
        }
    }

    /// Returns the name of its type, for messages.
    pub(crate) fn type_name(&self) -> String {
        let py = self.py();
        // SAFETY: an object's type is alive while the object is.
        let kind = unsafe { Object::shared(py, self.type_ptr().cast()) };
        match kind.attr_named("__name__") {
            Ok(name) => name.to_text(),
            Err(raised) => {
                raised.clear(py);
                "object".to_owned()
            }
        }
    }

    /// Returns whether it is `True`.
    pub(crate) fn is_true(&self) -> bool {
        self.as_number().unwrap_or_else(|raised| {
            raised.clear(self.py());
            0
        }) == 1
    }

    /// Returns its value as an integer.
    pub(crate) fn as_number(&self) -> PyResult<i64> {
        // SAFETY: alive.
        let number = unsafe { (self.py().api().PyLong_AsLongLong)(self.as_ptr()) };
        if number == -1
            && let Some(raised) = self.py().pending()
        {
            return Err(raised);
        }
        Ok(number)
    }

    /// Returns a `str` as UTF-8, in the object's memory.
    #[inline]
    pub(crate) fn as_str(&self) -> PyResult<&str> {
        let mut len = 0;
        // SAFETY: alive. The text belongs to the object and is UTF-8 while the object lives.
        unsafe {
            let pointer = (self.py().api().PyUnicode_AsUTF8AndSize)(self.as_ptr(), &raw mut len);
            if pointer.is_null() {
                return Err(PyErrSet::set());
            }
            let bytes = std::slice::from_raw_parts(pointer.cast::<u8>(), len as usize);
            Ok(std::str::from_utf8_unchecked(bytes))
        }
    }

    /// Returns a `str` whose characters are bytes; an error if one of them is above U+00FF.
    #[inline]
    pub(crate) fn as_latin1(&self) -> PyResult<Text<'_, 'py>> {
        let py = self.py();
        let text = self.as_str()?;
        // SAFETY: alive, and a `str`: the previous line has succeeded.
        let characters = unsafe { (py.api().PyUnicode_GetLength)(self.as_ptr()) };
        if characters as usize == text.len() {
            return Ok(Text::Ascii(text));
        }
        // SAFETY: alive; the reference is new.
        let bytes =
            unsafe { Object::owned(py, (py.api().PyUnicode_AsLatin1String)(self.as_ptr()))? };
        Ok(Text::Latin1(bytes))
    }

    /// Returns the contents of `bytes`, in the object's memory.
    #[inline]
    pub(crate) fn as_bytes(&self) -> Option<&[u8]> {
        let py = self.py();
        let (mut pointer, mut len) = (ptr::null_mut(), 0);
        // SAFETY: alive; the variables are local. The contents of `bytes` never change and live as long as
        // the object.
        unsafe {
            if (py.api().PyBytes_AsStringAndSize)(self.as_ptr(), &raw mut pointer, &raw mut len) < 0
            {
                (py.api().PyErr_Clear)();
                return None;
            }
            Some(std::slice::from_raw_parts(pointer.cast::<u8>(), len as usize))
        }
    }

    /// Returns whether it is exactly a `str`.
    pub(crate) fn is_exact_str(&self) -> bool {
        self.type_ptr().cast() == self.py().api().PyUnicode_Type
    }

    /// Returns whether it is exactly a `list`, not a subclass.
    #[inline]
    pub(crate) fn is_exact_list(&self) -> bool {
        self.type_ptr().cast() == self.py().api().PyList_Type
    }

    /// Returns whether it is exactly a `tuple`.
    #[inline]
    pub(crate) fn is_exact_tuple(&self) -> bool {
        self.type_ptr().cast() == self.py().api().PyTuple_Type
    }

    /// Returns whether its type is exactly `kind`.
    pub(crate) fn is_exactly(&self, kind: &Object<'_>) -> bool {
        self.type_ptr().cast() == kind.as_ptr()
    }

    /// Converts it to a list; returns itself if it is one.
    pub(crate) fn to_list(&self) -> PyResult<Self> {
        if self.is_exact_list() {
            return Ok(self.clone());
        }
        let py = self.py();
        // SAFETY: alive; the reference is new.
        unsafe { Object::owned(py, (py.api().PySequence_List)(self.as_ptr())) }
    }

    /// Returns its `len()`.
    pub(crate) fn len(&self) -> PyResult<usize> {
        // SAFETY: alive.
        let len = unsafe { (self.py().api().PyObject_Size)(self.as_ptr()) };
        usize::try_from(len).map_err(|_| PyErrSet::set())
    }

    /// Returns the length of an exact list.
    #[inline]
    pub(crate) fn list_len(&self) -> usize {
        debug_assert!(self.is_exact_list());
        // SAFETY: alive, and a list.
        unsafe { (self.py().api().PyList_Size)(self.as_ptr()) as usize }
    }

    /// Returns an item of an exact list; `IndexError` if the list has become shorter.
    #[inline]
    pub(crate) fn list_item(&self, place: usize) -> PyResult<Self> {
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
    pub(crate) fn pair(&self) -> Option<(Self, Self)> {
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

    /// Returns an item of a tuple.
    pub(crate) fn tuple_item(&self, place: usize) -> PyResult<Self> {
        let py = self.py();
        // SAFETY: alive; CPython checks the type and the index; the borrowed item lives in the tuple.
        unsafe { lent(py, (py.api().PyTuple_GetItem)(self.as_ptr(), place as isize)) }
    }

    /// Copies a dict.
    #[inline]
    pub(crate) fn dict_copy(&self) -> PyResult<Self> {
        let py = self.py();
        // SAFETY: alive; CPython checks that it is a dict; the reference is new.
        unsafe { Object::owned(py, (py.api().PyDict_Copy)(self.as_ptr())) }
    }

    /// Sets an item of a dict.
    #[inline]
    pub(crate) fn set_item(&self, key: &Object<'py>, value: &Object<'py>) -> PyResult<()> {
        let py = self.py();
        // SAFETY: all three are alive; CPython checks that the first is a dict.
        py.check(unsafe { (py.api().PyDict_SetItem)(self.as_ptr(), key.as_ptr(), value.as_ptr()) })
    }

    /// Returns an item of a dict.
    pub(crate) fn dict_item(&self, key: &Object<'py>) -> PyResult<Option<Self>> {
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
