//! The application's file descriptors.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, RawFd};

/// Duplicates the application's descriptor of a file, so that it no longer matters what becomes of it.
///
/// # Errors
/// The number is not an open descriptor, or the process has as many as it may have.
pub fn duplicate(fd: RawFd) -> io::Result<File> {
    // SAFETY: fcntl(2) accepts any number as a descriptor, and this command takes an integer.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and belongs to nothing else.
    Ok(unsafe { File::from_raw_fd(copy) })
}
