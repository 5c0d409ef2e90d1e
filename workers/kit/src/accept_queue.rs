//! Sharing listeners with the other workers of the server, for classes with their own epoll.

use std::io;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use crate::accept::Acceptor;
use crate::worker_base::WorkerBase;

/// A worker's registrations with the accept queues of its listeners.
///
/// The kernel wakes one or a few of the workers that wait on a listener (`EPOLLEXCLUSIVE`), always the first
/// sleeping one in order of registration. A worker that accepted a connection therefore requeues itself: without
/// it, the same worker would serve almost everything under light load.
#[derive(Debug)]
pub struct AcceptQueue {
    acceptors: Vec<Acceptor>,
    /// Whether no other worker waits on the same listeners.
    alone: bool,
}

impl AcceptQueue {
    /// Creates the registrations for a worker's listeners, none of them active yet.
    pub fn new(base: &WorkerBase) -> Self {
        Self { acceptors: base.acceptors.clone(), alone: base.is_alone() }
    }

    /// Adds the listeners to `poller`; their events carry the listener's descriptor as data.
    pub fn register(&self, poller: &Epoll) -> io::Result<()> {
        self.acceptors.iter().try_for_each(|acceptor| watch(poller, acceptor))
    }

    /// Removes the listeners from `poller`.
    pub fn deregister(&self, poller: &Epoll) {
        for acceptor in &self.acceptors {
            // Removing a listener that is not registered is harmless.
            let _ = poller.delete(acceptor);
        }
    }

    /// Moves this worker to the end of one listener's wait queue.
    pub fn requeue(&self, poller: &Epoll, acceptor: &Acceptor) -> io::Result<()> {
        if self.alone {
            return Ok(());
        }
        poller.delete(acceptor)?;
        watch(poller, acceptor)
    }
}

fn watch(poller: &Epoll, acceptor: &Acceptor) -> io::Result<()> {
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
    Ok(poller.add(acceptor, EpollEvent::new(flags, acceptor.fd() as u64))?)
}
