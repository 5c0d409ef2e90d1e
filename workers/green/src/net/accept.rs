//! accept4(2) for TCP: the new socket is non-blocking from the start, which saves the ioctl that the
//! standard library's accept needs for it. That is its only purpose.

use std::io;
use std::mem::MaybeUninit;
use std::net::{
    Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream,
};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{SockaddrLike, SockaddrStorage};

/// Accepts a connection, which is non-blocking and closed on exec.
pub(super) fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let mut address = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: address and length describe a buffer that is writable for the duration of the call; the
    // kernel writes at most `length` bytes of it.
    let fd = Errno::result(unsafe {
        libc::accept4(listener.as_raw_fd(), address.as_mut_ptr().cast(), &raw mut length, flags)
    })?;
    // SAFETY: accept4 has just made this descriptor, and nothing else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: zeroed and then filled by the kernel, with `length` bytes of an address.
    let address = unsafe { SockaddrStorage::from_raw(address.as_ptr().cast(), Some(length)) };
    let peer = address.as_ref().and_then(socket_address).ok_or(io::ErrorKind::Unsupported)?;
    Ok((TcpStream::from(fd), peer))
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        let ip: Ipv4Addr = v4.ip();
        return Some(SocketAddrV4::new(ip, v4.port()).into());
    }
    let v6 = address.as_sockaddr_in6()?;
    let ip: Ipv6Addr = v6.ip();
    Some(SocketAddrV6::new(ip, v6.port(), v6.flowinfo(), v6.scope_id()).into())
}
