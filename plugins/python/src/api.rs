//! CPython's functions, looked up by name in the interpreter that this process is.
//!
//! This module is only a table; the modules beside it make sure that calls are correct. The signatures are
//! compared by the compiler with those of `pyo3-ffi`. None of its symbols is linked, so this library loads where
//! there is no Python and reports what is missing.

use std::cell::UnsafeCell;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::mem::MaybeUninit;

use pyo3_ffi::{
    Py_ssize_t, PyGILState_STATE, PyMethodDef, PyObject, PyThreadState, PyType_Slot, PyType_Spec,
    PyTypeObject,
};

use crate::library::Library;

/// `PyObject_Vectorcall` from 3.12 on, `PyObject_VectorcallDict` before: without keywords they are equivalent.
type Vectorcall = unsafe extern "C" fn(
    *mut PyObject,
    *const *mut PyObject,
    usize,
    *mut PyObject,
) -> *mut PyObject;

macro_rules! api {
    (
        functions { $(fn $name:ident($($type:ty),*) $(-> $result:ty)?;)* }
        unchecked { $(fn $late:ident($($late_type:ty),*) $(-> $late_result:ty)?;)* }
        objects { $($object:ident)* }
        exceptions { $($exception:ident)* }
    ) => {
        /// The functions and objects of CPython that this plugin uses, by their C names.
        #[allow(non_snake_case, reason = "the names are CPython's")]
        pub struct Api {
            $(pub $name: unsafe extern "C" fn($($type),*) $(-> $result)?,)*
            $(pub $late: unsafe extern "C" fn($($late_type),*) $(-> $late_result)?,)*
            $(pub $object: *mut PyObject,)*
            $(pub $exception: *mut *mut PyObject,)*
            pub vectorcall: Vectorcall,
        }

        impl Api {
            /// Looks up everything; fails with the message for the first missing symbol.
            fn find(library: &Library) -> Result<Self, String> {
                // SAFETY: in every CPython from 3.9 on, each symbol has the type of its field.
                unsafe {
                    Ok(Self {
                        $($name: library.function(stringify!($name))?,)*
                        $($late: library.function(stringify!($late))?,)*
                        $($object: library.symbol(stringify!($object))?.cast(),)*
                        $($exception: library.symbol(stringify!($exception))?.cast(),)*
                        vectorcall: library
                            .function("PyObject_Vectorcall")
                            .or_else(|_| library.function("PyObject_VectorcallDict"))?,
                    })
                }
            }
        }

        $(const _: unsafe extern "C" fn($($type),*) $(-> $result)? = pyo3_ffi::$name;)*
    };
}

api! {
    functions {
        fn PyEval_SaveThread() -> *mut PyThreadState;
        fn PyEval_RestoreThread(*mut PyThreadState);
        fn PyGILState_Ensure() -> PyGILState_STATE;
        fn PyGILState_Release(PyGILState_STATE);
        fn PyOS_BeforeFork();
        fn PyOS_AfterFork_Parent();
        fn PyOS_AfterFork_Child();
        fn Py_IncRef(*mut PyObject);
        fn Py_DecRef(*mut PyObject);
        fn PyErr_Occurred() -> *mut PyObject;
        fn PyErr_Fetch(*mut *mut PyObject, *mut *mut PyObject, *mut *mut PyObject);
        fn PyErr_NormalizeException(*mut *mut PyObject, *mut *mut PyObject, *mut *mut PyObject);
        fn PyErr_Restore(*mut PyObject, *mut PyObject, *mut PyObject);
        fn PyErr_SetObject(*mut PyObject, *mut PyObject);
        fn PyErr_Clear();
        fn PyErr_CheckSignals() -> c_int;
        fn PyException_SetTraceback(*mut PyObject, *mut PyObject) -> c_int;
        fn PyObject_GetAttr(*mut PyObject, *mut PyObject) -> *mut PyObject;
        fn PyObject_GenericGetAttr(*mut PyObject, *mut PyObject) -> *mut PyObject;
        fn PyObject_GetIter(*mut PyObject) -> *mut PyObject;
        fn PyObject_Size(*mut PyObject) -> Py_ssize_t;
        fn PyObject_Str(*mut PyObject) -> *mut PyObject;
        fn PyIter_Next(*mut PyObject) -> *mut PyObject;
        fn PyDict_New() -> *mut PyObject;
        fn PyDict_Copy(*mut PyObject) -> *mut PyObject;
        fn PyDict_SetItem(*mut PyObject, *mut PyObject, *mut PyObject) -> c_int;
        fn PyDict_DelItem(*mut PyObject, *mut PyObject) -> c_int;
        fn PyDict_GetItemWithError(*mut PyObject, *mut PyObject) -> *mut PyObject;
        fn PyTuple_New(Py_ssize_t) -> *mut PyObject;
        fn PyTuple_SetItem(*mut PyObject, Py_ssize_t, *mut PyObject) -> c_int;
        fn PyTuple_GetItem(*mut PyObject, Py_ssize_t) -> *mut PyObject;
        fn PyTuple_Size(*mut PyObject) -> Py_ssize_t;
        fn PyList_New(Py_ssize_t) -> *mut PyObject;
        fn PyList_Size(*mut PyObject) -> Py_ssize_t;
        fn PyList_GetItem(*mut PyObject, Py_ssize_t) -> *mut PyObject;
        fn PyList_Append(*mut PyObject, *mut PyObject) -> c_int;
        fn PySequence_List(*mut PyObject) -> *mut PyObject;
        fn PyUnicode_DecodeLatin1(*const c_char, Py_ssize_t, *const c_char) -> *mut PyObject;
        fn PyUnicode_DecodeUTF8(*const c_char, Py_ssize_t, *const c_char) -> *mut PyObject;
        fn PyUnicode_InternInPlace(*mut *mut PyObject);
        fn PyUnicode_GetLength(*mut PyObject) -> Py_ssize_t;
        fn PyUnicode_AsLatin1String(*mut PyObject) -> *mut PyObject;
        fn PyBytes_FromStringAndSize(*const c_char, Py_ssize_t) -> *mut PyObject;
        fn PyBytes_FromObject(*mut PyObject) -> *mut PyObject;
        fn PyBytes_AsStringAndSize(*mut PyObject, *mut *mut c_char, *mut Py_ssize_t) -> c_int;
        fn PyLong_FromLongLong(i64) -> *mut PyObject;
        fn PyLong_AsLongLong(*mut PyObject) -> i64;
        fn PyBool_FromLong(std::ffi::c_long) -> *mut PyObject;
        fn PyImport_ImportModule(*const c_char) -> *mut PyObject;
        fn PyImport_AddModule(*const c_char) -> *mut PyObject;
        fn PyModule_GetDict(*mut PyObject) -> *mut PyObject;
        fn PyEval_EvalCode(*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject;
        fn PyType_FromSpec(*mut PyType_Spec) -> *mut PyObject;
        fn PyType_GenericAlloc(*mut PyTypeObject, Py_ssize_t) -> *mut PyObject;
        fn PyObject_Free(*mut c_void);
        fn PyObject_ClearWeakRefs(*mut PyObject);
    }
    unchecked {
        // In current headers, the first two are macros for newer functions, and the stable ABI keeps them;
        // the third is in the limited API only from 3.10 on, but every version exports it. `pyo3-ffi` does not declare the
        // fourth, which is in the stable ABI.
        fn Py_CompileString(*const c_char, *const c_char, c_int) -> *mut PyObject;
        fn PyCFunction_NewEx(*mut PyMethodDef, *mut PyObject, *mut PyObject) -> *mut PyObject;
        fn PyUnicode_AsUTF8AndSize(*mut PyObject, *mut Py_ssize_t) -> *const c_char;
        fn _PyBytes_Resize(*mut *mut PyObject, Py_ssize_t) -> c_int;
    }
    objects {
        _Py_NoneStruct
        PyList_Type
        PyTuple_Type
        PyType_Type
        PyDict_Type
        PyUnicode_Type
    }
    exceptions {
        PyExc_AssertionError
        PyExc_ConnectionResetError
        PyExc_OSError
        PyExc_RuntimeError
        PyExc_StopIteration
        PyExc_TimeoutError
        PyExc_TypeError
        PyExc_ValueError
    }
}

/// Fills the table. Called once per process.
///
/// # Errors
/// The message for the missing symbol.
///
/// # Safety
/// Called once, before any thread of this process can reach [`fn@api`].
pub(super) unsafe fn install(library: &Library) -> Result<(), String> {
    let found = Api::find(library)?;
    // SAFETY: the table is not read before this function has returned, by its contract.
    unsafe { (*TABLE.0.get()).write(found) };
    Ok(())
}

/// Returns the table.
///
/// # Safety
/// Only after [`install`] has succeeded. The existence of a [`super::Python`] proves that.
#[inline]
pub(super) unsafe fn api() -> &'static Api {
    // SAFETY: written by `install`, and never again.
    unsafe { (*TABLE.0.get()).assume_init_ref() }
}

/// The table itself rather than a pointer to it, so that a call is one indirect jump.
struct Table(UnsafeCell<MaybeUninit<Api>>);

// SAFETY: written once before it is shared (`install`), only read afterwards.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new(MaybeUninit::uninit()));

// Constants of CPython that the table's functions use, frozen by its stable ABI.

/// `Py_file_input`: a whole file of statements.
pub const FILE_INPUT: c_int = 257;
/// `METH_FASTCALL`: in the limited API since 3.10, with the same meaning since 3.7.
pub const METH_FASTCALL: c_int = 0x80;
/// `METH_KEYWORDS`.
pub const METH_KEYWORDS: c_int = 0x02;
/// `Py_TPFLAGS_DEFAULT`, as far as it is in the stable ABI.
pub const TPFLAGS_DEFAULT: c_uint = 1 << 18;
/// Terminates a list of type slots.
pub const LAST_SLOT: PyType_Slot = PyType_Slot { slot: 0, pfunc: std::ptr::null_mut() };
