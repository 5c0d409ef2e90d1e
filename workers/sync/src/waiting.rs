//! Connections that nobody serves now: they have not sent a whole head or body, or are being closed. They wait in the
//! loop's poller, and cost the application's requests nothing.

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;

use kit::Connection;
use kit::clock::{earlier, now_ns};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use worker_api::Interest;

/// The parked connections by descriptor, in the loop's poller.
#[derive(Default)]
pub(crate) struct WaitingConnections {
    by_fd: HashMap<RawFd, Parking>,
    /// Not later than the earliest deadline; 0 where there is none.
    deadline_ns: u64,
    arrivals: u64,
}

struct Parking {
    connection: Box<Connection>,
    arrival: u64,
}

impl WaitingConnections {
    /// Waits for a connection.
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
            // It was parked before.
            Err(Errno::EEXIST) => epoll.modify(&connection, &mut event)?,
            Err(errno) => return Err(errno.into()),
        }
        self.deadline_ns = earlier(self.deadline_ns, connection.deadline_ns());
        self.arrivals += 1;
        self.by_fd.insert(fd, Parking { connection, arrival: self.arrivals });
        Ok(())
    }

    /// Takes a connection back. The poller keeps it, as most are closed after their one request, which takes them out
    /// of it; it tells of each only once.
    pub(crate) fn take(&mut self, fd: RawFd) -> Option<Box<Connection>> {
        self.by_fd.remove(&fd).map(|parking| parking.connection)
    }

    /// Takes back all whose deadline has passed.
    pub(crate) fn take_expired(&mut self) -> Vec<Box<Connection>> {
        let now = now_ns();
        if self.deadline_ns == 0 || now < self.deadline_ns {
            return Vec::new();
        }
        let is_late = |parking: &Parking| {
            let deadline = parking.connection.deadline_ns();
            deadline != 0 && deadline <= now
        };
        let late: Vec<RawFd> =
            self.by_fd.iter().filter(|(_, parking)| is_late(parking)).map(|(fd, _)| *fd).collect();
        let taken = late.into_iter().filter_map(|fd| self.take(fd)).collect();
        self.refresh_deadline();
        taken
    }

    /// Takes back the one that gives way where there is no room for another: of those that wait for a request or
    /// linger the one parked longest, otherwise the one parked longest of all.
    pub(crate) fn take_oldest(&mut self) -> Option<Box<Connection>> {
        let rank =
            |parking: &Parking| (parking.connection.waits_since_ns().is_none(), parking.arrival);
        let fd = self.by_fd.iter().min_by_key(|(_, parking)| rank(parking)).map(|(fd, _)| *fd)?;
        self.take(fd)
    }

    /// Shortens the wait of those that have not sent anything.
    pub(crate) fn shorten_idle_deadline(&mut self, deadline_ns: u64) {
        for parking in self.by_fd.values_mut() {
            parking.connection.shorten_idle_deadline(deadline_ns);
        }
        self.refresh_deadline();
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_fd.len()
    }

    /// Not later than the earliest deadline; 0 where there is none.
    pub(crate) fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    fn refresh_deadline(&mut self) {
        let deadlines = self.by_fd.values().map(|parking| parking.connection.deadline_ns());
        self.deadline_ns = deadlines.fold(0, earlier);
    }
}
