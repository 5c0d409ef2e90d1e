//! Which libraries the host itself has loaded: plugins share those, whatever they bring.

use std::ffi::{OsStr, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_LAZY};

use super::names::address_of;

/// Returns whether a library that was loaded before the first plugin has this name. The first call of this function
/// has to be before a plugin is loaded.
pub fn is_resident(name: &[u8]) -> bool {
    static ADDRESSES: OnceLock<Vec<usize>> = OnceLock::new();
    let addresses = ADDRESSES.get_or_init(loaded_addresses);
    // SAFETY: with this flag nothing is loaded, so that no code of a library runs.
    let loaded =
        unsafe { Library::open(Some(OsStr::from_bytes(name)), RTLD_LAZY | libc::RTLD_NOLOAD) };
    // Where the address is not known, a private library has no name by which it is found here.
    loaded.is_ok_and(|library| address_of(library).is_none_or(|at| addresses.contains(&at)))
}

fn loaded_addresses() -> Vec<usize> {
    let mut addresses: Vec<usize> = Vec::new();
    // SAFETY: the callback matches its declaration, and `data` points to the vector, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(note_address), (&raw mut addresses).cast::<c_void>()) };
    addresses
}

/// The callback of `dl_iterate_phdr(3)`.
unsafe extern "C" fn note_address(
    info: *mut libc::dl_phdr_info,
    _: libc::size_t,
    data: *mut c_void,
) -> c_int {
    // SAFETY: `info` is valid for this call, and `data` is the vector of `loaded_addresses`, used by nothing else now.
    let (info, addresses) = unsafe { (&*info, &mut *data.cast::<Vec<usize>>()) };
    addresses.push(info.dlpi_addr as usize);
    0
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
