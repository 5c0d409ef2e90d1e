//! The extension module `_jimu_runtime`, which the interpreter that a mold executes loads (see `host::interpreter`).
//! Contains no logic. It refers to symbols of CPython's limited API, which the interpreter provides.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::ptr;

use host::plugin::Plugins;
use pyo3_ffi::{
    METH_O, Py_ssize_t, PyEval_RestoreThread, PyEval_SaveThread, PyLong_AsLong, PyMethodDef,
    PyMethodDefPointer, PyModule_Create2, PyModuleDef, PyModuleDef_HEAD_INIT, PyObject,
    PyUnicode_FromStringAndSize,
};

/// Creates the module. Called by the interpreter when it loads this library.
#[unsafe(no_mangle)]
pub extern "C" fn PyInit__jimu_runtime() -> *mut PyObject {
    // SAFETY: the interpreter calls this on an attached thread, and the definition lives as long as the process.
    unsafe { PyModule_Create2(MODULE.0.get(), PYTHON_ABI_VERSION) }
}

/// `resume(state)`: continues as the mold, or the check, whose state is in the file with that descriptor. Returns only if
/// that is not possible: the reason.
unsafe extern "C" fn resume(_module: *mut PyObject, state: *mut PyObject) -> *mut PyObject {
    // SAFETY: the interpreter passes an object, on an attached thread, which is detached while the server runs. The
    // application attaches it again, unless the server does not run.
    unsafe {
        let descriptor = c_int::try_from(PyLong_AsLong(state)).unwrap_or(-1);
        let thread = PyEval_SaveThread();
        let reason = host::mold::resume::<Plugins>(descriptor);
        PyEval_RestoreThread(thread);
        PyUnicode_FromStringAndSize(reason.as_ptr().cast(), reason.len() as Py_ssize_t)
    }
}

struct Shared<T>(UnsafeCell<T>);

// SAFETY: the interpreter alone reads and writes the definitions, while it creates the module.
unsafe impl<T> Sync for Shared<T> {}

static MODULE: Shared<PyModuleDef> = Shared(UnsafeCell::new(PyModuleDef {
    m_base: PyModuleDef_HEAD_INIT,
    m_name: c"_jimu_runtime".as_ptr(),
    m_doc: ptr::null(),
    m_size: 0,
    m_methods: METHODS.0.get().cast(),
    m_slots: ptr::null_mut(),
    m_traverse: None,
    m_clear: None,
    m_free: None,
}));

static METHODS: Shared<[PyMethodDef; 2]> = Shared(UnsafeCell::new([
    PyMethodDef {
        ml_name: c"resume".as_ptr(),
        ml_meth: PyMethodDefPointer { PyCFunction: resume },
        ml_flags: METH_O,
        ml_doc: ptr::null(),
    },
    PyMethodDef::zeroed(),
]));

/// `PYTHON_ABI_VERSION`: that of the stable ABI.
const PYTHON_ABI_VERSION: c_int = 3;
