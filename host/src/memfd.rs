//! Files without a name, in memory or in a directory for temporary files. `memfd_create(2)` is a system call here: the C
//! libraries of the oldest systems that the wheel supports lack the function.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::libc;
pub use nix::sys::memfd::MFdFlags;

/// Creates a file without a name in the first directory that permits it: where the system refuses memfds.
pub fn unnamed_file() -> io::Result<File> {
    let mut refused = Vec::new();
    for directory in temporary_directories() {
        let mut options = File::options();
        options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE);
        match options.open(&directory) {
            Ok(file) => return Ok(file),
            Err(error) => refused.push(format!("{}: {error}", directory.display())),
        }
    }
    Err(io::Error::other(refused.join("; ")))
}

/// Returns the directories for temporary files, in the order in which they are tried.
pub fn temporary_directories() -> [PathBuf; 4] {
    [std::env::temp_dir(), "/var/tmp".into(), "/dev/shm".into(), "/run".into()]
}

/// Creates a file in memory.
pub fn memfd_create(name: &CStr, flags: MFdFlags) -> nix::Result<OwnedFd> {
    // SAFETY: the kernel copies the name, which ends in zero, and returns a new descriptor or an error.
    let number = unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), flags.bits()) };
    let number = RawFd::try_from(Errno::result(number)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
