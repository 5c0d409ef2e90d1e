//! A listening socket whose accept suspends the greenlet, or which is watched.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::hub::ready::{Interest, Trigger};
use crate::hub::source::Source;

/// A cooperative listener over a socket of type `L`, such as [`TcpListener`](super::TcpListener).
///
/// It is level-triggered because other processes may accept from it, too. For an accept watch, use
/// [`source`](Self::source) and call `try_accept` in its callback.
#[derive(Debug)]
pub struct Listener<L> {
    source: Source<L>,
}

impl<L: AsFd> Listener<L> {
    pub(super) fn from_nonblocking(socket: L, trigger: Trigger) -> io::Result<Self> {
        let source = Source::new(socket, trigger)?;
        Ok(Self { source })
    }

    /// Returns the source, to wait for or to watch.
    pub fn source(&self) -> &Source<L> {
        &self.source
    }

    /// Returns the socket. It is non-blocking.
    pub fn get_ref(&self) -> &L {
        self.source.get_ref()
    }

    /// Removes the socket from the hub. It stays non-blocking.
    pub fn into_inner(self) -> L {
        self.source.into_inner()
    }

    pub(super) fn accept_with<C>(
        &self,
        timeout: Option<Duration>,
        accept: impl FnMut(&L) -> io::Result<C>,
    ) -> io::Result<C> {
        self.source.io(Interest::Read, timeout, accept)
    }

    pub(super) fn try_accept_with<C>(
        &self,
        accept: impl FnMut(&L) -> io::Result<C>,
    ) -> io::Result<C> {
        self.source.try_io(Interest::Read, accept)
    }
}

impl<L: AsFd> AsFd for Listener<L> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.get_ref().as_fd()
    }
}
