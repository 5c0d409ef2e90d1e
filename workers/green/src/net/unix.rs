//! Unix stream sockets.

use std::io;
use std::os::unix::net::{self, SocketAddr};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::os::fd::AsRawFd;

use super::{Listener, Stream};
use crate::hub::ready::Trigger;
use crate::hub::sleep;

/// A connection over a unix socket.
pub type UnixStream = Stream<net::UnixStream>;

/// A listening unix socket.
pub type UnixListener = Listener<net::UnixListener>;

impl UnixStream {
    /// Wraps a connection and makes it non-blocking.
    pub fn from_std(socket: net::UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Self::from_nonblocking(socket)
    }

    /// Returns a pair of connected sockets.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (left, right) = net::UnixStream::pair()?;
        Ok((Self::from_std(left)?, Self::from_std(right)?))
    }

    /// Connects to a path. The kernel does not report when a full backlog has room again, so while it is full
    /// this retries every few milliseconds.
    pub fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        let address = UnixAddr::new(path.as_ref())?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        loop {
            match connect(fd.as_raw_fd(), &address) {
                Ok(()) => return Self::from_nonblocking(net::UnixStream::from(fd)),
                Err(Errno::EAGAIN) => sleep(BACKLOG_RETRY)?,
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl UnixListener {
    /// Listens at a path, which must not exist.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::from_std(net::UnixListener::bind(path)?, Trigger::Level)
    }

    /// Wraps a listener and makes it non-blocking.
    pub fn from_std(socket: net::UnixListener, trigger: Trigger) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Self::from_nonblocking(socket, trigger)
    }

    /// Accepts a connection, waiting for one.
    pub fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let (socket, peer) = self.accept_with(None, net::UnixListener::accept)?;
        Ok((UnixStream::from_std(socket)?, peer))
    }

    /// Accepts a connection or returns `WouldBlock`.
    pub fn try_accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let (socket, peer) = self.try_accept_with(net::UnixListener::accept)?;
        Ok((UnixStream::from_std(socket)?, peer))
    }
}

const BACKLOG_RETRY: Duration = Duration::from_millis(5);
