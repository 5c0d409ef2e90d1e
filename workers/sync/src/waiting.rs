//! Connections that are not being served: they have not sent a complete head or body, still read a response, or are
//! being closed. They wait in the loop's epoll and do not delay requests.

use std::io;
use std::os::fd::RawFd;

use jimu_kit::clock::now_ns;
use jimu_kit::{Connection, Deadline, Registry};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use worker_api::Interest;

/// The parked connections, by descriptor.
#[derive(Default)]
pub(crate) struct WaitingConnections {
    parked: Registry<Box<Connection>>,
    /// The number of connections that were parked in the middle of a request, for their order.
    interrupted: u64,
}

impl WaitingConnections {
    /// Parks a connection until its descriptor is ready for `interest`.
    pub(crate) fn park(
        &mut self,
        epoll: &Epoll,
        connection: Box<Connection>,
        interest: Interest,
    ) -> io::Result<()> {
        let fd = connection.fd();
        let flags =
            if interest == Interest::READ { EpollFlags::EPOLLIN } else { EpollFlags::EPOLLOUT };
        let mut event = EpollEvent::new(flags | EpollFlags::EPOLLONESHOT, fd as u64);
        match epoll.add(&connection, event) {
            Ok(()) => {}
            // The connection was parked before.
            Err(Errno::EEXIST) => epoll.modify(&connection, &mut event)?,
            Err(errno) => return Err(errno.into()),
        }
        let deadline = connection.deadline();
        let since = self.eviction_order(&connection);
        self.parked.insert(fd, connection);
        self.parked.begin_wait(fd, deadline, Some(since));
        Ok(())
    }

    /// Takes a connection. It stays in the epoll, which reports it only once: most connections are closed after their one
    /// request, and closing removes them.
    pub(crate) fn take(&mut self, fd: RawFd) -> Option<Box<Connection>> {
        self.parked.remove(fd)
    }

    /// Takes the connections whose deadline has passed.
    pub(crate) fn take_expired(&mut self) -> Vec<Box<Connection>> {
        if self.deadline().is_never() {
            return Vec::new();
        }
        let now_ns = now_ns();
        let mut expired = Vec::new();
        while let Some(fd) = self.parked.pop_expired(now_ns) {
            expired.extend(self.take(fd));
        }
        expired
    }

    /// Takes the connection to close when there is no room for another one: the one that has waited longest of those that
    /// wait for a request or linger, or else the one parked longest of all.
    pub(crate) fn take_oldest(&mut self) -> Option<Box<Connection>> {
        let fd = self.parked.pop_oldest(u64::MAX)?;
        self.take(fd)
    }

    /// Moves the deadline of idle connections to `deadline` if it is later.
    pub(crate) fn shorten_idle_deadline(&mut self, deadline: Deadline) {
        self.parked.update_deadlines(|connection| {
            connection.shorten_idle_deadline(deadline);
            Some(connection.deadline())
        });
    }

    /// Returns the number of parked connections.
    pub(crate) fn len(&self) -> usize {
        self.parked.len()
    }

    /// Returns a lower bound of all deadlines.
    pub(crate) fn deadline(&self) -> Deadline {
        self.parked.deadline()
    }

    /// Returns the place of a connection in the order of eviction: connections that are in the middle of a request come after
    /// all others.
    fn eviction_order(&mut self, connection: &Connection) -> u64 {
        connection.waits_since_ns().unwrap_or_else(|| {
            self.interrupted += 1;
            IN_REQUEST | self.interrupted
        })
    }
}

/// Set in the eviction order of connections that are in the middle of a request: no monotonic time reaches it.
const IN_REQUEST: u64 = 1 << 63;
