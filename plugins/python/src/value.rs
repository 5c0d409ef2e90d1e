//! Attributes, calls, and the values of text, bytes and numbers.

use std::ptr;

use super::error::{PyErrSet, PyResult};
use super::object::Object;

/// The text of a `str` in which each character is a byte.
pub enum Text<'a, 'py> {
    /// Pure ASCII: the object's own memory.
    Ascii(&'a str),
    /// With characters above ASCII: `bytes` created from it.
    Latin1(Object<'py>),
}

impl Text<'_, '_> {
    /// Returns the bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Ascii(text) => text.as_bytes(),
            Self::Latin1(bytes) => bytes.as_bytes().unwrap_or_default(),
        }
    }
}

impl<'py> Object<'py> {
    /// Returns an attribute by an interned name.
    pub fn attr(&self, name: &Object<'py>) -> PyResult<Self> {
        let py = self.py();
        // SAFETY: both are alive; the reference is new.
        unsafe { Object::owned(py, (py.api().PyObject_GetAttr)(self.as_ptr(), name.as_ptr())) }
    }

    /// Returns an attribute provided by the object's type, also if [`super::Native::attribute`] provides the
    /// others.
    pub fn own_attr(&self, name: &Object<'py>) -> PyResult<Self> {
        let py = self.py();
        // SAFETY: both are alive; the reference is new.
        unsafe {
            let found = (py.api().PyObject_GenericGetAttr)(self.as_ptr(), name.as_ptr());
            Object::owned(py, found)
        }
    }

    /// Returns an attribute by a name that is created for the call: not for the hot path.
    pub fn attr_named(&self, name: &str) -> PyResult<Self> {
        self.attr(&self.py().name(name.as_bytes())?)
    }

    /// Calls it with positional arguments.
    #[inline]
    pub fn call<const N: usize>(&self, arguments: [&Object<'py>; N]) -> PyResult<Self> {
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
    pub fn call_method<const N: usize>(
        &self,
        name: &str,
        arguments: [&Object<'py>; N],
    ) -> PyResult<Self> {
        self.attr_named(name)?.call(arguments)
    }

    /// Returns an iterator over it.
    pub fn iterator(&self) -> PyResult<Self> {
        let py = self.py();
        // SAFETY: alive; the reference is new.
        unsafe { Object::owned(py, (py.api().PyObject_GetIter)(self.as_ptr())) }
    }

    /// Returns the next item of an iterator; `None` at its end.
    pub fn next(&self) -> PyResult<Option<Self>> {
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
    pub fn to_text(&self) -> String {
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
    pub fn type_name(&self) -> String {
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
    pub fn is_true(&self) -> bool {
        self.as_number().unwrap_or_else(|raised| {
            raised.clear(self.py());
            0
        }) == 1
    }

    /// Returns its value as an integer.
    pub fn as_number(&self) -> PyResult<i64> {
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
    pub fn as_str(&self) -> PyResult<&str> {
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
    pub fn as_latin1(&self) -> PyResult<Text<'_, 'py>> {
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
    pub fn as_bytes(&self) -> Option<&[u8]> {
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

    /// Returns `bytes` with the contents of an object that has the buffer protocol: itself if it is `bytes`.
    pub fn to_bytes(&self) -> PyResult<Self> {
        let py = self.py();
        // SAFETY: alive; the reference is new. For exact `bytes` CPython returns the same object.
        unsafe { Object::owned(py, (py.api().PyBytes_FromObject)(self.as_ptr())) }
    }

    /// Returns whether it is exactly a `str`.
    pub fn is_exact_str(&self) -> bool {
        self.type_ptr().cast() == self.py().api().PyUnicode_Type
    }

    /// Returns whether it is a type that a class statement without a metaclass creates, or a built-in one.
    pub fn is_type(&self) -> bool {
        self.type_ptr().cast() == self.py().api().PyType_Type
    }

    /// Returns whether its type is exactly `dict`.
    #[inline]
    pub fn is_exact_dict(&self) -> bool {
        self.type_ptr().cast() == self.py().api().PyDict_Type
    }

    /// Returns whether its type is exactly `kind`.
    pub fn is_exactly(&self, kind: &Object<'_>) -> bool {
        self.type_ptr().cast() == kind.as_ptr()
    }

    /// Returns its `len()`.
    pub fn length(&self) -> PyResult<usize> {
        // SAFETY: alive.
        let len = unsafe { (self.py().api().PyObject_Size)(self.as_ptr()) };
        usize::try_from(len).map_err(|_| PyErrSet::set())
    }
}
