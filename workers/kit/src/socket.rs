//! System calls on sockets and files for which neither `std` nor `nix` has a suitable wrapper.

use std::io;
use std::mem;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use nix::sys::socket::{SockaddrLike, SockaddrStorage};

/// Duplicates a descriptor, closed on exec.
pub(crate) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: `fcntl` accepts any number, and fails with EBADF if it is not a descriptor.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// `accept4(2)`: accepts a waiting connection, non-blocking and closed on exec, and returns it with the client's address, if
/// it has one.
pub(crate) fn accept4(listener: RawFd) -> io::Result<(OwnedFd, Option<SockaddrStorage>)> {
    let mut storage: libc::sockaddr_storage =
        // SAFETY: a socket address of any family is valid when it is all zeroes.
        unsafe { mem::zeroed() };
    let mut length = size_of_val(&storage) as libc::socklen_t;
    // SAFETY: address and length point to storage of that size for the whole call.
    let fd = unsafe {
        libc::accept4(
            listener,
            (&raw mut storage).cast(),
            &raw mut length,
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: accept4 returned a new descriptor, which nothing else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the kernel filled in an address of that length.
    let address = unsafe { SockaddrStorage::from_raw((&raw const storage).cast(), Some(length)) };
    Ok((fd, address))
}

/// Returns the time since the last bytes of a TCP connection arrived, in whole ticks of the kernel; since the
/// connection was made if none have arrived. Fails for other kinds of sockets.
pub fn since_last_received(socket: BorrowedFd<'_>) -> io::Result<Duration> {
    let info = tcp_info(socket)?;
    Ok(Duration::from_millis(u64::from(info.tcpi_last_data_recv)))
}

/// Returns the kernel's state of a TCP socket. Fails for other kinds of sockets.
pub(crate) fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<libc::tcp_info> {
    let mut info: libc::tcp_info =
        // SAFETY: the structure consists of integers, for which zero is valid.
        unsafe { mem::zeroed() };
    let mut length = size_of_val(&info) as libc::socklen_t;
    let pointer = (&raw mut info).cast();
    // SAFETY: pointer and length point to storage of that size for the whole call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            pointer,
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info)
}

/// `recv(2)`: receives available bytes into `buffer`; 0 means end of file.
///
/// Here and in [`send`] the system call is made without the C library's wrapper, which in a multi-threaded
/// process prepares each call for thread cancellation. The server never cancels threads.
pub fn receive(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is writable for its length.
    unsafe { receive_at(socket, buffer.as_mut_ptr(), buffer.len()) }
}

/// Like [`receive`], but appends up to `most` bytes to `into`.
pub(crate) fn receive_more(
    socket: &TcpStream,
    into: &mut Vec<u8>,
    most: usize,
) -> io::Result<usize> {
    into.reserve(most);
    // SAFETY: `reserve` has made room for `most` bytes.
    let read = unsafe { receive_at(socket, into.spare_capacity_mut().as_mut_ptr().cast(), most) }?;
    // SAFETY: the kernel has written `read` bytes, at most `most`, behind the vector's length.
    unsafe { into.set_len(into.len() + read) };
    Ok(read)
}

/// # Safety
/// `len` bytes may be written at `start`. They need not be initialized: the kernel only writes.
unsafe fn receive_at(socket: &TcpStream, start: *mut u8, len: usize) -> io::Result<usize> {
    let (fd, flags) = (socket.as_raw_fd(), 0);
    let no_address = ptr::null_mut::<libc::c_void>();
    // SAFETY: as the caller promises, and null means that the sender's address is not requested.
    let read =
        unsafe { libc::syscall(libc::SYS_recvfrom, fd, start, len, flags, no_address, no_address) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// `send(2)`: sends as many of `bytes` as the socket accepts. A closed connection is an error and raises no
/// signal.
pub fn send(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let (fd, flags) = (socket.as_raw_fd(), libc::MSG_NOSIGNAL);
    let (no_address, no_length) = (ptr::null::<libc::c_void>(), 0);
    let (start, len) = (bytes.as_ptr(), bytes.len());
    // SAFETY: the bytes are readable for their length, and the null address has length 0.
    let sent =
        unsafe { libc::syscall(libc::SYS_sendto, fd, start, len, flags, no_address, no_length) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

/// `sendfile(2)`: sends up to `count` bytes of `file` from `offset` to `socket`.
pub fn send_file(socket: &TcpStream, file: RawFd, offset: u64, count: usize) -> io::Result<usize> {
    let mut offset = offset as libc::off_t;
    // SAFETY: the offset lives for the call. The kernel rejects a wrong `file` with EBADF.
    let sent = unsafe { libc::sendfile(socket.as_raw_fd(), file, &raw mut offset, count) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

/// Resets a connection, even if other processes have a descriptor of it. Fails for sockets other than TCP.
pub fn disconnect(socket: &TcpStream) -> io::Result<()> {
    let nowhere =
        libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let length = size_of_val(&nowhere) as libc::socklen_t;
    // SAFETY: the address is readable for its length.
    let done = unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, length) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `pread(2)`: reads bytes of `file` from `offset` into `buffer`, for connections that cannot use `sendfile`
/// (TLS, chunks).
pub fn read_file(file: RawFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    // SAFETY: the buffer is writable for its length. The kernel rejects a wrong `file` with EBADF.
    let read = unsafe {
        libc::pread(file, buffer.as_mut_ptr().cast(), buffer.len(), offset as libc::off_t)
    };
    if read < 0 { Err(io::Error::last_os_error()) } else { Ok(read as usize) }
}
