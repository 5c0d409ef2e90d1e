//! A connection's bytes on their way in and out: plain, or through TLS.
//!
//! Nothing here waits: what cannot be done now is `WouldBlock`.

use std::io::{self, IoSlice, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::sync::Arc;

use nix::sys::socket::{setsockopt, sockopt};
use rustls::ServerConfig;
use worker_api::Interest;

use crate::buffer::READ_MAX;
use crate::owned_head::TlsInfo;
use crate::relay::Relay;
use crate::socket;
use crate::tls::Session;

/// A non-blocking connection.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    session: Option<Session>,
}

impl Stream {
    /// A connection without TLS.
    pub fn plain(socket: TcpStream) -> Self {
        Self { socket, session: None }
    }

    /// Begins TLS; `already_read` was read from the connection before.
    pub fn start_tls(&mut self, config: &Arc<ServerConfig>, already_read: &[u8]) -> io::Result<()> {
        self.session = Some(Session::new(config, already_read)?);
        Ok(())
    }

    /// Reads what is there; 0 is the end of file.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { socket, session } = self;
        retried(|| match session {
            None => socket::receive(socket, buffer),
            Some(session) => session.read(socket, buffer),
        })
    }

    /// Whether a read of so many bytes may have left some, so that waiting for the descriptor would be in vain.
    pub fn may_have_more(&self, count: usize) -> bool {
        // A short read of a plain socket has emptied it.
        self.may_hold_input() || count == READ_MAX
    }

    /// Whether bytes may be left to read of which the descriptor knows nothing: a session holds what it has decrypted.
    pub fn may_hold_input(&self) -> bool {
        self.session.is_some()
    }

    /// Writes what the socket takes of `parts`.
    pub fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let Self { socket, session } = self;
        retried(|| match (&mut *session, parts) {
            (Some(session), parts) => session.write(socket, parts),
            (None, [one]) => socket::send(socket, one),
            (None, several) => (&*socket).write_vectored(several),
        })
    }

    /// Whether something of what was written is still held.
    pub fn has_unsent(&self) -> bool {
        self.session.as_ref().is_some_and(Session::wants_write)
    }

    /// Sends a part of what was written and is still held.
    pub fn flush_some(&mut self) -> io::Result<usize> {
        let Self { socket, session } = self;
        match session {
            None => Ok(0),
            Some(session) => retried(|| session.flush_some(socket)),
        }
    }

    /// Sends bytes of a file without copying them; `Unsupported` where the stream has to see them.
    pub fn send_file(&mut self, file: RawFd, offset: u64, count: usize) -> io::Result<usize> {
        retried(|| socket::send_file(&self.socket, file, offset, count))
    }

    /// Tells the client, where TLS has words for it, that nothing more will be sent: that nothing is cut.
    pub fn say_close(&mut self) {
        if let Some(session) = &mut self.session {
            // A client that does not take the alert sees the end of the connection all the same.
            let _ = session.say_close(&self.socket);
        }
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        self.say_close();
        self.socket.shutdown(Shutdown::Write)
    }

    /// Gives TLS up after it has failed: what follows goes over the socket as it is.
    pub fn leave_tls(&mut self) {
        self.session = None;
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
        // A handshake may have to send before it can read on.
        match &self.session {
            Some(session) if session.wants_write() => Interest::WRITE,
            _ => Interest::READ,
        }
    }

    /// What to wait for before a write is worth trying again.
    pub fn write_interest(&self) -> Interest {
        Interest::WRITE
    }

    /// Whether files go out without being read: not where the stream has to see their bytes.
    pub fn can_send_file(&self) -> bool {
        self.session.is_none()
    }

    /// Whether bytes go out as they are, without TLS.
    pub(crate) fn is_plain(&self) -> bool {
        self.session.is_none()
    }

    /// What is known of the TLS session; nothing on a plain connection.
    pub fn tls_facts(&self) -> Option<TlsInfo> {
        self.session.as_ref().map(Session::facts)
    }

    /// Gives the connection away, as a descriptor that carries plain bytes, and what is to be read before them. Through
    /// TLS they go by way of `relay`, and `unread` too.
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

    /// Ends the connection for all who have a descriptor of it, by a reset where `reset` says so.
    pub fn end(&self, reset: bool) {
        // A client that has gone is no loss.
        let _ = if reset && socket::disconnect(&self.socket).is_ok() {
            Ok(())
        } else {
            self.socket.shutdown(Shutdown::Both)
        };
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
