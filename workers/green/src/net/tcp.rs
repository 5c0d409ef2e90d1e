//! TCP sockets. `stream` and `listener` document what all kinds of sockets have in common.

use std::io;
use std::net::{self, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};

use super::accept::accept;
use super::{Listener, Stream, resolve};
use crate::hub::ready::{Interest, Trigger};

/// A TCP connection.
pub type TcpStream = Stream<net::TcpStream>;

/// A TCP listener.
pub type TcpListener = Listener<net::TcpListener>;

impl TcpStream {
    /// Wraps a connection and makes it non-blocking.
    pub fn from_std(socket: net::TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Self::from_nonblocking(socket)
    }

    /// Connects to the first address that responds. Names are resolved on a thread.
    pub fn connect(address: impl ToSocketAddrs + Send + 'static) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
        for address in resolve(address)? {
            match Self::connect_to(address) {
                Ok(stream) => return Ok(stream),
                Err(error) if crate::Interrupt::of(&error).is_some() => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Connects to one address. To limit the time, put a [`Timeout`](crate::Timeout) around it.
    pub fn connect_to(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd: OwnedFd = socket(family, SockType::Stream, flags, None)?;
        let begun = connect(fd.as_raw_fd(), &SockaddrStorage::from(address));
        let stream = Self::from_nonblocking(net::TcpStream::from(fd))?;
        match begun {
            Ok(()) => return Ok(stream),
            Err(Errno::EINPROGRESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        stream.source().clear_ready(Interest::Both)?;
        stream.source().wait(Interest::Write, None)?;
        match stream.get_ref().take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }
}

impl TcpListener {
    /// Listens on the first available address.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        Self::from_std(net::TcpListener::bind(address)?, Trigger::Level)
    }

    /// Wraps a listener and makes it non-blocking.
    pub fn from_std(socket: net::TcpListener, trigger: Trigger) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Self::from_nonblocking(socket, trigger)
    }

    /// Accepts a connection, waiting for one.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, peer) = self.accept_with(None, accept)?;
        Ok((TcpStream::from_nonblocking(socket)?, peer))
    }

    /// Accepts a connection or returns `WouldBlock`.
    pub fn try_accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, peer) = self.try_accept_with(accept)?;
        Ok((TcpStream::from_nonblocking(socket)?, peer))
    }

    /// Returns the address of the listener.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.get_ref().local_addr()
    }
}
