//! The line: the workers of a server that wait for the connections of its listeners. What a class with a poller of its
//! own does to stand in it.

use std::io;
use std::os::fd::RawFd;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use crate::socket::{self, Acceptor};
use crate::worker_base::WorkerBase;

/// A worker's place in the lines of its listeners.
///
/// Of the workers in line, the kernel wakes one or few for a connection, not all; the first of the line that sleeps.
/// One who took a connection therefore goes to the end: without this one and the same serves whenever there is little
/// to do.
#[derive(Debug)]
pub struct AcceptQueue {
    acceptors: Vec<Acceptor>,
    /// Whether no other worker waits for the same connections.
    alone: bool,
}

impl AcceptQueue {
    /// The lines of a worker's listeners; it stands in none of them yet.
    pub fn new(base: &WorkerBase) -> Self {
        Self { acceptors: base.acceptors.clone(), alone: base.is_alone() }
    }

    /// Stands in line with `poller`, whose events carry the listeners' descriptors.
    pub fn register(&self, poller: &Epoll) -> io::Result<()> {
        self.acceptors.iter().try_for_each(|acceptor| watch(poller, acceptor.fd()))
    }

    /// Waits for no connection any more.
    pub fn deregister(&self, poller: &Epoll) {
        for acceptor in &self.acceptors {
            // One that is not watched is as good as one that is watched no more.
            let _ = poller.delete(socket::borrow(acceptor.fd()));
        }
    }

    /// Goes to the end of the line of one listener.
    pub fn requeue(&self, poller: &Epoll, acceptor: &Acceptor) -> io::Result<()> {
        if self.alone {
            return Ok(());
        }
        poller.delete(socket::borrow(acceptor.fd()))?;
        watch(poller, acceptor.fd())
    }
}

fn watch(poller: &Epoll, listener: RawFd) -> io::Result<()> {
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
    Ok(poller.add(socket::borrow(listener), EpollEvent::new(flags, listener as u64))?)
}
