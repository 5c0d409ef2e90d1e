//! A connection to the server: sends bytes, reads responses.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddr, UnixStream},
    },
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    poll::PollFlags,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, connect, recv, setsockopt,
        socket, sockopt,
    },
};
use rustls::{ClientConfig, ClientConnection};

use super::answer::{Answer, Broken, Framing, chunk_size, field, malformed};
use super::stream::Stream;
use crate::process;

/// Address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP over IPv4 or IPv6.
    Tcp(SocketAddr),
    /// Path of a unix socket.
    Unix(PathBuf),
    /// Abstract name of a unix socket.
    Abstract(String),
}

/// The client side of a connection.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
    limit: Duration,
}

/// Default time-out for the next bytes.
const PATIENCE: Duration = Duration::from_secs(15);
/// Maximum length of a response head.
const HEAD_MAX: usize = 64 << 10;

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl Connection {
    /// Takes over a connected socket.
    pub fn over(socket: TcpStream) -> Self {
        Self::with(Stream::tcp(socket))
    }

    /// Connects.
    pub fn open(address: &Address) -> io::Result<Self> {
        let stream = match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, PATIENCE)?;
                stream.set_nodelay(true)?;
                Stream::tcp(stream)
            }
            Address::Unix(path) => Stream::unix(UnixStream::connect(path)?),
            Address::Abstract(name) => {
                let address = UnixAddr::from_abstract_name(name)?;
                Stream::unix(UnixStream::connect_addr(&address)?)
            }
        };
        Ok(Self::with(stream))
    }

    /// Connects over TCP with a small receive buffer and with segments as on Ethernet, so that a server soon
    /// detects a slow client. With loopback's segments the server's kernel would buffer megabytes.
    pub fn open_narrow(address: &Address) -> io::Result<Self> {
        let &Address::Tcp(address) = address else {
            return Err(io::Error::new(ErrorKind::Unsupported, "not a TCP address"));
        };
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, sockopt::RcvBuf, &(8 << 10))?;
        setsockopt(&socket, sockopt::TcpMaxSeg, &1448)?;
        connect(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        Ok(Self::over(socket.into()))
    }

    fn with(stream: Stream) -> Self {
        let mut connection = Self { stream, buffer: Vec::new(), limit: PATIENCE };
        connection.patience(PATIENCE);
        connection
    }

    /// Starts TLS; fails if the handshake does, as far as the client notices before its first request.
    pub fn over_tls(mut self, config: &Arc<ClientConfig>) -> io::Result<Self> {
        self.stream = self.stream.over_tls(config)?;
        Ok(self)
    }

    /// Returns the connection without its TLS session, to send other data.
    #[must_use]
    pub fn into_plain(self) -> Self {
        Self { stream: self.stream.into_plain(), ..self }
    }

    /// Returns the properties of the TLS session.
    pub fn tls(&self) -> &ClientConnection {
        self.stream.tls().expect("the connection speaks TLS")
    }

    /// Sets the time-out for the next bytes.
    pub fn patience(&mut self, limit: Duration) {
        self.limit = limit;
        self.stream.set_timeout(limit).expect("a limit above zero can be set");
    }

    /// Sends all of these bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends a GET that keeps the connection alive.
    pub fn send_get(&mut self, target: &str) -> io::Result<()> {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"))
    }

    /// Sends a GET and reads the response.
    pub fn get(&mut self, target: &str) -> Result<Answer, Broken> {
        self.send_get(target).map_err(sent)?;
        self.answer("GET")
    }

    /// Sends a POST with a body of known length and reads the response.
    pub fn post(&mut self, target: &str, body: &[u8]) -> Result<Answer, Broken> {
        let length = body.len();
        let head =
            format!("POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
        self.send([head.as_bytes(), body].concat()).map_err(sent)?;
        self.answer("POST")
    }

    /// Returns a second handle of the connection, to send and receive concurrently.
    #[must_use]
    pub fn twin(&self) -> Self {
        let stream = self.stream.twin().expect("a descriptor can be duplicated");
        Self { stream, buffer: Vec::new(), limit: self.limit }
    }

    /// Shuts down the sending side: the server sees the end of the stream and can still respond.
    pub fn end_sending(&mut self) {
        self.stream.end_writing().expect("a connected stream can be half closed");
    }

    /// Makes closing this connection send a reset (TCP only).
    pub fn reset(self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&self, sockopt::Linger, &linger).expect("SO_LINGER can be set");
    }

    /// Reads the final response to a request of this method, and the informational ones before it.
    pub fn answer(&mut self, method: &str) -> Result<Answer, Broken> {
        let mut informational = Vec::new();
        loop {
            let mut answer = self.one_answer(method)?;
            if answer.status >= 200 || answer.status == 101 {
                answer.informational = informational;
                return Ok(answer);
            }
            informational.push(answer);
        }
    }

    /// Reads one head and its body, including informational responses.
    pub fn one_answer(&mut self, method: &str) -> Result<Answer, Broken> {
        let head = self.through(b"\r\n\r\n", HEAD_MAX)?;
        let mut answer = Answer::head(&head, method)?;
        match answer.framing {
            Framing::None => {}
            Framing::Length(length) => answer.body = self.exactly(length as usize)?,
            Framing::Chunked => self.chunks(&mut answer)?,
            Framing::Close => answer.body = self.rest()?,
        }
        Ok(answer)
    }

    /// Reads to the end of the stream; a reset is an error.
    pub fn rest(&mut self) -> Result<Vec<u8>, Broken> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Returns bytes that arrived and have not been read.
    pub fn left_over(&self) -> &[u8] {
        &self.buffer
    }

    /// Checks, before sending on a kept-alive connection, whether the server has closed it or sent something.
    pub fn fresh(&self) -> bool {
        self.buffer.is_empty() && !process::ready(self, PollFlags::POLLIN, Duration::ZERO)
    }

    /// Waits for the end of the connection; returns whether nothing arrived before it.
    pub fn closes(&mut self, limit: Duration) -> bool {
        if !process::ready(self, PollFlags::POLLIN, limit) {
            return false;
        }
        let mut byte = [0];
        matches!(recv(self.as_fd().as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK), Ok(0) | Err(_))
    }

    /// Waits for the end of the connection, whatever arrives before it.
    pub fn ends(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while process::ready(
            self,
            PollFlags::POLLIN,
            deadline.saturating_duration_since(Instant::now()),
        ) {
            if !matches!(self.fill(), Ok(1..)) {
                return true;
            }
        }
        false
    }

    /// Reads one byte from the kernel's buffer.
    pub fn take_byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        matches!(self.read(&mut byte), Ok(1)).then_some(byte[0])
    }

    /// Reads more bytes into the buffer; 0 at the end of the stream.
    pub fn fill(&mut self) -> Result<usize, Broken> {
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk) {
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                Ok(n)
            }
            Err(error) => Err(match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Broken::Silent(self.limit),
                ErrorKind::ConnectionReset if self.buffer.is_empty() => Broken::Reset,
                ErrorKind::ConnectionReset => Broken::Cut(self.shown("reset")),
                _ => Broken::Io(error),
            }),
        }
    }

    fn chunks(&mut self, answer: &mut Answer) -> Result<(), Broken> {
        loop {
            let line = self.line()?;
            let size = chunk_size(&line)?;
            if size == 0 {
                break;
            }
            answer.body.extend(self.exactly(size)?);
            let end = self.exactly(2)?;
            if end != b"\r\n" {
                return Err(malformed("the end of a chunk", &end));
            }
        }
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(());
            }
            answer.trailers.push(field(&String::from_utf8_lossy(&line))?);
        }
    }

    /// Returns the next line without its CRLF.
    fn line(&mut self) -> Result<Vec<u8>, Broken> {
        let mut line = self.through(b"\r\n", HEAD_MAX).map_err(|broken| self.inside(broken))?;
        line.truncate(line.len() - 2);
        Ok(line)
    }

    /// Returns the bytes up to and including `end`.
    fn through(&mut self, end: &[u8], max: usize) -> Result<Vec<u8>, Broken> {
        let mut seen = 0;
        loop {
            let from = self.buffer.get(seen..).unwrap_or_default();
            if let Some(at) = from.windows(end.len()).position(|window| window == end) {
                let tail = self.buffer.split_off(seen + at + end.len());
                return Ok(std::mem::replace(&mut self.buffer, tail));
            }
            if self.buffer.len() > max {
                return Err(malformed("a head without end", &self.buffer));
            }
            seen = self.buffer.len().saturating_sub(end.len() - 1);
            if self.fill()? == 0 {
                let nothing = self.buffer.is_empty();
                return Err(if nothing {
                    Broken::Closed
                } else {
                    Broken::Cut(self.shown("closed"))
                });
            }
        }
    }

    /// Returns the next `length` bytes of a body.
    fn exactly(&mut self, length: usize) -> Result<Vec<u8>, Broken> {
        while self.buffer.len() < length {
            if self.fill().map_err(|broken| self.inside(broken))? == 0 {
                return Err(Broken::Cut(format!("{} of {length} bytes", self.buffer.len())));
            }
        }
        let tail = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, tail))
    }

    /// Converts an error to one inside a response.
    fn inside(&self, broken: Broken) -> Broken {
        match broken {
            Broken::Closed => Broken::Cut(self.shown("closed")),
            Broken::Reset => Broken::Cut(self.shown("reset")),
            other => other,
        }
    }

    fn shown(&self, how: &str) -> String {
        let bytes = &self.buffer[..self.buffer.len().min(120)];
        format!("{how} after {} bytes {:?}", self.buffer.len(), String::from_utf8_lossy(bytes))
    }
}

/// Reads the remaining bytes, after those in the buffer.
impl Read for Connection {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !self.buffer.is_empty() {
            let n = into.len().min(self.buffer.len());
            into[..n].copy_from_slice(&self.buffer[..n]);
            self.buffer.drain(..n);
            return Ok(n);
        }
        self.stream.read(into)
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// A failure to send means the same as an end before the response.
fn sent(error: io::Error) -> Broken {
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Broken::Reset,
        _ => Broken::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// Connects to a peer that writes `bytes` and closes.
    fn peer(bytes: &'static [u8]) -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        thread::spawn(move || listener.accept().unwrap().0.write_all(bytes).unwrap());
        Connection::open(&address).unwrap()
    }

    #[test]
    fn whole_answers_are_read_one_by_one() {
        let mut connection = peer(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab\
              HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: x\r\n\r\nz",
        );
        let first = connection.answer("GET").unwrap();
        assert_eq!((first.status, first.text().as_str()), (200, "ab"));
        assert_eq!(first.informational.len(), 1);
        let second = connection.answer("GET").unwrap();
        assert_eq!((second.status, second.text().as_str()), (201, "abc"));
        assert_eq!(second.trailers, [("T".to_owned(), "x".to_owned())]);
        assert_eq!(connection.rest().unwrap(), b"z");
    }

    #[test]
    fn what_is_cut_is_not_taken_for_whole() {
        for cut in [
            &b"HTTP/1.1 200 OK\r\nContent-Le"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        ] {
            let broken = peer(cut).answer("GET").unwrap_err();
            assert!(matches!(broken, Broken::Cut(_)), "{:?}: {broken}", str::from_utf8(cut));
        }
        assert!(matches!(peer(b"").answer("GET"), Err(Broken::Closed)));
    }
}
