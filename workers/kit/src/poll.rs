//! Waiting for one descriptor with poll(2): how a thread that may block waits.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use worker_api::Interest;

use crate::clock::now_ns;

/// Waits until `fd` is ready for `interest`; false where the deadline (monotonic nanoseconds; 0 for none) came first.
/// `awake` is called at least once a second meanwhile.
pub fn wait(fd: RawFd, interest: Interest, deadline_ns: u64, awake: impl Fn()) -> io::Result<bool> {
    // SAFETY: the descriptor is only looked at; a number that is no descriptor is answered by POLLNVAL.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let flags = if interest == Interest::READ { PollFlags::POLLIN } else { PollFlags::POLLOUT };
    loop {
        let left_ns =
            if deadline_ns == 0 { u64::MAX } else { deadline_ns.saturating_sub(now_ns()) };
        // Rounded up, so that the deadline has passed when the wait ends.
        let slice_ms = left_ns.div_ceil(1_000_000).min(SLICE_MS);
        let mut fds = [PollFd::new(fd, flags)];
        match poll(&mut fds, PollTimeout::from(slice_ms as u16)) {
            Ok(0) if left_ns <= slice_ms * 1_000_000 => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => awake(),
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The longest that a wait goes without a sign of life.
const SLICE_MS: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_wait_ends_with_the_octet_or_with_the_deadline() {
        let (mut one, other) = UnixStream::pair().unwrap();
        let soon = now_ns() + 5_000_000;
        assert!(!wait(other.as_raw_fd(), Interest::READ, soon, || ()).unwrap());
        assert!(now_ns() >= soon);
        one.write_all(b"x").unwrap();
        assert!(wait(other.as_raw_fd(), Interest::READ, 0, || ()).unwrap());
        assert!(wait(other.as_raw_fd(), Interest::WRITE, 0, || ()).unwrap());
    }
}
