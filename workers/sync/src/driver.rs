//! Where the connection of the one request comes from and goes back to, and how its exchange waits.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};

use kit::{Connection, ConnectionDriver, RequestDeadlines, blocking, poll};
use worker_api::{Host, Interest, Result};

/// The place to which a request's connection returns.
pub(crate) struct Place {
    host: Host,
    deadlines: RequestDeadlines,
    connection: Mutex<Option<Box<Connection>>>,
}

impl Place {
    /// An empty place.
    pub(crate) fn new(host: &Host, deadlines: &RequestDeadlines) -> Arc<Self> {
        let deadlines = deadlines.clone();
        Arc::new(Self { host: host.clone(), deadlines, connection: Mutex::new(None) })
    }

    /// The connection, once its exchange is over.
    pub(crate) fn take(&self) -> Option<Box<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ConnectionDriver for Place {
    fn wait(&self, fd: RawFd, interest: Interest, deadline_ns: u64) -> Result<()> {
        blocking::in_time(poll::wait(fd, interest, deadline_ns, || self.host.notify()))
    }

    fn deadline_extended(&self, fd: RawFd, deadline_ns: u64) {
        self.deadlines.extend(fd, deadline_ns);
    }

    fn release(&self, connection: Box<Connection>) {
        self.deadlines.end(connection.fd());
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
    }
}
