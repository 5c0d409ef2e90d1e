//! Text, octets, numbers, containers and calls.

use std::ffi::CString;
use std::ptr;

use pyo3_ffi::PyObject;

use super::api;
use super::attach::Python;
use super::object::Object;
use super::raised::{Exception, PyResult, Raised};

impl<'py> Python<'py> {
    /// `None`.
    pub(crate) fn none(self) -> Object<'py> {
        // SAFETY: `None` is always alive.
        unsafe { Object::shared(self, self.api()._Py_NoneStruct) }
    }

    /// Runs the handlers of signals that have come, where this is Python's main thread.
    pub(crate) fn check_signals(self) -> PyResult<()> {
        // SAFETY: attached.
        self.check(unsafe { (self.api().PyErr_CheckSignals)() })
    }

    /// `True` or `False`.
    pub(crate) fn truth(self, value: bool) -> PyResult<Object<'py>> {
        // SAFETY: attached; the reference is new.
        unsafe { Object::owned(self, (self.api().PyBool_FromLong)(value.into())) }
    }

    /// A number.
    pub(crate) fn number(self, value: i64) -> PyResult<Object<'py>> {
        // SAFETY: attached; the reference is new.
        unsafe { Object::owned(self, (self.api().PyLong_FromLongLong)(value)) }
    }

    /// Text.
    pub(crate) fn text(self, value: &str) -> PyResult<Object<'py>> {
        let pointer = value.as_ptr().cast();
        // SAFETY: attached; the octets are valid for the call; "strict" is the default where nothing is named.
        unsafe {
            let made =
                (self.api().PyUnicode_DecodeUTF8)(pointer, value.len() as isize, ptr::null());
            Object::owned(self, made)
        }
    }

    /// Text of which each octet is one character (latin-1), as PEP 3333 wants it.
    #[inline]
    pub(crate) fn latin1(self, octets: &[u8]) -> PyResult<Object<'py>> {
        let pointer = octets.as_ptr().cast();
        // SAFETY: attached; the octets are valid for the call.
        unsafe {
            let made =
                (self.api().PyUnicode_DecodeLatin1)(pointer, octets.len() as isize, ptr::null());
            Object::owned(self, made)
        }
    }

    /// Interned text: for keys and names.
    pub(crate) fn name(self, octets: &[u8]) -> PyResult<Object<'py>> {
        let mut pointer = self.latin1(octets)?.into_ptr();
        // SAFETY: takes the reference to an exact `str` and gives one back in its place.
        unsafe {
            (self.api().PyUnicode_InternInPlace)(&raw mut pointer);
            Object::owned(self, pointer)
        }
    }

    /// Octets.
    pub(crate) fn octets(self, value: &[u8]) -> PyResult<Object<'py>> {
        // SAFETY: attached; the octets are valid for the call.
        unsafe {
            let made =
                (self.api().PyBytes_FromStringAndSize)(value.as_ptr().cast(), value.len() as isize);
            Object::owned(self, made)
        }
    }

    /// An empty dict.
    pub(crate) fn dict(self) -> PyResult<Object<'py>> {
        // SAFETY: attached; the reference is new.
        unsafe { Object::owned(self, (self.api().PyDict_New)()) }
    }

    /// A tuple of these.
    pub(crate) fn tuple<const N: usize>(self, items: [Object<'py>; N]) -> PyResult<Object<'py>> {
        let api = self.api();
        // SAFETY: a new tuple of N places, each of which takes one reference, in order.
        unsafe {
            let tuple = Object::owned(self, (api.PyTuple_New)(N as isize))?;
            for (place, item) in items.into_iter().enumerate() {
                self.check((api.PyTuple_SetItem)(tuple.as_ptr(), place as isize, item.into_ptr()))?;
            }
            Ok(tuple)
        }
    }

    /// A list of these.
    pub(crate) fn list(
        self,
        items: impl IntoIterator<Item = Object<'py>>,
    ) -> PyResult<Object<'py>> {
        let api = self.api();
        // SAFETY: a new list, and references that are alive.
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
        let name = CString::new(name)
            .map_err(|_| Raised::new(self, Exception::Value, "a module's name has no NUL"))?;
        // SAFETY: attached; a C string.
        unsafe { Object::owned(self, (self.api().PyImport_ImportModule)(name.as_ptr())) }
    }

    /// Makes a module of that source, visible to `import` under that name.
    pub(crate) fn module(
        self,
        name: &str,
        source: &str,
        natives: &[(&str, Object<'py>)],
    ) -> PyResult<Object<'py>> {
        let nul = |_| Raised::new(self, Exception::Value, "a module's source has no NUL");
        let file = CString::new(format!("<{name}>")).map_err(nul)?;
        let c_name = CString::new(name).map_err(nul)?;
        let source = CString::new(source).map_err(nul)?;
        let api = self.api();
        // SAFETY: attached; C strings; `AddModule` and `GetDict` lend what they give.
        unsafe {
            let module = (api.PyImport_AddModule)(c_name.as_ptr());
            if module.is_null() {
                return Err(Raised::set());
            }
            let module = Object::shared(self, module);
            let names = Object::shared(self, (api.PyModule_GetDict)(module.as_ptr()));
            let builtins = self.import("builtins")?;
            names.set_item(&self.name(b"__builtins__")?, &builtins)?;
            for (name, object) in natives {
                names.set_item(&self.name(name.as_bytes())?, object)?;
            }
            let code = (api.Py_CompileString)(source.as_ptr(), file.as_ptr(), api::FILE_INPUT);
            let code = Object::owned(self, code)?;
            let done = (api.PyEval_EvalCode)(code.as_ptr(), names.as_ptr(), names.as_ptr());
            Object::owned(self, done)?;
            Ok(module)
        }
    }
}

/// The text of a `str`, of which each character is an octet.
pub(crate) enum Text<'a, 'py> {
    /// All ASCII: the object's own memory.
    Ascii(&'a str),
    /// With characters above: `bytes` made of it.
    Latin1(Object<'py>),
}

impl Text<'_, '_> {
    /// The octets.
    #[inline]
    pub(crate) fn octets(&self) -> &[u8] {
        match self {
            Self::Ascii(text) => text.as_bytes(),
            Self::Latin1(bytes) => bytes.as_octets().unwrap_or_default(),
        }
    }
}

impl<'py> Object<'py> {
    /// An attribute, by an interned name.
    pub(crate) fn attr(&self, name: &Object<'py>) -> PyResult<Self> {
        let py = self.py();
        // SAFETY: both are alive; the reference is new.
        unsafe { Object::owned(py, (py.api().PyObject_GetAttr)(self.as_ptr(), name.as_ptr())) }
    }

    /// An attribute that the object's type gives it, also where [`super::Native::attribute`] answers for the others.
    pub(crate) fn own_attr(&self, name: &Object<'py>) -> PyResult<Self> {
        let py = self.py();
        // SAFETY: both are alive; the reference is new.
        unsafe {
            let found = (py.api().PyObject_GenericGetAttr)(self.as_ptr(), name.as_ptr());
            Object::owned(py, found)
        }
    }

    /// An attribute, by a name that is made for it: not for the way of every request.
    pub(crate) fn attr_named(&self, name: &str) -> PyResult<Self> {
        self.attr(&self.py().name(name.as_bytes())?)
    }

    /// Calls it with these arguments, by position.
    #[inline]
    pub(crate) fn call<const N: usize>(&self, arguments: [&Object<'py>; N]) -> PyResult<Self> {
        let py = self.py();
        let pointers = arguments.map(Object::as_ptr);
        // SAFETY: all are alive for the call; nothing stands for "no keywords".
        unsafe {
            let result =
                (py.api().vectorcall)(self.as_ptr(), pointers.as_ptr(), N, ptr::null_mut());
            Object::owned(py, result)
        }
    }

    /// Calls a method by its name: not for the way of every request.
    pub(crate) fn call_method<const N: usize>(
        &self,
        name: &str,
        arguments: [&Object<'py>; N],
    ) -> PyResult<Self> {
        self.attr_named(name)?.call(arguments)
    }

    /// An iterator over it.
    pub(crate) fn iterator(&self) -> PyResult<Self> {
        let py = self.py();
        // SAFETY: alive; the reference is new.
        unsafe { Object::owned(py, (py.api().PyObject_GetIter)(self.as_ptr())) }
    }

    /// The next of an iterator; nothing at its end.
    pub(crate) fn next(&self) -> PyResult<Option<Self>> {
        let py = self.py();
        // SAFETY: alive; the reference is new, and null without an error stands for the end.
        let item = unsafe { (py.api().PyIter_Next)(self.as_ptr()) };
        if item.is_null() {
            return py.pending().map_or(Ok(None), Err);
        }
        // SAFETY: a new reference that is not null.
        unsafe { Object::owned(py, item).map(Some) }
    }

    /// `str()` of it, for messages.
    pub(crate) fn to_text(&self) -> String {
        let py = self.py();
        // SAFETY: alive; the reference is new.
        let text = unsafe { Object::owned(py, (py.api().PyObject_Str)(self.as_ptr())) };
        match text.and_then(|text| text.as_str().map(str::to_owned)) {
            Ok(text) => text,
            Err(raised) => {
                raised.clear(py);
                "(no text)".to_owned()
            }
        }
    }

    /// The name of its type, for messages.
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

    /// Whether it is `True`.
    pub(crate) fn is_true(&self) -> bool {
        self.as_number().unwrap_or_else(|raised| {
            raised.clear(self.py());
            0
        }) == 1
    }

    /// The number that it is.
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

    /// A `str` as UTF-8, in the object's own memory.
    #[inline]
    pub(crate) fn as_str(&self) -> PyResult<&str> {
        let mut len = 0;
        // SAFETY: alive. The text belongs to the object and is UTF-8, as long as the object lives.
        unsafe {
            let pointer = (self.py().api().PyUnicode_AsUTF8AndSize)(self.as_ptr(), &raw mut len);
            if pointer.is_null() {
                return Err(Raised::set());
            }
            let octets = std::slice::from_raw_parts(pointer.cast::<u8>(), len as usize);
            Ok(std::str::from_utf8_unchecked(octets))
        }
    }

    /// A `str` whose characters are octets; an error where one of them is above U+00FF.
    #[inline]
    pub(crate) fn as_latin1(&self) -> PyResult<Text<'_, 'py>> {
        let py = self.py();
        let text = self.as_str()?;
        // SAFETY: alive, and a `str`: the line above has returned well.
        let characters = unsafe { (py.api().PyUnicode_GetLength)(self.as_ptr()) };
        if characters as usize == text.len() {
            return Ok(Text::Ascii(text));
        }
        // SAFETY: alive; the reference is new.
        let bytes =
            unsafe { Object::owned(py, (py.api().PyUnicode_AsLatin1String)(self.as_ptr()))? };
        Ok(Text::Latin1(bytes))
    }

    /// The octets of a `bytes`, in the object's own memory.
    #[inline]
    pub(crate) fn as_octets(&self) -> Option<&[u8]> {
        let py = self.py();
        let (mut pointer, mut len) = (ptr::null_mut(), 0);
        // SAFETY: alive; the places are ours. The octets of a `bytes` never change, and live as long as it.
        unsafe {
            if (py.api().PyBytes_AsStringAndSize)(self.as_ptr(), &raw mut pointer, &raw mut len) < 0
            {
                (py.api().PyErr_Clear)();
                return None;
            }
            Some(std::slice::from_raw_parts(pointer.cast::<u8>(), len as usize))
        }
    }

    /// Whether it is exactly a `str`.
    pub(crate) fn is_exact_str(&self) -> bool {
        self.type_ptr().cast() == self.py().api().PyUnicode_Type
    }

    /// Whether it is exactly a `list`, and no subclass of it.
    #[inline]
    pub(crate) fn is_exact_list(&self) -> bool {
        self.type_ptr().cast() == self.py().api().PyList_Type
    }

    /// Whether it is exactly a `tuple`.
    #[inline]
    pub(crate) fn is_exact_tuple(&self) -> bool {
        self.type_ptr().cast() == self.py().api().PyTuple_Type
    }

    /// Whether its type is exactly `kind`.
    pub(crate) fn is_exactly(&self, kind: &Object<'_>) -> bool {
        self.type_ptr().cast() == kind.as_ptr()
    }

    /// `list()` of it; itself where it is one.
    pub(crate) fn to_list(&self) -> PyResult<Self> {
        if self.is_exact_list() {
            return Ok(self.clone());
        }
        let py = self.py();
        // SAFETY: alive; the reference is new.
        unsafe { Object::owned(py, (py.api().PySequence_List)(self.as_ptr())) }
    }

    /// `len()` of it.
    pub(crate) fn len(&self) -> PyResult<usize> {
        // SAFETY: alive.
        let len = unsafe { (self.py().api().PyObject_Size)(self.as_ptr()) };
        usize::try_from(len).map_err(|_| Raised::set())
    }

    /// The length of an exact list.
    #[inline]
    pub(crate) fn list_len(&self) -> usize {
        debug_assert!(self.is_exact_list());
        // SAFETY: alive, and a list.
        unsafe { (self.py().api().PyList_Size)(self.as_ptr()) as usize }
    }

    /// An item of an exact list. Nothing where the list has become shorter.
    #[inline]
    pub(crate) fn list_item(&self, place: usize) -> PyResult<Self> {
        let py = self.py();
        // SAFETY: alive; what is lent is alive until somebody changes the list, which nobody does before the next
        // line makes a reference of it.
        unsafe {
            let item = (py.api().PyList_GetItem)(self.as_ptr(), place as isize);
            lent(py, item)
        }
    }

    /// The two items of an exact tuple of two.
    #[inline]
    pub(crate) fn pair(&self) -> Option<(Self, Self)> {
        if !self.is_exact_tuple() {
            return None;
        }
        let py = self.py();
        let api = py.api();
        // SAFETY: a tuple, alive, of two items; both are alive while it is.
        unsafe {
            if (api.PyTuple_Size)(self.as_ptr()) != 2 {
                return None;
            }
            let first = Object::shared(py, (api.PyTuple_GetItem)(self.as_ptr(), 0));
            let second = Object::shared(py, (api.PyTuple_GetItem)(self.as_ptr(), 1));
            Some((first, second))
        }
    }

    /// An item of a tuple.
    pub(crate) fn tuple_item(&self, place: usize) -> PyResult<Self> {
        let py = self.py();
        // SAFETY: alive; CPython checks that it is a tuple and has the place; what is lent lives in the tuple.
        unsafe { lent(py, (py.api().PyTuple_GetItem)(self.as_ptr(), place as isize)) }
    }

    /// A copy of a dict.
    #[inline]
    pub(crate) fn dict_copy(&self) -> PyResult<Self> {
        let py = self.py();
        // SAFETY: alive; CPython checks that it is a dict; the reference is new.
        unsafe { Object::owned(py, (py.api().PyDict_Copy)(self.as_ptr())) }
    }

    /// Puts an item into a dict.
    #[inline]
    pub(crate) fn set_item(&self, key: &Object<'py>, value: &Object<'py>) -> PyResult<()> {
        let py = self.py();
        // SAFETY: all three are alive; CPython checks that the first is a dict.
        py.check(unsafe { (py.api().PyDict_SetItem)(self.as_ptr(), key.as_ptr(), value.as_ptr()) })
    }

    /// An item of a dict.
    pub(crate) fn dict_item(&self, key: &Object<'py>) -> PyResult<Option<Self>> {
        let py = self.py();
        // SAFETY: alive; what is lent is alive until the dict changes, and becomes a reference before that.
        unsafe {
            let item = (py.api().PyDict_GetItemWithError)(self.as_ptr(), key.as_ptr());
            if item.is_null() {
                return py.pending().map_or(Ok(None), Err);
            }
            Ok(Some(Object::shared(py, item)))
        }
    }
}

/// A reference to what CPython lent; null means that an error is set.
///
/// # Safety
/// `item` is null with an error set, or alive.
#[inline]
unsafe fn lent(py: Python<'_>, item: *mut PyObject) -> PyResult<Object<'_>> {
    if item.is_null() {
        return Err(Raised::set());
    }
    // SAFETY: alive, by this function's contract.
    Ok(unsafe { Object::shared(py, item) })
}
