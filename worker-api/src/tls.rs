//! TLS sessions of the host. A session converts between a socket's bytes and those of HTTP; it never waits, so it works
//! under every worker class.

use std::io::{self, IoSlice};
use std::os::fd::RawFd;
use std::sync::Arc;

use abi_stable::std_types::{RSlice, RSliceMut, RStr};

use crate::raw::{TlsBox, TlsError, TlsProperties, TlsSessionBox};

/// The server's TLS configuration; see [`crate::Host::tls`].
#[derive(Clone)]
pub struct Tls(Arc<TlsBox>);

impl Tls {
    /// Wraps the object that the host created.
    pub fn from_raw(raw: TlsBox) -> Self {
        Self(Arc::new(raw))
    }

    /// Creates the session of a connection; `received` was read from the connection before. An error is as in
    /// [`TlsSession`].
    pub fn session(&self, received: &[u8]) -> io::Result<TlsSession> {
        let session = self.0.session(RSlice::from_slice(received)).into_result();
        session.map(|session| TlsSession(Arc::new(session))).map_err(to_io)
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// The TLS session of a connection, whose non-blocking socket every operation is given. A clone is the same session,
/// which any thread may use.
///
/// An operation that would have to wait for the socket returns [`io::ErrorKind::WouldBlock`]. It fails with
/// [`io::ErrorKind::InvalidData`] if the client violates the protocol, with [`PlainHttp`] as the inner error if the client
/// does not use TLS. The alert that explains the failure has been sent as far as the socket accepts it.
#[derive(Clone)]
pub struct TlsSession(Arc<TlsSessionBox>);

impl TlsSession {
    /// Reads bytes of HTTP; 0 means end of file, with or without a close alert.
    pub fn read(&self, socket: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(socket, RSliceMut::from_mut_slice(buffer)).into_result().map_err(to_io)
    }

    /// Takes bytes of HTTP and sends as many as the socket accepts, and returns how many were taken. They may still be
    /// unsent: see [`Self::wants_write`].
    pub fn write(&self, socket: RawFd, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut slices = [RSlice::EMPTY; PARTS_MAX];
        let mut count = 0;
        for part in parts.iter().filter(|part| !part.is_empty()).take(PARTS_MAX) {
            slices[count] = RSlice::from_slice(part);
            count += 1;
        }
        let slices = RSlice::from_slice(&slices[..count]);
        self.0.write(socket, slices).into_result().map_err(to_io)
    }

    /// Sends a part of the unsent bytes.
    pub fn flush_some(&self, socket: RawFd) -> io::Result<usize> {
        self.0.flush_some(socket).into_result().map_err(to_io)
    }

    /// Sends the close alert.
    pub fn send_close_notify(&self, socket: RawFd) -> io::Result<()> {
        self.0.send_close_notify(socket).into_result().map_err(to_io)
    }

    /// Encrypts the last bytes of the connection and the close alert, without sending them. Returns `None` if
    /// another thread is in the middle of another operation; it is not waited for.
    pub fn seal(&self, last: &[u8]) -> Option<Vec<u8>> {
        self.0.seal(RSlice::from_slice(last)).into_option().map(Into::into)
    }

    /// Returns whether there are unsent bytes.
    pub fn wants_write(&self) -> bool {
        self.0.wants_write()
    }

    /// Returns the properties of the session after its handshake.
    pub fn properties(&self) -> TlsProperties {
        self.0.properties()
    }
}

impl std::fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsSession")
    }
}

/// The client does not use TLS.
#[derive(Debug)]
pub struct PlainHttp;

impl std::fmt::Display for PlainHttp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the client sent plain HTTP to a TLS listener")
    }
}

impl std::error::Error for PlainHttp {}

fn to_io(error: TlsError) -> io::Error {
    match error {
        TlsError::System(number) => io::Error::from_raw_os_error(number),
        TlsError::Refused(reason) => {
            io::Error::new(io::ErrorKind::InvalidData, reason.into_string())
        }
        TlsError::PlainHttp => io::Error::new(io::ErrorKind::InvalidData, PlainHttp),
    }
}

/// Wraps the names of protocols for the boundary.
pub(crate) fn protocol_names<'a>(protocols: &[&'a str]) -> Vec<RStr<'a>> {
    protocols.iter().map(|name| RStr::from_str(name)).collect()
}

/// More parts are left to the next call.
const PARTS_MAX: usize = 8;
