//! Checks that a worker can accept connections before it is reported as ready: it has enough free descriptors,
//! and the system allows the call. Without this check a new release with too low a limit, or under a seccomp
//! filter, would take over and serve no one.

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};

/// Why a worker cannot accept connections.
#[derive(Debug, thiserror::Error)]
pub(super) enum CannotAccept {
    /// Its descriptors are used up, or nearly so.
    #[error(
        "the worker has only {free} free descriptors for its connections, and needs {DESCRIPTORS_MIN}: {reason}; \
         raise its limit (now {limit}: ulimit -n, LimitNOFILE) or have the application open less"
    )]
    Descriptors { free: usize, limit: u64, reason: Errno },
    /// The system call is refused.
    #[error(
        "the system does not let the worker accept connections (accept4: {0}); check for a seccomp filter"
    )]
    Refused(Errno),
}

/// Tries both without a connection: `sample` is any descriptor that is not a socket.
pub(super) fn can_accept(sample: BorrowedFd<'_>) -> Result<(), CannotAccept> {
    let mut spare: Vec<OwnedFd> = Vec::new();
    while spare.len() < DESCRIPTORS_MIN {
        match fcntl(sample, FcntlArg::F_DUPFD_CLOEXEC(0)) {
            // SAFETY: fcntl returned a new descriptor that nothing else owns.
            Ok(fd) => spare.push(unsafe { OwnedFd::from_raw_fd(fd) }),
            Err(reason) => {
                let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
                return Err(CannotAccept::Descriptors { free: spare.len(), limit, reason });
            }
        }
    }
    drop(spare);
    let nowhere = std::ptr::null_mut();
    // SAFETY: no address is requested; for a descriptor that is not a socket the call returns an error.
    let result = unsafe {
        libc::accept4(sample.as_raw_fd(), nowhere, std::ptr::null_mut(), libc::SOCK_CLOEXEC)
    };
    match Errno::result(result) {
        Err(errno @ (Errno::EPERM | Errno::EACCES | Errno::ENOSYS)) => {
            Err(CannotAccept::Refused(errno))
        }
        // The expected error, that it is not a socket.
        _ => Ok(()),
    }
}

/// Descriptors that must be free when the loop starts: with fewer, some class could accept no connection, or its
/// application could open no file.
const DESCRIPTORS_MIN: usize = 8;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_process_with_free_descriptors_can_accept() {
        let sample = File::open("/dev/null").unwrap();
        assert!(can_accept(sample.as_fd()).is_ok());
    }
}
