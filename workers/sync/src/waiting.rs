//! Connections that are not being served: they have not sent a complete head or body, still read a response, or are
//! being closed. They wait in the loop's epoll and do not delay requests.

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;

use kit::Connection;
use kit::clock::{earlier, now_ns};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use worker_api::Interest;

/// The parked connections, by descriptor.
#[derive(Default)]
pub(crate) struct WaitingConnections {
    by_fd: HashMap<RawFd, Parked>,
    /// A lower bound of all deadlines, in monotonic nanoseconds; 0 for none.
    deadline_ns: u64,
    arrivals: u64,
}

struct Parked {
    connection: Box<Connection>,
    arrival: u64,
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
        self.deadline_ns = earlier(self.deadline_ns, connection.deadline_ns());
        self.arrivals += 1;
        self.by_fd.insert(fd, Parked { connection, arrival: self.arrivals });
        Ok(())
    }

    /// Takes a connection. It stays in the epoll, which reports it only once: most connections are closed after their one
    /// request, and closing removes them.
    pub(crate) fn take(&mut self, fd: RawFd) -> Option<Box<Connection>> {
        self.by_fd.remove(&fd).map(|parked| parked.connection)
    }

    /// Takes the connections whose deadline has passed.
    pub(crate) fn take_expired(&mut self) -> Vec<Box<Connection>> {
        let now = now_ns();
        if self.deadline_ns == 0 || now < self.deadline_ns {
            return Vec::new();
        }
        let is_late = |parked: &Parked| {
            let deadline = parked.connection.deadline_ns();
            deadline != 0 && deadline <= now
        };
        let late: Vec<RawFd> =
            self.by_fd.iter().filter(|(_, parked)| is_late(parked)).map(|(fd, _)| *fd).collect();
        let taken = late.into_iter().filter_map(|fd| self.take(fd)).collect();
        self.refresh_deadline();
        taken
    }

    /// Takes the connection to close when there is no room for another one: the one parked longest of those that wait for
    /// a request or linger, or else the one parked longest of all.
    pub(crate) fn take_oldest(&mut self) -> Option<Box<Connection>> {
        let rank = |parked: &Parked| (parked.connection.waits_since_ns().is_none(), parked.arrival);
        let fd = self.by_fd.iter().min_by_key(|(_, parked)| rank(parked)).map(|(fd, _)| *fd)?;
        self.take(fd)
    }

    /// Moves the deadline of idle connections to `deadline_ns` if it is later.
    pub(crate) fn shorten_idle_deadline(&mut self, deadline_ns: u64) {
        for parked in self.by_fd.values_mut() {
            parked.connection.shorten_idle_deadline(deadline_ns);
        }
        self.refresh_deadline();
    }

    /// Returns the number of parked connections.
    pub(crate) fn len(&self) -> usize {
        self.by_fd.len()
    }

    /// Returns a lower bound of all deadlines; 0 for none.
    pub(crate) fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    fn refresh_deadline(&mut self) {
        let deadlines = self.by_fd.values().map(|parked| parked.connection.deadline_ns());
        self.deadline_ns = deadlines.fold(0, earlier);
    }
}
