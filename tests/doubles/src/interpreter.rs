//! Makes a test process a Python interpreter, as the server's mold is one, from the library of an installed Python.

use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::process::Command;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// Returns whether the interpreter has a shared library; one that is linked statically may have none.
pub(crate) fn has_library(python: &Path) -> bool {
    library_of(python).is_some()
}

fn library_of(python: &Path) -> Option<PathBuf> {
    let output = Command::new(python).args(["-I", "-c", QUERY]).output().ok()?;
    let facts: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    facts["library"].as_str().map(PathBuf::from)
}

/// Starts the interpreter in this process, which becomes that of the virtual environment of `python`, and detaches the
/// thread. Call it once.
pub(crate) fn become_python(python: &Path) {
    let name: Vec<libc::wchar_t> =
        python.to_str().expect("UTF-8").chars().map(|c| c as libc::wchar_t).chain([0]).collect();
    let library = library_of(python).expect("a shared library");
    // SAFETY: the functions have these types in every CPython from 3.9 on; the name is never freed, and the process has
    // one thread that uses Python.
    unsafe {
        let library = Library::open(Some(library), RTLD_NOW | RTLD_GLOBAL).expect("libpython");
        let set = library.get::<unsafe extern "C" fn(*const libc::wchar_t)>(b"Py_SetProgramName");
        set.expect("Py_SetProgramName")(name.leak().as_ptr());
        let start = library.get::<unsafe extern "C" fn(c_int)>(b"Py_InitializeEx");
        start.expect("Py_InitializeEx")(0);
        let detach = library.get::<unsafe extern "C" fn() -> *mut ()>(b"PyEval_SaveThread");
        detach.expect("PyEval_SaveThread")();
        std::mem::forget(library);
    }
}

/// Prints the properties of an interpreter.
const QUERY: &str = include_str!("query.py");
