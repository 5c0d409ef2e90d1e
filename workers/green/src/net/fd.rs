//! Waiting for any descriptor, for callers that keep no [`Source`] for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::hub::ready::{Interest, Trigger};
use crate::hub::source::Source;

/// Suspends the greenlet until a descriptor is ready, at most `timeout`; answers whether it is.
///
/// Registers and deregisters the descriptor (two system calls): who waits often keeps a
/// [`Source`]. What epoll cannot watch, such as a regular file, is always ready.
pub fn wait_fd(fd: impl AsFd, interest: Interest, timeout: Option<Duration>) -> io::Result<bool> {
    let fd = fd.as_fd();
    match Source::new(fd, Trigger::Level).and_then(|source| source.wait(interest, timeout)) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(true),
        // Somebody else watches the same descriptor: a duplicate has a registration of its own.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            let duplicate: OwnedFd = fd.try_clone_to_owned()?;
            Source::new(duplicate, Trigger::Level)?.wait(interest, timeout)
        }
        result => result,
    }
}
