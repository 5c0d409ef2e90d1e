//! Which libraries the host itself has loaded: plugins share those, whatever they bring.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_LAZY};

use super::names::address_of;
use crate::stack::loaded_modules;

/// Returns whether a library that was loaded before the first plugin has this name. The first call of this function
/// has to be before a plugin is loaded.
pub fn is_resident(name: &[u8]) -> bool {
    static ADDRESSES: OnceLock<Vec<u64>> = OnceLock::new();
    let addresses =
        ADDRESSES.get_or_init(|| loaded_modules().iter().map(|module| module.base).collect());
    // SAFETY: with this flag nothing is loaded, so that no code of a library runs.
    let loaded =
        unsafe { Library::open(Some(OsStr::from_bytes(name)), RTLD_LAZY | libc::RTLD_NOLOAD) };
    // Where the address is not known, a private library has no name by which it is found here.
    loaded.is_ok_and(|library| address_of(library).is_none_or(|at| addresses.contains(&at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_program_needs_is_resident() {
        assert!(is_resident(b"libc.so.6") || is_resident(b"libc.so"));
        assert!(!is_resident(b"libnone.so.1"));
    }
}
