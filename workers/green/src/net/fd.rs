//! Waiting for any descriptor, for callers without a [`Source`].

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::hub::ready::{Interest, Trigger};
use crate::hub::source::Source;

/// Suspends the greenlet until a descriptor is ready, up to `timeout`; returns whether it is.
///
/// Registers and deregisters the descriptor (two system calls): callers that wait often should keep a [`Source`].
/// What epoll cannot watch, such as a regular file, is always ready. A number that is not an open descriptor is an
/// error (`EBADF`).
pub fn wait_fd(fd: RawFd, interest: Interest, timeout: Option<Duration>) -> io::Result<bool> {
    match Source::of_raw(fd, Trigger::Level).and_then(|source| source.wait(interest, timeout)) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(true),
        // Another waiter watches the same descriptor: a duplicate has a separate registration.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            Source::new(duplicate(fd)?, Trigger::Level)?.wait(interest, timeout)
        }
        result => result,
    }
}

fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl accepts any number, and fails with EBADF if it is not a descriptor.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}
