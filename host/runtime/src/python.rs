//! The extension module `_jimu_runtime`. The functions of CPython's limited API come from the process: a reference to
//! them would prevent the library from being executed without an interpreter.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::{mem, ptr};

use host::plugin::Plugins;
use pyo3_ffi::{
    METH_O, Py_ssize_t, PyMethodDef, PyMethodDefPointer, PyModuleDef, PyModuleDef_HEAD_INIT,
    PyObject, PyThreadState,
};

/// Creates the module. Called by the interpreter when it loads this library.
#[unsafe(no_mangle)]
pub extern "C" fn PyInit__jimu_runtime() -> *mut PyObject {
    type Create = unsafe extern "C" fn(*mut PyModuleDef, c_int) -> *mut PyObject;
    // SAFETY: the interpreter calls this on an attached thread, the definition lives as long as the process, and the type
    // is that of the function.
    unsafe { function::<Create>(c"PyModule_Create2")(MODULE.0.get(), PYTHON_ABI_VERSION) }
}

/// `resume(state)`: continues as the mold, or the check, whose state is in the file with that descriptor. Returns only if
/// that is not possible: the reason.
unsafe extern "C" fn resume(_module: *mut PyObject, state: *mut PyObject) -> *mut PyObject {
    type AsLong = unsafe extern "C" fn(*mut PyObject) -> c_long;
    type SaveThread = unsafe extern "C" fn() -> *mut PyThreadState;
    type RestoreThread = unsafe extern "C" fn(*mut PyThreadState);
    type FromText = unsafe extern "C" fn(*const c_char, Py_ssize_t) -> *mut PyObject;
    // SAFETY: the interpreter passes an object, on an attached thread, which is detached while the server runs. The
    // application attaches it again, unless the server does not run. The types are those of the functions.
    unsafe {
        let descriptor = function::<AsLong>(c"PyLong_AsLong")(state);
        let thread = function::<SaveThread>(c"PyEval_SaveThread")();
        let reason = host::mold::resume::<Plugins>(c_int::try_from(descriptor).unwrap_or(-1));
        function::<RestoreThread>(c"PyEval_RestoreThread")(thread);
        let text = function::<FromText>(c"PyUnicode_FromStringAndSize");
        text(reason.as_ptr().cast(), reason.len() as Py_ssize_t)
    }
}

/// Returns a function of the interpreter.
///
/// # Safety
///
/// `F` is the type of this function's pointers.
unsafe fn function<F: Copy>(name: &CStr) -> F {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: the name is a C string.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    assert!(!address.is_null(), "the interpreter has no {}", name.to_string_lossy());
    // SAFETY: the address is that of a function of this type, by this function's contract.
    unsafe { mem::transmute_copy(&address) }
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
