//! libpython: opened with global symbols, so that Python's extension modules find them.
//!
//! The only module that calls `dlopen` and `dlsym`.

use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// libpython, open until the process exits.
pub(crate) struct Library {
    handle: *mut c_void,
}

impl Library {
    /// Opens the library at `path`, with its symbols visible to all libraries opened later.
    ///
    /// # Errors
    /// The message of the dynamic linker.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| "the path contains a NUL byte".to_owned())?;
        // SAFETY: libpython's constructors have no requirements; the name is a C string.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        if handle.is_null() {
            return Err(last_error());
        }
        Ok(Self { handle })
    }

    /// Returns the address of a symbol.
    ///
    /// # Errors
    /// A line that names the symbol.
    pub(crate) fn symbol(&self, name: &str) -> Result<*mut c_void, String> {
        let c_name = CString::new(name).map_err(|_| format!("{name:?} contains a NUL byte"))?;
        // SAFETY: the handle is open, the name is a C string.
        let address = unsafe { libc::dlsym(self.handle, c_name.as_ptr()) };
        if address.is_null() { Err(format!("symbol {name} not found")) } else { Ok(address) }
    }

    /// Returns a function.
    ///
    /// # Errors
    /// A line that names the symbol.
    ///
    /// # Safety
    /// `F` must be a function pointer type that matches the function of this name.
    pub(crate) unsafe fn function<F: Copy>(&self, name: &str) -> Result<F, String> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        let address = self.symbol(name)?;
        // SAFETY: `F` is a function pointer of the size of an address, by this function's contract.
        Ok(unsafe { std::mem::transmute_copy(&address) })
    }
}

fn last_error() -> String {
    // SAFETY: dlerror returns a C string that is valid until the next call in this thread, or null.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "unknown error of the dynamic linker".to_owned();
    }
    // SAFETY: not null, see above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
