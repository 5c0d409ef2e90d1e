//! New values: text, bytes, numbers, containers and modules.

use std::ffi::{CStr, CString};
use std::ptr;

use super::api;
use super::attach::Python;
use super::error::{PyErrSet, PyResult};
use super::exception::Exception;
use super::object::Object;

impl<'py> Python<'py> {
    /// Returns `None`.
    pub fn none(self) -> Object<'py> {
        // SAFETY: `None` is always alive.
        unsafe { Object::shared(self, self.api()._Py_NoneStruct) }
    }

    /// Runs pending signal handlers, on Python's main thread.
    pub fn check_signals(self) -> PyResult<()> {
        // SAFETY: attached.
        self.check(unsafe { (self.api().PyErr_CheckSignals)() })
    }

    /// Returns `True` or `False`.
    pub fn truth(self, value: bool) -> PyResult<Object<'py>> {
        // SAFETY: attached; the reference is new.
        unsafe { Object::owned(self, (self.api().PyBool_FromLong)(value.into())) }
    }

    /// Creates an integer.
    pub fn number(self, value: i64) -> PyResult<Object<'py>> {
        // SAFETY: attached; the reference is new.
        unsafe { Object::owned(self, (self.api().PyLong_FromLongLong)(value)) }
    }

    /// Creates a string.
    pub fn text(self, value: &str) -> PyResult<Object<'py>> {
        self.utf8(value.as_bytes())
    }

    /// Creates a string from UTF-8; `UnicodeDecodeError` if it is none.
    pub fn utf8(self, value: &[u8]) -> PyResult<Object<'py>> {
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
    pub fn latin1(self, bytes: &[u8]) -> PyResult<Object<'py>> {
        let pointer = bytes.as_ptr().cast();
        // SAFETY: attached; the bytes are valid for the call.
        unsafe {
            let made =
                (self.api().PyUnicode_DecodeLatin1)(pointer, bytes.len() as isize, ptr::null());
            Object::owned(self, made)
        }
    }

    /// Creates an interned string, for keys and names.
    pub fn name(self, bytes: &[u8]) -> PyResult<Object<'py>> {
        let mut pointer = self.latin1(bytes)?.into_ptr();
        // SAFETY: takes the reference to an exact `str` and returns one in its place.
        unsafe {
            (self.api().PyUnicode_InternInPlace)(&raw mut pointer);
            Object::owned(self, pointer)
        }
    }

    /// Creates `bytes`.
    pub fn bytes(self, value: &[u8]) -> PyResult<Object<'py>> {
        // SAFETY: attached; the bytes are valid for the call.
        unsafe {
            let made =
                (self.api().PyBytes_FromStringAndSize)(value.as_ptr().cast(), value.len() as isize);
            Object::owned(self, made)
        }
    }

    /// Creates an empty dict.
    pub fn dict(self) -> PyResult<Object<'py>> {
        // SAFETY: attached; the reference is new.
        unsafe { Object::owned(self, (self.api().PyDict_New)()) }
    }

    /// Creates a tuple.
    pub fn tuple<const N: usize>(self, items: [Object<'py>; N]) -> PyResult<Object<'py>> {
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
    pub fn list(self, items: impl IntoIterator<Item = Object<'py>>) -> PyResult<Object<'py>> {
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
    pub fn import(self, name: &str) -> PyResult<Object<'py>> {
        let name = CString::new(name).map_err(|_| {
            PyErrSet::new(self, Exception::Value, "the module's name contains a NUL byte")
        })?;
        // SAFETY: attached; a C string.
        unsafe { Object::owned(self, (self.api().PyImport_ImportModule)(name.as_ptr())) }
    }

    /// Creates a module from source code and registers it under that name. The code can use `natives` by their
    /// names.
    pub fn module(
        self,
        name: &str,
        source: &str,
        natives: &[(&CStr, Object<'py>)],
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
            for (name, native) in natives {
                names.set_item(&self.name(name.to_bytes())?, native)?;
            }
            let code = (api.Py_CompileString)(source.as_ptr(), file.as_ptr(), api::FILE_INPUT);
            let code = Object::owned(self, code)?;
            let done = (api.PyEval_EvalCode)(code.as_ptr(), names.as_ptr(), names.as_ptr());
            Object::owned(self, done)?;
            Ok(module)
        }
    }
}
