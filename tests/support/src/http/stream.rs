//! The byte stream of a connection: TCP, a unix socket, or TLS over one of them.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::tls;

/// A bidirectional byte stream. Sockets of all kinds take the same system calls: each is held as a TCP socket.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    pub(super) fn tcp(socket: TcpStream) -> Self {
        Self::Plain(socket)
    }

    pub(super) fn unix(socket: UnixStream) -> Self {
        Self::Plain(TcpStream::from(OwnedFd::from(socket)))
    }

    /// Performs the handshake.
    pub(super) fn over_tls(self, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let Self::Plain(mut socket) = self else { panic!("TLS within TLS is not tested") };
        let mut session = ClientConnection::new(Arc::clone(config), tls::server_name())
            .map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Self::Tls(Box::new(StreamOwned::new(session, socket))))
    }

    pub(super) fn into_plain(self) -> Self {
        match self {
            Self::Plain(socket) => Self::Plain(socket),
            Self::Tls(stream) => Self::Plain(stream.into_parts().1),
        }
    }

    pub(super) fn tls(&self) -> Option<&ClientConnection> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(&stream.conn),
        }
    }

    pub(super) fn set_timeout(&self, limit: Duration) -> io::Result<()> {
        self.socket().set_read_timeout(Some(limit))?;
        self.socket().set_write_timeout(Some(limit))
    }

    /// Returns a second handle; a TLS session has only one.
    pub(super) fn twin(&self) -> io::Result<Self> {
        match self {
            Self::Plain(socket) => socket.try_clone().map(Self::Plain),
            Self::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    pub(super) fn end_writing(&mut self) -> io::Result<()> {
        if let Self::Tls(stream) = self {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        self.socket().shutdown(Shutdown::Write)
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}
