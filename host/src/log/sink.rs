//! Writing to a log's descriptor without blocking on its reader.
//!
//! A pipe or a terminal that is a standard stream is shared: with the shell, and with the output of the
//! application. `O_NONBLOCK` belongs to the open file description, so setting it there would change it for all of
//! them. Such a descriptor is therefore opened again through `/proc/self/fd`, which creates a private
//! description. If that is not permitted (the pipe of another user), `RWF_NOWAIT` requests the same for a single
//! write, and on kernels that do not support it for pipes (before 6.4), a check with `poll` has to do, which can
//! race with another writer.

use std::ffi::{c_long, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{Mode, SFlag, fstat};

/// How a descriptor is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Sink {
    /// A file on a disk, or a device that accepts everything immediately: a plain write.
    File,
    /// A pipe or a terminal with a private, non-blocking open file description.
    Own,
    /// A pipe or a terminal whose open file description is shared.
    Shared,
    /// A socket, as standard output is under journald.
    Socket,
}

impl Sink {
    /// Returns the sink of a descriptor that this process has opened itself, with `O_NONBLOCK`.
    pub(super) fn of_opened(fd: BorrowedFd<'_>) -> Self {
        match file_type(fd) {
            SFlag::S_IFIFO => Self::Own,
            SFlag::S_IFSOCK => Self::Socket,
            SFlag::S_IFCHR if is_terminal(fd) => Self::Own,
            _ => Self::File,
        }
    }

    /// Returns a sink, and a descriptor, for the file of `fd`, which others use as well.
    pub(super) fn of_shared(fd: BorrowedFd<'_>) -> io::Result<(OwnedFd, Self)> {
        match Self::of_opened(fd) {
            Self::Own => match open_again(fd, OFlag::O_NONBLOCK) {
                Ok(own) => Ok((own, Self::Own)),
                Err(_) => Ok((fd.try_clone_to_owned()?, Self::Shared)),
            },
            sink => Ok((fd.try_clone_to_owned()?, sink)),
        }
    }

    pub(super) fn from_number(number: u8) -> Self {
        match number {
            0 => Self::File,
            1 => Self::Own,
            2 => Self::Shared,
            _ => Self::Socket,
        }
    }

    /// Returns the longest write that no other write can interleave; files in append mode have no limit.
    pub(super) fn piece_max(self) -> usize {
        if self == Self::File { usize::MAX } else { libc::PIPE_BUF }
    }

    /// Writes without waiting for a reader; returns `EAGAIN` if it would have to.
    pub(super) fn write(self, fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
        match self {
            Self::File | Self::Own => nix::unistd::write(fd, bytes),
            Self::Socket => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                send(fd.as_raw_fd(), bytes, flags)
            }
            Self::Shared => match write_nowait(fd, bytes) {
                Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS | Errno::ESPIPE) => {
                    if !is_writable(fd, PollTimeout::ZERO)? {
                        return Err(Errno::EAGAIN);
                    }
                    // With room for one page, a pipe accepts this much without blocking.
                    nix::unistd::write(fd, &bytes[..bytes.len().min(libc::PIPE_BUF)])
                }
                result => result,
            },
        }
    }

    /// Waits until the reader has made room or `until` has passed. Returns whether there is room.
    pub(super) fn wait(fd: BorrowedFd<'_>, until: Instant) -> bool {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let left = left.max(Duration::from_millis(1));
            match is_writable(fd, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                Ok(writable) => return writable,
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }
}

/// Opens the file of `fd` with a blocking open file description, for other programs and for the output of the
/// application. Never waits, not even for the reader of a FIFO.
pub(super) fn blocking_clone(fd: BorrowedFd<'_>, sink: Sink) -> io::Result<OwnedFd> {
    if sink == Sink::Own
        && let Ok(own) = open_again(fd, OFlag::O_NONBLOCK)
        && fcntl(&own, FcntlArg::F_SETFL(OFlag::O_APPEND)).is_ok()
    {
        return Ok(own);
    }
    fd.try_clone_to_owned()
}

fn open_again(fd: BorrowedFd<'_>, flags: OFlag) -> nix::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = flags | OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    open(path.as_str(), flags, Mode::empty())
}

fn write_nowait(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let part =
        libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast::<c_void>(), iov_len: bytes.len() };
    let fd = fd.as_raw_fd();
    // One part, and the file's own position in two halves.
    let (count, low, high): (c_long, c_long, c_long) = (1, -1, -1);
    // As a system call, because glibc before 2.26 has no function for it, and the wheel runs with 2.17.
    // SAFETY: the one part describes `bytes`, which the call only reads.
    let written = unsafe {
        let part = &raw const part;
        libc::syscall(libc::SYS_pwritev2, fd, part, count, low, high, libc::RWF_NOWAIT)
    };
    Errno::result(written).map(|written| written as usize)
}

fn is_writable(fd: BorrowedFd<'_>, timeout: PollTimeout) -> Result<bool, Errno> {
    let mut watched = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    // An error of the descriptor counts as writable: the write reports it.
    poll(&mut watched, timeout).map(|ready| ready > 0)
}

fn file_type(fd: BorrowedFd<'_>) -> SFlag {
    let mode = fstat(fd).map_or(0, |facts| facts.st_mode);
    SFlag::from_bits_truncate(mode) & SFlag::S_IFMT
}

fn is_terminal(fd: BorrowedFd<'_>) -> bool {
    nix::unistd::isatty(fd).unwrap_or(false)
}
