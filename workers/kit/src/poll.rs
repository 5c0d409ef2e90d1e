//! Waiting for one descriptor with poll(2): how a thread that may block waits.

use std::io;
use std::os::fd::RawFd;

use worker_api::Interest;

use crate::clock::now_ns;
use crate::deadline::Deadline;

/// Waits until `fd` is ready for `interest`; returns false at the deadline.
/// Fails with `EBADF` if the number is not an open descriptor. Calls `awake` at least once a second while it
/// waits.
pub fn wait(
    fd: RawFd,
    interest: Interest,
    deadline: Deadline,
    awake: impl Fn(),
) -> io::Result<bool> {
    if fd < 0 {
        // poll(2) ignores negative numbers and would wait forever.
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    let events = match interest {
        Interest::READ => libc::POLLIN,
        Interest::READ_WRITE => libc::POLLIN | libc::POLLOUT,
        _ => libc::POLLOUT,
    };
    loop {
        let left_ns = deadline.left_ns_at(now_ns());
        // Rounded up, so that the deadline has passed when the wait ends.
        let slice_ms = left_ns.div_ceil(1_000_000).min(SLICE_MS);
        let mut entry = libc::pollfd { fd, events, revents: 0 };
        // SAFETY: `entry` is one pollfd, valid for the whole call. poll(2) accepts any number as a
        // descriptor.
        match unsafe { libc::poll(&raw mut entry, 1, slice_ms as libc::c_int) } {
            0 if left_ns <= slice_ms * 1_000_000 => return Ok(false),
            0 => awake(),
            -1 => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => awake(),
                error => return Err(error),
            },
            _ if entry.revents & libc::POLLNVAL != 0 => {
                return Err(io::Error::from_raw_os_error(libc::EBADF));
            }
            _ => return Ok(true),
        }
    }
}

/// Returns whether the peer of a stream socket has shut down its side, without waiting.
pub fn has_ended(fd: RawFd) -> bool {
    let mut entry = libc::pollfd { fd, events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: `entry` is one pollfd, valid for the whole call. poll(2) accepts any number as a descriptor.
    let count = unsafe { libc::poll(&raw mut entry, 1, 0) };
    count == 1 && entry.revents & libc::POLLRDHUP != 0
}

/// The longest wait between two calls of `awake`.
const SLICE_MS: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    const SOON: Duration = Duration::from_millis(5);

    #[test]
    fn a_number_that_is_no_descriptor_is_an_error() {
        for fd in [-1, RawFd::MIN, RawFd::MAX] {
            let error = wait(fd, Interest::READ, Deadline::from_now(SOON), || ()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EBADF), "{fd}");
        }
    }

    #[test]
    fn an_ended_peer_is_seen_behind_its_last_bytes() {
        let (mut one, other) = UnixStream::pair().unwrap();
        one.write_all(b"x").unwrap();
        assert!(!has_ended(other.as_raw_fd()));
        one.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(has_ended(other.as_raw_fd()));
        assert!(!has_ended(-1));
    }

    #[test]
    fn a_wait_ends_with_the_byte_or_with_the_deadline() {
        let (mut one, other) = UnixStream::pair().unwrap();
        let soon = Deadline::from_now(SOON);
        assert!(!wait(other.as_raw_fd(), Interest::READ, soon, || ()).unwrap());
        assert!(soon.is_past());
        one.write_all(b"x").unwrap();
        assert!(wait(other.as_raw_fd(), Interest::READ, Deadline::NEVER, || ()).unwrap());
        assert!(wait(other.as_raw_fd(), Interest::WRITE, Deadline::NEVER, || ()).unwrap());
    }
}
