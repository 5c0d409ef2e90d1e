//! A connected socket whose reads and writes suspend the greenlet, for every address family.

use std::cell::Cell;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::hub::ready::{Interest, Ready, Trigger};
use crate::hub::source::Source;

/// A cooperative stream over a socket of type `S`, such as [`TcpStream`](super::TcpStream).
///
/// The socket must not have been cloned; it is closed when the stream is dropped.
///
/// A read shorter than its buffer is assumed to have drained the socket, which saves another read. This holds for
/// TCP, and for unix sockets over which no descriptors are passed.
#[derive(Debug)]
pub struct Stream<S> {
    source: Source<S>,
    read_timeout: Cell<Option<Duration>>,
    write_timeout: Cell<Option<Duration>>,
}

impl<S: AsFd> Stream<S>
where
    for<'a> &'a S: Read + Write,
{
    /// Registers a socket in this thread's hub. It must be non-blocking: see `from_std` of each kind.
    pub(super) fn from_nonblocking(socket: S) -> io::Result<Self> {
        let source = Source::new_closing(socket, Trigger::Edge)?;
        Ok(Self { source, read_timeout: Cell::new(None), write_timeout: Cell::new(None) })
    }

    /// Sets the maximum time that one read may wait; it then fails with [`io::ErrorKind::TimedOut`].
    pub fn set_read_timeout(&self, timeout: Option<Duration>) {
        self.read_timeout.set(timeout);
    }

    /// Sets the maximum time that one write may wait.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) {
        self.write_timeout.set(timeout);
    }

    /// Reads available bytes, waiting for the first one.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let timeout = self.read_timeout.get();
        let count = self.source.io(Interest::Read, timeout, |mut socket| socket.read(buffer))?;
        self.note_drained(count, buffer.len())?;
        Ok(count)
    }

    /// Reads available bytes or returns `WouldBlock`, without a system call if that is known.
    pub fn try_receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.try_io(Interest::Read, |mut socket| socket.read(buffer))?;
        self.note_drained(count, buffer.len())?;
        Ok(count)
    }

    /// Writes as much as fits, waiting for room for the first byte.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let timeout = self.write_timeout.get();
        self.source.io(Interest::Write, timeout, |mut socket| socket.write(bytes))
    }

    /// Writes as much as fits or returns `WouldBlock`.
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.source.try_io(Interest::Write, |mut socket| socket.write(bytes))
    }

    /// Like [`send`](Self::send), from several slices at once.
    pub fn send_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let timeout = self.write_timeout.get();
        self.source.io(Interest::Write, timeout, |mut socket| socket.write_vectored(pieces))
    }

    /// Like [`try_send`](Self::try_send), from several slices at once.
    pub fn try_send_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.source.try_io(Interest::Write, |mut socket| socket.write_vectored(pieces))
    }

    /// Parks the connection on the hub until it is readable; it then uses neither a greenlet nor a stack.
    /// `then` receives it, on the hub, when it is readable, when `timeout` has passed, or by
    /// [`expire_idle`](crate::expire_idle); it must not block, but typically spawns. The time counts from the
    /// start of the hub's turn.
    pub fn idle(self, timeout: Option<Duration>, then: impl FnOnce(Self, Ready) + 'static)
    where
        S: 'static,
    {
        Self::idle_with(self, |stream| stream, timeout, then);
    }

    /// Like [`idle`](Self::idle), for a stream inside a connection's record.
    pub fn idle_with<O: 'static>(
        owner: O,
        stream_of: impl Fn(&O) -> &Self,
        timeout: Option<Duration>,
        then: impl FnOnce(O, Ready) + 'static,
    ) where
        S: 'static,
    {
        Source::once_readable(owner, |owner| &stream_of(owner).source, timeout, then);
    }

    /// Returns the source, to wait for or to watch.
    pub fn source(&self) -> &Source<S> {
        &self.source
    }

    /// Returns the socket. It is non-blocking.
    pub fn get_ref(&self) -> &S {
        self.source.get_ref()
    }

    /// Removes the socket from the hub. It stays non-blocking.
    pub fn into_inner(self) -> S {
        self.source.into_inner()
    }

    fn note_drained(&self, count: usize, room: usize) -> io::Result<()> {
        if count > 0 && count < room { self.source.clear_ready(Interest::Read) } else { Ok(()) }
    }
}

impl<S: AsFd> Read for Stream<S>
where
    for<'a> &'a S: Read + Write,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(buffer)
    }
}

impl<S: AsFd> Read for &Stream<S>
where
    for<'a> &'a S: Read + Write,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(buffer)
    }
}

impl<S: AsFd> Write for Stream<S>
where
    for<'a> &'a S: Read + Write,
{
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: AsFd> Write for &Stream<S>
where
    for<'a> &'a S: Read + Write,
{
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: AsFd> AsFd for Stream<S>
where
    for<'a> &'a S: Read + Write,
{
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.get_ref().as_fd()
    }
}
