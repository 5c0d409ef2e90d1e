//! A connection's octets on their way in and out: plain, or through TLS.
//!
//! Nothing here waits: what cannot be done now is `WouldBlock`.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, RawFd};

use nix::sys::socket::{setsockopt, sockopt};
use worker_api::Interest;

use crate::socket;

/// A non-blocking connection.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
}

impl Stream {
    /// A connection without TLS.
    pub fn plain(socket: TcpStream) -> Self {
        Self { socket }
    }

    /// Reads what is there; 0 is the end of file.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        retried(|| (&self.socket).read(buffer))
    }

    /// Writes what the socket takes of `parts`.
    pub fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        retried(|| match parts {
            [one] => (&self.socket).write(one),
            several => (&self.socket).write_vectored(several),
        })
    }

    /// Sends octets of a file without copying them; `Unsupported` where the stream has to see them.
    pub fn send_file(&mut self, file: RawFd, offset: u64, count: usize) -> io::Result<usize> {
        retried(|| socket::send_file(&self.socket, file, offset, count))
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    /// The descriptor, borrowed.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The descriptor to wait on.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// What to wait for before a read is worth trying again.
    pub fn read_interest(&self) -> Interest {
        Interest::READ
    }

    /// What to wait for before a write is worth trying again.
    pub fn write_interest(&self) -> Interest {
        Interest::WRITE
    }

    /// Whether files go out without being read: not where the stream has to see their octets.
    pub fn can_send_file(&self) -> bool {
        true
    }

    /// A second descriptor of the connection, for an application that takes it over.
    pub fn duplicate(&self) -> io::Result<RawFd> {
        Ok(self.socket.try_clone()?.into_raw_fd())
    }

    /// Has the connection reset when it is closed: the client sees that what it has is cut.
    pub fn reset_on_close(&self) {
        let now = libc::linger { l_onoff: 1, l_linger: 0 };
        // Where it cannot be set, the client sees an ordinary end: nothing better is left to do.
        let _ = setsockopt(&self.socket, sockopt::Linger, &now);
    }
}

/// Runs a call again that a signal interrupted.
fn retried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}
