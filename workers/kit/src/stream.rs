//! The bytes of a connection, plain or over TLS.
//!
//! Operations never wait: those that cannot proceed return `WouldBlock`.

use std::io::{self, IoSlice, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, RawFd};

use nix::sys::socket::{setsockopt, sockopt};
use worker_api::raw::TlsProperties;
use worker_api::{Interest, Tls, TlsSession};

use crate::relay::Relay;
use crate::socket;

/// A non-blocking connection.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    session: Option<TlsSession>,
}

impl Stream {
    /// Creates a connection without TLS.
    pub fn plain(socket: TcpStream) -> Self {
        Self { socket, session: None }
    }

    /// Starts TLS; `already_read` has been read from the connection before.
    pub fn start_tls(&mut self, tls: &Tls, already_read: &[u8]) -> io::Result<()> {
        self.session = Some(tls.session(already_read)?);
        Ok(())
    }

    /// Reads available bytes; 0 means end of file.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { socket, session } = self;
        retried(|| match session {
            None => socket::receive(socket, buffer),
            Some(session) => session.read(socket.as_raw_fd(), buffer),
        })
    }

    /// Reads up to `most` available bytes and appends them to `into`; 0 means end of file.
    pub(crate) fn read_more(&mut self, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        let Self { socket, session } = self;
        let Some(session) = session else {
            return retried(|| socket::receive_more(socket, into, most));
        };
        let before = into.len();
        into.resize(before + most, 0);
        let read = retried(|| session.read(socket.as_raw_fd(), &mut into[before..]));
        into.truncate(before + read.as_ref().map_or(0, |count| *count));
        read
    }

    /// Returns whether bytes may be left after a read of `count` bytes out of `asked`, so that the descriptor may
    /// not become ready for them.
    pub fn may_have_more(&self, count: usize, asked: usize) -> bool {
        // A short read of a plain socket has emptied it.
        self.may_hold_input() || count == asked
    }

    /// Returns whether bytes may be left to read that the descriptor does not show: a session holds decrypted
    /// ones.
    pub fn may_hold_input(&self) -> bool {
        !self.is_plain()
    }

    /// Writes as much of `parts` as the socket accepts.
    pub fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let Self { socket, session } = self;
        retried(|| match (&mut *session, parts) {
            (Some(session), parts) => session.write(socket.as_raw_fd(), parts),
            (None, [one]) => socket::send(socket, one),
            (None, several) => (&*socket).write_vectored(several),
        })
    }

    /// Returns whether written bytes are still held back.
    pub fn has_unsent(&self) -> bool {
        self.session.as_ref().is_some_and(TlsSession::wants_write)
    }

    /// Sends a part of the bytes held back.
    pub fn flush_some(&mut self) -> io::Result<usize> {
        let Self { socket, session } = self;
        match session {
            None => Ok(0),
            Some(session) => retried(|| session.flush_some(socket.as_raw_fd())),
        }
    }

    /// Sends bytes of a file with `sendfile(2)`: only if [`Stream::can_send_file`].
    pub fn send_file(&mut self, file: RawFd, offset: u64, count: usize) -> io::Result<usize> {
        retried(|| socket::send_file(&self.socket, file, offset, count))
    }

    /// Sends the TLS close alert, if this is TLS: nothing was truncated.
    pub fn send_close_notify(&mut self) {
        if let Some(session) = &mut self.session {
            // A client that does not accept the alert still sees the connection's end.
            let _ = session.send_close_notify(self.socket.as_raw_fd());
        }
    }

    /// Shuts down the sending direction; reading is still possible.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        self.send_close_notify();
        self.socket.shutdown(Shutdown::Write)
    }

    /// Drops a session that has failed: what follows is sent over the socket in plain.
    pub fn leave_tls(&mut self) {
        self.session = None;
    }

    /// Returns the descriptor, borrowed.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Returns the descriptor to wait on.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Returns what to wait for before a read is worth trying again.
    pub fn read_interest(&self) -> Interest {
        // A handshake may have to send before it can read more.
        match &self.session {
            Some(session) if session.wants_write() => Interest::WRITE,
            _ => Interest::READ,
        }
    }

    /// Returns what to wait for before a write is worth trying again.
    pub fn write_interest(&self) -> Interest {
        Interest::WRITE
    }

    /// Returns whether files can be sent with `sendfile(2)`: not over TLS.
    pub fn can_send_file(&self) -> bool {
        self.is_plain()
    }

    /// Returns whether the connection is without TLS, so that another thread may send its bytes.
    pub(crate) fn is_plain(&self) -> bool {
        self.session.is_none()
    }

    /// Returns the TLS session, for another thread; `None` on a plain connection.
    pub(crate) fn session(&self) -> Option<TlsSession> {
        self.session.clone()
    }

    /// Returns the properties of the TLS session; `None` on a plain connection.
    pub fn tls_facts(&self) -> Option<TlsProperties> {
        self.session.as_ref().map(TlsSession::properties)
    }

    /// Gives the connection away, as a descriptor that carries plain bytes and the bytes to be read before
    /// those. A TLS connection goes through `relay`, which then also delivers `unread`.
    pub(crate) fn hand_over<'a>(
        &mut self,
        unread: &'a [u8],
        relay: impl FnOnce() -> io::Result<&'a Relay>,
    ) -> io::Result<(RawFd, &'a [u8])> {
        let socket = self.socket.try_clone()?;
        if self.session.is_none() {
            return Ok((socket.into_raw_fd(), unread));
        }
        let relay = relay()?;
        match self.session.take() {
            Some(session) => Ok((relay.add(socket, session, unread)?.into_raw_fd(), &[])),
            None => Ok((socket.into_raw_fd(), unread)),
        }
    }

    /// Ends the connection for every process that has a descriptor of it, with a reset if `reset`.
    pub fn end(&self, reset: bool) {
        // Fails if the client has already disconnected.
        let _ = if reset && socket::disconnect(&self.socket).is_ok() {
            Ok(())
        } else {
            self.socket.shutdown(Shutdown::Both)
        };
    }

    /// Makes the eventual close reset the connection, so that the client detects the truncation.
    pub fn reset_on_close(&self) {
        let now = libc::linger { l_onoff: 1, l_linger: 0 };
        // If the option cannot be set, the client sees an ordinary end of the connection.
        let _ = setsockopt(&self.socket, sockopt::Linger, &now);
    }
}

/// Repeats a call that a signal interrupted.
fn retried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}
