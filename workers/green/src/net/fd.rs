//! Waiting for any descriptor, for callers without a [`Source`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::hub::ready::{Interest, Trigger};
use crate::hub::source::Source;

/// Suspends the greenlet until a descriptor is ready, up to `timeout`; returns whether it is.
///
/// Registers and deregisters the descriptor (two system calls): callers that wait often should keep a [`Source`].
/// What epoll cannot watch, such as a regular file, is always ready.
pub fn wait_fd(fd: impl AsFd, interest: Interest, timeout: Option<Duration>) -> io::Result<bool> {
    let fd = fd.as_fd();
    match Source::new(fd, Trigger::Level).and_then(|source| source.wait(interest, timeout)) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(true),
        // Another waiter watches the same descriptor: a duplicate has a separate registration.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            let duplicate: OwnedFd = fd.try_clone_to_owned()?;
            Source::new(duplicate, Trigger::Level)?.wait(interest, timeout)
        }
        result => result,
    }
}
