//! CPython in this process: the symbols that the interpreter's executable, or its libpython, exports.
//!
//! The only module that calls `dlsym`.

use std::ffi::{CString, c_void};

/// The functions and objects that all libraries of this process can refer to.
pub struct Library(());

impl Library {
    /// Finds CPython.
    ///
    /// # Errors
    /// A line, if this process is no Python interpreter.
    pub fn of_process() -> Result<Self, String> {
        let library = Self(());
        match library.symbol("PyGILState_Ensure") {
            Ok(_) => Ok(library),
            Err(_) => Err("this process is not a Python interpreter".to_owned()),
        }
    }

    /// Returns the address of a symbol.
    ///
    /// # Errors
    /// A line that names the symbol.
    #[expect(clippy::unused_self, reason = "the value proves that CPython is there")]
    pub fn symbol(&self, name: &str) -> Result<*mut c_void, String> {
        let c_name = CString::new(name).map_err(|_| format!("{name:?} contains a NUL byte"))?;
        // SAFETY: the name is a C string.
        let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c_name.as_ptr()) };
        if address.is_null() { Err(format!("symbol {name} not found")) } else { Ok(address) }
    }

    /// Returns a function.
    ///
    /// # Errors
    /// A line that names the symbol.
    ///
    /// # Safety
    /// `F` must be a function pointer type that matches the function of this name.
    pub unsafe fn function<F: Copy>(&self, name: &str) -> Result<F, String> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        let address = self.symbol(name)?;
        // SAFETY: `F` is a function pointer of the size of an address, by this function's contract.
        Ok(unsafe { std::mem::transmute_copy(&address) })
    }
}
