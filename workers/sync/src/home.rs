//! Where the connection of the one request comes from and goes back to, and how its exchange waits.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};

use kit::{Connection, Home, Overtime, blocking, poll};
use worker_api::{Host, Interest, Result};

/// The place to which a request's connection returns.
pub(crate) struct Place {
    host: Host,
    overtime: Overtime,
    connection: Mutex<Option<Box<Connection>>>,
}

impl Place {
    /// An empty place.
    pub(crate) fn new(host: &Host, overtime: &Overtime) -> Arc<Self> {
        let overtime = overtime.clone();
        Arc::new(Self { host: host.clone(), overtime, connection: Mutex::new(None) })
    }

    /// The connection, once its exchange is over.
    pub(crate) fn take(&self) -> Option<Box<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Home for Place {
    fn wait(&self, fd: RawFd, interest: Interest, deadline_ns: u64) -> Result<()> {
        blocking::in_time(poll::wait(fd, interest, deadline_ns, || self.host.notify()))
    }

    fn extended(&self, fd: RawFd, deadline_ns: u64) {
        self.overtime.extend(fd, deadline_ns);
    }

    fn done(&self, connection: Box<Connection>) {
        self.overtime.end(connection.fd());
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
    }
}
