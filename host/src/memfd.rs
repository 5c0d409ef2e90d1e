//! `memfd_create(2)` as a system call: the C libraries of the oldest systems that the wheel supports lack the function.

use std::ffi::CStr;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
pub use nix::sys::memfd::MFdFlags;

/// Creates a file in memory.
pub fn memfd_create(name: &CStr, flags: MFdFlags) -> nix::Result<OwnedFd> {
    // SAFETY: the kernel copies the name, which ends in zero, and returns a new descriptor or an error.
    let number = unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), flags.bits()) };
    let number = RawFd::try_from(Errno::result(number)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
