//! How the exchange of the current request waits, and where its connection returns.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};

use jimu_kit::{Connection, ConnectionDriver, Deadline, RequestDeadlines, blocking, poll};
use worker_api::{Host, Interest, Result};

/// Drives the connection of one request, and holds it after the exchange is over.
pub(crate) struct SyncDriver {
    host: Host,
    deadlines: RequestDeadlines,
    connection: Mutex<Option<Box<Connection>>>,
}

impl SyncDriver {
    /// Creates a driver that holds no connection yet.
    pub(crate) fn new(host: &Host, deadlines: &RequestDeadlines) -> Arc<Self> {
        let deadlines = deadlines.clone();
        Arc::new(Self { host: host.clone(), deadlines, connection: Mutex::new(None) })
    }

    /// Takes the connection, if its exchange is over.
    pub(crate) fn take(&self) -> Option<Box<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ConnectionDriver for SyncDriver {
    fn wait(&self, fd: RawFd, interest: Interest, deadline: Deadline) -> Result<()> {
        blocking::in_time(poll::wait(fd, interest, deadline, || self.host.notify()))
    }

    fn deadline_extended(&self, fd: RawFd, deadline: Deadline) {
        self.deadlines.extend(fd, deadline);
    }

    fn release(&self, connection: Box<Connection>) {
        self.deadlines.end(connection.fd());
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
    }
}
